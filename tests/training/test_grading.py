"""A reinforcement job whose judge is a model that goes away for a while."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.graders.result import GraderErrors, GraderMetadata, GraderResult
from app.training import grading
from app.training.errors import TrainingFailed, TrainingStopped
from app.training.grading import Grading

WHY = "The model's server answered 409: it is not deployed."


def result(**errors: Any) -> GraderResult:
    said = GraderMetadata(name="g", type="score_model", errors=GraderErrors(**errors))
    return GraderResult(reward=0.0 if errors else 1.0, metadata=said)


GOOD = [result()] * 2
AWAY = [result(model_grader_server_error=True, details=WHY)] * 2
Batches = Callable[..., tuple[Grading, SimpleNamespace]]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """A grading whose graders give these batches, the last one again and again; and what it sees:
    the time, which only its pauses take, its warnings, and whether it is to stop."""

    def make(*batches: list[GraderResult]) -> tuple[Grading, SimpleNamespace]:
        seen = SimpleNamespace(now=0.0, asked=False, warnings=[])
        config: Any = SimpleNamespace(model_endpoint=None, grader={}, tenant="org")
        reporter: Any = SimpleNamespace(message=lambda _, text: seen.warnings.append(text))
        left = list(batches)

        def ask(*_: Any) -> list[GraderResult]:
            return left.pop(0) if len(left) > 1 else left[0]

        def sleep(seconds: float) -> None:
            seen.now += seconds

        clock = SimpleNamespace(monotonic=lambda: seen.now, sleep=sleep)
        monkeypatch.setattr(grading, "time", clock)
        made = Grading(config, reporter, cast(Any, seen))
        monkeypatch.setattr(made._asker, "ask", ask)
        return made, seen

    return make


def test_it_is_waited_for(given: Batches) -> None:
    made, seen = given(AWAY, AWAY, AWAY, AWAY, GOOD)
    assert made.judge([{}, {}], ["a", "b"]) == GOOD
    assert seen.warnings == [f"The model that judges is out of reach, trying again: {WHY}"]


def test_not_for_ever(given: Batches) -> None:
    made, seen = given(AWAY)
    for _ in range(grading.BAD_BATCHES - 1):
        assert made.judge([{}, {}], ["a", "b"]) == AWAY
    with pytest.raises(TrainingFailed, match="it is not deployed"):
        made.judge([{}, {}], ["a", "b"])
    assert 600 <= seen.now < 640


def test_a_stop_is_heard_meanwhile(given: Batches) -> None:
    made, seen = given(AWAY)
    seen.asked = True
    with pytest.raises(TrainingStopped):
        made.judge([{}, {}], ["a", "b"])


def test_a_few_samples_are_not_waited_for(given: Batches) -> None:
    mixed = [GOOD[0], AWAY[0]]
    made, seen = given(mixed)
    assert made.judge([{}, {}], ["a", "b"]) == mixed
    assert seen.now == 0
