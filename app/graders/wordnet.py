"""A reader of WordNet's plain files, as much of it as METEOR asks for.

NLTK's own reader wants corpora in its data folder, laid out its way; the files that Debian's
`wordnet-base` and other distributions of WordNet install lack some of what it insists on. METEOR
only calls `synsets(word)`, then `lemmas()` and `name()`. Formats: wndb(5WN), morphy(7WN).
"""

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PARTS = ("noun", "verb", "adj", "adv")
_USUAL = (Path("/usr/share/wordnet"), Path("/usr/share/wordnet/dict"))
# Endings that are taken off, and what is put in their place.
_ENDINGS = {
    "noun": [
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"),
        ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
    ],
    "verb": [
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""),
        ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
    ],
    "adj": [("er", ""), ("est", ""), ("er", "e"), ("est", "e")],
    "adv": [],
}  # fmt: skip


@dataclass(frozen=True)
class Lemma:
    _name: str

    def name(self) -> str:
        return self._name


@dataclass(frozen=True)
class Synset:
    _names: tuple[str, ...]

    def lemmas(self) -> list[Lemma]:
        return [Lemma(name) for name in self._names]


class WordNet:
    """The files of one folder, mapped into memory and searched where they lie: no time to load."""

    def __init__(self, folder: Path) -> None:
        self._index = {part: _mapped(folder / f"index.{part}") for part in _PARTS}
        self._data = {part: _mapped(folder / f"data.{part}") for part in _PARTS}
        self._irregular = {part: _irregular(folder / f"{part}.exc") for part in _PARTS}

    def synsets(self, word: str) -> list[Synset]:
        """Every sense of the word and of its base forms, as every part of speech."""
        return [
            Synset(self._names(part, offset))
            for part in _PARTS
            for form in self._forms(part, word.lower())
            for offset in self._offsets(part, form)
        ]

    def _forms(self, part: str, word: str) -> list[str]:
        forms = [word, *self._irregular[part].get(word, ())]
        if len(forms) == 1:
            forms += [
                word.removesuffix(ending) + instead
                for ending, instead in _ENDINGS[part]
                if word.endswith(ending)
            ]
        return list(dict.fromkeys(forms))

    def _offsets(self, part: str, lemma: str) -> list[int]:
        line = _find(self._index[part], lemma.encode()) if lemma else None
        if line is None:
            return []
        fields = line.split()
        return [int(offset) for offset in fields[-int(fields[2]) :]]

    def _names(self, part: str, offset: int) -> tuple[str, ...]:
        data = self._data[part]
        fields = data[offset : data.find(b"\n", offset)].decode().split()
        count = int(fields[3], 16)
        # An adjective may carry a mark of its position: "galore(ip)".
        return tuple(re.sub(r"\(.*\)$", "", name) for name in fields[4 : 4 + 2 * count : 2])


class NoWordNet:
    """Stands in where there are no files: no word has synonyms."""

    def synsets(self, word: str) -> list[Synset]:
        return []


def find(folder: Path | None) -> WordNet | None:
    """The WordNet of this folder, or of a usual place; None where there is none."""
    for candidate in [folder] if folder else _USUAL:
        if all(
            (candidate / f"{kind}.{part}").is_file()
            for kind in ("index", "data")
            for part in _PARTS
        ):
            return WordNet(candidate)
    return None


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _irregular(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        return {}
    return {word: forms for word, *forms in _lines(path)}


def _lines(path: Path) -> Iterator[list[str]]:
    for line in path.read_text().splitlines():
        if fields := line.split():
            yield fields


def _find(index: mmap.mmap, lemma: bytes) -> str | None:
    """The line that begins with the lemma: the file is sorted."""
    low, high = 0, len(index)
    while low < high:
        start = index.rfind(b"\n", low, (low + high) // 2) + 1 or low
        end = index.find(b"\n", start)
        end = len(index) if end < 0 else end
        found = index[start:end].partition(b" ")[0]
        if found == lemma:
            return index[start:end].decode()
        if found < lemma:
            low = end + 1
        else:
            high = start
    return None
