"""Events in words, for logs and terminals."""

from collections.abc import Callable
from typing import Any

from app.events.log import LoggedEvent
from app.events.types import EventType

_SHOWN = (
    *("score", "training_loss", "validation_loss", "training_accuracy", "validation_accuracy"),
    *("reward", "validation_reward", "reward_margin", "validation_reward_margin"),
)
# What makes an event worse than it says of itself.
_BAD: dict[str, tuple[str, str, str]] = {
    EventType.JOB_STATUS: ("after", "failed", "error"),
    EventType.ATTEMPT_ENDED: ("outcome", "lost", "warn"),
}


def level(event: LoggedEvent) -> str:
    bad = _BAD.get(event.type)
    if bad and event.data.get(bad[0]) == bad[1]:
        return bad[2]
    return str(event.data.get("level", "info"))


def message(event: LoggedEvent) -> str:
    words = _WORDS.get(event.type)
    return words(event) if words else str(event.data.get("message", event.type))


def _requested(event: LoggedEvent) -> str:
    return f"{event.data['action'].capitalize()} requested."


def _attempt_started(event: LoggedEvent) -> str:
    step = event.data.get("fromStep")
    where = f" from step {step}" if step else ""
    return f"Attempt {event.attempt} started{where}."


def _attempt_ended(event: LoggedEvent) -> str:
    data = event.data
    why = f" {data['message']}" if data.get("message") else ""
    return f"Attempt {event.attempt} ended: {data['outcome']}.{why}"


def _metrics(event: LoggedEvent) -> str:
    return f"Step {event.step}: {_values(event.data.get('values', {}))}"


def _status(event: LoggedEvent) -> str:
    data = event.data
    words = f"{data['before']} → {data['after']}" if data.get("before") else data["after"]
    if error := data.get("error"):
        return f"{words}: {error['message']}"
    if said := data.get("message"):
        return f"{words}: {said}"
    return str(words)


def _score(event: LoggedEvent) -> str:
    data = event.data
    if data.get("score") is None:
        return f"No score at step {event.step}: {data.get('reason') or 'nothing was judged.'}"
    parts = [f"{g['name']} {g['score']:.4f}" for g in data["graders"] if g["score"] is not None]
    errors = f"; {data['errors']} could not be judged" if data["errors"] else ""
    of = f" ({', '.join(parts)})" if len(parts) > 1 else ""
    return (
        f"Score at step {event.step}: {data['score']:.4f}{of}, {data['cases']} cases in"
        f" {data['seconds']:.1f} s{errors}."
    )


def _model(event: LoggedEvent) -> str:
    data = event.data
    said = f"New model {data['name']}"
    if data.get("score") is None:
        return f"{said}."
    return f"{said}: the checkpoint of step {data['step']} has the best score, {data['score']:.4f}."


def _values(values: dict[str, Any]) -> str:
    shown = [
        f"{name.replace('_', ' ')} {values[name]:.4f}"
        for name in _SHOWN
        if values.get(name) is not None
    ]
    return ", ".join(shown) or "no finite values"


_WORDS: dict[str, Callable[[LoggedEvent], str]] = {
    EventType.JOB_STATUS: _status,
    EventType.JOB_REQUESTED: _requested,
    EventType.JOB_DELETED: lambda _: "The job was deleted.",
    EventType.ATTEMPT_STARTED: _attempt_started,
    EventType.ATTEMPT_ENDED: _attempt_ended,
    EventType.METRICS: _metrics,
    EventType.CHECKPOINT: lambda event: f"Checkpoint saved at step {event.step}.",
    EventType.SCORE: _score,
    EventType.MODEL: _model,
    EventType.RESULT: lambda event: f"Result file {event.data['fileId']}.",
    EventType.DEPLOYMENT_STATUS: lambda event: (
        f"Deployment {event.data['deploymentId']}: {event.data['after']}."
    ),
}
