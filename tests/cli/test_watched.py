"""What a watcher knows of a job, from its events alone."""

from typing import Any

from app.cli.job_watch import Watched


def event(type: str, step: int | None = None, second: int = 0, **data: Any) -> dict[str, Any]:
    at = f"2026-01-01T00:00:{second:02}.000Z"
    return {"type": type, "step": step, "at": at, "data": data}


def measured(step: int, loss: float, second: int = 0) -> dict[str, Any]:
    return event("METRICS", step, second, values={"training_loss": loss, "tokens_per_second": 9.0})


def test_losses_and_the_status_are_followed() -> None:
    seen = Watched()
    seen.take(event("STATUS", after="running"))
    seen.take(event("METRICS", 0, values={"validation_loss": 2.5}))
    seen.take(measured(1, 2.0))
    seen.take(event("METRICS", 2, values={"training_loss": None, "validation_loss": 1.5}))
    assert (seen.status, seen.step) == ("RUNNING", 2)
    assert seen.training == {1: 2.0}
    assert seen.validation == {0: 2.5, 2: 1.5}


def test_a_new_attempt_takes_back_what_lies_beyond_its_checkpoint() -> None:
    seen = Watched()
    for step in range(1, 9):
        seen.take(measured(step, 1 / step))
    seen.take(event("ATTEMPT_STARTED", fromStep=5))
    assert seen.step == 5
    assert max(seen.training) == 5
    seen.take(event("ATTEMPT_STARTED", fromStep=0))
    assert seen.training == {}


def test_the_time_left_follows_the_last_steps() -> None:
    seen = Watched(total=30)
    assert seen.remaining is None
    seen.take(event("STATUS", after="running"))
    for step in (1, 2, 3):
        seen.take(measured(step, 1.0, second=step * 2))
    assert seen.remaining is not None
    assert seen.remaining.total_seconds() == 54
    seen.take(event("STATUS", after="paused"))
    assert seen.remaining is None
