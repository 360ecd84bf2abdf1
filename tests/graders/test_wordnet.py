"""WordNet's plain files, here three small ones in the same format."""

from pathlib import Path

import pytest

from app.graders import wordnet
from app.graders.text import TextMetrics

# lemma, part of speech, senses, pointers, senses again, tagged senses, offsets into the data file
LICENSE = "  1 This is no WordNet, but it is laid out like one.\n  2 Lines like these come first.\n"
WORDS: dict[str, list[tuple[str, ...]]] = {
    "noun": [("auto", "car", "motor_car"), ("child", "kid"), ("leaf",)],
    "verb": [("go", "run"), ("hurry", "rush")],
    "adj": [("quick(a)", "fast")],
    "adv": [("fast",)],
}
EXCEPTIONS = {"noun": "children child\n", "verb": "ran run\nwent go\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, synsets in WORDS.items():
        data = LICENSE
        places: dict[str, list[int]] = {}
        for names in synsets:
            words = " ".join(f"{name} 0" for name in names)
            offset = len(data.encode())
            data += f"{offset:08} 05 {part[0]} {len(names):02x} {words} 000 | a gloss\n"
            for name in names:
                places.setdefault(name.partition("(")[0], []).append(offset)
        index = LICENSE + "".join(
            f"{name} {part[0]} {len(at)} 0 {len(at)} 0 {' '.join(f'{o:08}' for o in at)}  \n"
            for name, at in sorted(places.items())
        )
        (tmp_path / f"data.{part}").write_text(data)
        (tmp_path / f"index.{part}").write_text(index)
        (tmp_path / f"{part}.exc").write_text(EXCEPTIONS.get(part, ""))
    return tmp_path


def synonyms(folder: Path, word: str) -> set[str]:
    found = wordnet.find(folder)
    assert found is not None
    return {lemma.name() for synset in found.synsets(word) for lemma in synset.lemmas()}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("car", {"auto", "car", "motor_car"}),
        ("Cars", {"auto", "car", "motor_car"}),
        ("leaves", {"leaf"}),
        ("children", {"child", "kid"}),  # irregular
        ("ran", {"go", "run"}),
        ("hurries", {"hurry", "rush"}),
        ("rushing", {"hurry", "rush"}),
        ("fast", {"fast", "quick"}),  # an adjective and an adverb; the mark "(a)" is left out
        ("faster", {"fast", "quick"}),
        ("aardvark", set()),
        ("zebra", set()),
        ("", set()),
    ],
)
def test_synonyms(folder: Path, word: str, expected: set[str]) -> None:
    assert synonyms(folder, word) == expected


def test_meteor_knows_synonyms_where_there_are_files(folder: Path) -> None:
    metrics = TextMetrics(folder)
    with_files, notes = metrics.compare("meteor", "the auto is fast", "the car is quick")
    # All four words match in one run: 1 - 0.5 * (1/4)^3.
    assert with_files == pytest.approx(1 - 0.5 * (1 / 4) ** 3)
    assert notes == []


def test_without_files_meteor_says_so(tmp_path: Path) -> None:
    value, notes = TextMetrics(tmp_path).compare("meteor", "the auto is fast", "the car is quick")
    assert value < 0.6
    assert notes == ["METEOR matched words and stems only: there are no WordNet files."]
