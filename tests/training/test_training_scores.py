"""Checkpoints judged by graders while a model trains, which changes nothing of the training."""

from pathlib import Path
from typing import Any

import pytest

from app.graders.result import GraderErrors, GraderMetadata, GraderResult
from app.training.evaluation import NamedGrader
from app.training.marks import count
from app.training.report import Checkpoint, Score
from tests.training.training_helpers import (
    Outcome,
    Start,
    resuming,
    sha256,
    values_from,
    with_validation,
    write_rows,
)

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

FULL = {
    "adapter": "full",
    "n_epochs": 2,
    "batch_size": 4,
    "learning_rate": 3e-3,
    "checkpoint_interval": 8,
    "eval_interval": 8,
}
LENGTH = """
def grade(sample, item):
    return min(1.0, len(sample["output_text"]) / item["wanted"])  # which one case lacks
"""
GRADERS: list[dict[str, Any]] = [
    {"name": "length", "grader": {"type": "python", "name": "length", "source": LENGTH}},
    {
        "name": "json",
        "weight": 3,
        "grader": {
            "type": "string_check",
            "name": "json",
            "input": "{{ sample.output_text }}",
            "reference": "queue",
            "operation": "like",
        },
    },
]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("held-out") / "cases.jsonl"
    write_rows(
        file,
        [
            {
                "messages": [{"role": "user", "content": f"please sort ticket {n}" + " now" * n}],
                **({"wanted": 40} if n else {}),
            }
            for n in range(6)
        ],
    )
    return {
        "file": file,
        "sha256": sha256(file),
        "tenant": "org_test",
        "graders": GRADERS,
        "max_completion_tokens": 12,
        # Sampling draws random numbers, which training must not miss.
        "temperature": 0.7,
        "samples": 2,
    }


def scores(outcome: Outcome) -> list[Score]:
    return [report for report in outcome.reports if isinstance(report, Score)]


def plain(found: list[Score]) -> list[dict[str, Any]]:
    return [one.model_dump(exclude={"seconds"}) for one in found]


@pytest.mark.soak
def test_scores_change_no_digit_of_the_training_and_survive_a_pause(
    start: Start, chats: Path, held_out: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"hyperparameters": FULL, **with_validation(chats)}
    alone = start("alone", **settings).end()
    judged = start("judged", **settings, evaluation=held_out).end()

    assert values_from(judged.metrics, 0) == values_from(alone.metrics, 0)
    assert judged.finished.metrics == alone.finished.metrics
    found = scores(judged)
    assert [one.step for one in found] == [8, 16, 24]
    for one in found:
        assert one.score is not None
        parts = {grader.name: grader.score or 0 for grader in one.graders}
        assert one.score == pytest.approx((parts["length"] + 3 * parts["json"]) / 4)
        # Both answers to the case that has no `wanted`.
        assert [grader.errors for grader in one.graders] == [2, 0]
        assert (one.cases, one.errors, one.reason) == (6, 2, None)
        assert len(one.samples) == 4
        assert one.samples[0].score >= one.samples[-1].score
        assert one.samples[0].prompt.startswith("please sort ticket")
    assert (found[-1].score or 0) > (found[0].score or 0)

    paused = start("paused", **settings, evaluation=held_out)
    paused.wait_for(lambda report: isinstance(report, Checkpoint))
    paused.terminate()
    outcome = paused.end()
    assert outcome.stopped.step == outcome.checkpoints[-1].step
    unscored = len(scores(outcome)) < len(outcome.checkpoints)
    resumed = start(
        "resumed",
        attempt=2,
        **settings,
        evaluation={**held_out, "resumed_is_unscored": unscored},
        **resuming(outcome.checkpoints[-1]),
    ).end()
    assert plain(scores(outcome) + scores(resumed)) == plain(found)
    assert resumed.metrics[-1].values["training_loss"] == alone.metrics[-1].values["training_loss"]


def test_a_checkpoint_is_left_without_a_score_rather_than_the_job_failed(
    start: Start, held_out: dict[str, Any]
) -> None:
    once = {**FULL, "n_epochs": 1, "checkpoint_interval": 12}
    hurried = start(hyperparameters=once, evaluation={**held_out, "seconds": 0.001}).end()
    assert hurried.finished.step == 12
    (one,) = scores(hurried)
    assert one.score is None
    assert "longer than 0.001 s" in (one.reason or "")


def result(reward: float = 0.0, **errors: Any) -> GraderResult:
    metadata = GraderMetadata(name="g", type="python", errors=GraderErrors(**errors))
    return GraderResult(reward=reward, metadata=metadata)


def test_an_answer_that_cannot_be_judged_never_helps() -> None:
    items = [{"messages": [{"role": "user", "content": f"question {n}"}]} for n in range(4)]
    texts = ["a", "b", "c", "d"]

    def scored(*results: GraderResult) -> dict[str, Any]:
        graders = [NamedGrader(name="g", grader={})]
        return count(graders, items, texts, [results])

    broken = result(python_grader_runtime_error=True, details="no such field")
    away = result(model_grader_server_error=True, details="no answer")
    said = scored(result(1), result(1), broken, result(0.5))
    assert (said["score"], said["errors"]) == (2.5 / 4, 1)
    assert said["samples"][-1].error == "no such field"
    # Where rewards are below zero, zero would be a prize.
    assert scored(result(-2), result(-1), broken, result(-1))["score"] == -6 / 4
    # A grader that is out of reach says nothing about the answer.
    assert scored(result(1), result(1), away, result(0.5))["score"] == 2.5 / 3
    nothing = scored(result(1), away, away, result(1))
    assert "score" not in nothing
    assert "out of reach" in nothing["reason"]
