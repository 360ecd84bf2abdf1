"""From what graders gave for single answers to the score of a checkpoint."""

from collections.abc import Sequence
from typing import Any

from app.graders.result import GraderResult
from app.training.evaluation import NamedGrader
from app.training.report import GraderScore, ScoredSample

SHOWN = 2  # of the best answers, and of the worst
LONGEST_TEXT = 500  # characters


class Unscorable(Exception):
    """No score can be given; says why."""


def count(
    graders: Sequence[NamedGrader],
    items: Sequence[dict[str, Any]],
    answers: Sequence[str],
    results: Sequence[Sequence[GraderResult]],
) -> dict[str, Any]:
    """The fields of a `Score`; `results` has for each grader one for each answer."""
    marks = [_marks(one) for one in results]
    scores = [
        GraderScore(name=grader.name, score=_mean(mark), errors=sum(r.failed for r in given))
        for grader, mark, given in zip(graders, marks, results, strict=True)
    ]
    said: dict[str, Any] = {
        "graders": scores,
        "errors": sum(one.errors for one in scores),
        "samples": _samples(graders, items, answers, marks, results),
    }
    for one, given in zip(scores, results, strict=True):
        if one.score is None:
            why = next(_reason(result) for result in given if _out_of_reach(result))
            said["reason"] = f"The grader {one.name} was out of reach for most answers: {why}"
            return said
    weights = sum(grader.weight for grader in graders)
    weighted = (g.weight * (s.score or 0.0) for g, s in zip(graders, scores, strict=True))
    return {**said, "score": sum(weighted) / weights}


def _marks(results: Sequence[GraderResult]) -> list[float | None]:
    """One for each answer; None where the grader could not be asked, which no answer is to blame
    for. An answer that its grader fails on gets 0, or what the worst got if that is lower: else a
    model whose answers cannot be judged would look better than one that answers badly."""
    good = [result.reward for result in results if not result.failed]
    lowest = min([0.0, *good])
    return [
        None if _out_of_reach(result) else lowest if result.failed else result.reward
        for result in results
    ]


def _out_of_reach(result: GraderResult) -> bool:
    errors = result.metadata.errors
    return (
        errors.python_grader_server_error
        or errors.model_grader_server_error
        or errors.unresponsive_reward_error
    )


def _mean(marks: Sequence[float | None]) -> float | None:
    known = [mark for mark in marks if mark is not None]
    return sum(known) / len(known) if 2 * len(known) > len(marks) else None


def _samples(
    graders: Sequence[NamedGrader],
    items: Sequence[dict[str, Any]],
    answers: Sequence[str],
    marks: Sequence[Sequence[float | None]],
    results: Sequence[Sequence[GraderResult]],
) -> list[ScoredSample]:
    ranked = []
    for n in range(len(answers)):
        given = [(g, mark[n]) for g, mark in zip(graders, marks, strict=True)]
        known = [(g.weight, value) for g, value in given if value is not None]
        if known:
            mean = sum(w * value for w, value in known) / sum(w for w, _ in known)
            ranked.append((mean, n))
    ranked.sort(key=lambda pair: (-pair[0], pair[1]))
    shown = ranked if len(ranked) <= 2 * SHOWN else ranked[:SHOWN] + ranked[-SHOWN:]
    return [
        ScoredSample(
            prompt=_cut(_asked(items[n])),
            answer=_cut(answers[n]),
            score=mean,
            graders={g.name: mark[n] for g, mark in zip(graders, marks, strict=True)},
            error=next((_reason(one[n]) for one in results if one[n].failed), None),
        )
        for mean, n in shown
    ]


def _asked(item: dict[str, Any]) -> str:
    content = item["messages"][-1].get("content") or ""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(content)


def _reason(result: GraderResult) -> str:
    errors = result.metadata.errors
    said = errors.python_grader_runtime_error_details or errors.details or "no reason given"
    return said[:LONGEST_TEXT]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
