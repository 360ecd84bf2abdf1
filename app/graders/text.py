"""How alike two texts are: the eleven metrics, each 0 to 1, by the libraries known for them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from app.graders import embedding, wordnet
from app.graders.spec import Metric

CHARACTERS_LIMIT = 200_000
METEOR_WORDS = 3_000  # it compares each word with each


class TextTooLong(ValueError):
    """The metric would take too long; the message names the limit."""


class TextMetrics:
    """`wordnet_folder` has WordNet's files; None looks where Debian puts them."""

    def __init__(self, wordnet_folder: Path | None = None) -> None:
        self._wordnet = wordnet.find(wordnet_folder)

    def compare(self, metric: Metric, text: str, reference: str) -> tuple[float, list[str]]:
        """The similarity, and notes for whoever reads it. Blocks, for a second at most.
        Raises TextTooLong and `embedding.EmbeddingUnavailable`."""
        if max(len(text), len(reference)) > CHARACTERS_LIMIT:
            raise TextTooLong(f"A text has more than {CHARACTERS_LIMIT:,} characters.")
        notes: list[str] = []
        if metric == "meteor":
            value = self._meteor(text, reference)
            if self._wordnet is None:
                notes.append("METEOR matched words and stems only: there are no WordNet files.")
        elif metric == "cosine":
            value, cut = embedding.cosine(text, reference)
            if cut:
                notes.append(f"Only the first {embedding.LONGEST} tokens were compared.")
        else:
            value = _METRICS[metric](text, reference)
        return min(1.0, max(0.0, float(value))), notes

    def _meteor(self, text: str, reference: str) -> float:
        from nltk.translate.meteor_score import meteor_score

        words, expected = text.split(), reference.split()
        if max(len(words), len(expected)) > METEOR_WORDS:
            raise TextTooLong(f"A text has more than {METEOR_WORDS:,} words, too many for METEOR.")
        synonyms: Any = self._wordnet or wordnet.NoWordNet()
        return float(meteor_score([expected], words, wordnet=synonyms))


def _fuzzy_match(text: str, reference: str) -> float:
    from rapidfuzz import fuzz

    return fuzz.ratio(text, reference) / 100


def _bleu(text: str, reference: str) -> float:
    import sacrebleu

    return float(sacrebleu.sentence_bleu(text, [reference]).score) / 100


def _gleu(text: str, reference: str) -> float:
    from nltk.translate.gleu_score import sentence_gleu

    words = text.split()
    return float(sentence_gleu([reference.split()], words)) if words else 0.0


def _rouge(n: int) -> Callable[[str, str], float]:
    def score(text: str, reference: str) -> float:
        from rouge_score.rouge_scorer import RougeScorer

        name = f"rouge{n}"
        scores = RougeScorer([name], tokenizer=_rouge_words()).score(reference, text)
        return float(scores[name].fmeasure)

    return score


def _rouge_l(text: str, reference: str) -> float:
    from rapidfuzz.distance import LCSseq
    from rouge_score.scoring import fmeasure

    # The same number as the library's own, whose table in Python takes minutes for long texts.
    words, expected = (_rouge_words().tokenize(side) for side in (text, reference))
    if not words or not expected:
        return 0.0
    common = LCSseq.similarity(words, expected)
    return float(fmeasure(common / len(words), common / len(expected)))


@cache
def _rouge_words() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)


_METRICS: dict[str, Callable[[str, str], float]] = {
    "fuzzy_match": _fuzzy_match,
    "bleu": _bleu,
    "gleu": _gleu,
    "rouge_l": _rouge_l,
} | {f"rouge_{n}": _rouge(n) for n in range(1, 6)}
