"""Events in words, for logs and terminals."""

from typing import Any

from app.events.log import LoggedEvent
from app.events.types import EventType

_SHOWN = (
    *("score", "training_loss", "validation_loss", "training_accuracy", "validation_accuracy"),
    *("reward", "validation_reward", "reward_margin", "validation_reward_margin"),
)


def level(event: LoggedEvent) -> str:
    data = event.data
    if event.type == EventType.JOB_STATUS and data.get("after") == "failed":
        return "error"
    if event.type == EventType.ATTEMPT_ENDED and data.get("outcome") == "lost":
        return "warn"
    return str(data.get("level", "info"))


def message(event: LoggedEvent) -> str:
    data = event.data
    match event.type:
        case EventType.JOB_STATUS:
            return _status(data)
        case EventType.JOB_REQUESTED:
            return f"{data['action'].capitalize()} requested."
        case EventType.JOB_DELETED:
            return "The job was deleted."
        case EventType.ATTEMPT_STARTED:
            where = f" from step {data['fromStep']}" if data.get("fromStep") else ""
            return f"Attempt {event.attempt} started{where}."
        case EventType.ATTEMPT_ENDED:
            why = f" {data['message']}" if data.get("message") else ""
            return f"Attempt {event.attempt} ended: {data['outcome']}.{why}"
        case EventType.METRICS:
            return f"Step {event.step}: {_values(data.get('values', {}))}"
        case EventType.CHECKPOINT:
            return f"Checkpoint saved at step {event.step}."
        case EventType.SCORE:
            return _score(event)
        case EventType.MODEL:
            return _model(data)
        case EventType.RESULT:
            return f"Result file {data['fileId']}."
        case EventType.DEPLOYMENT_STATUS:
            return f"Deployment {data['deploymentId']}: {data['after']}."
        case _:
            return str(data.get("message", event.type))


def _status(data: dict[str, Any]) -> str:
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


def _model(data: dict[str, Any]) -> str:
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
