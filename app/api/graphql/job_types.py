"""The words and the smaller types of jobs: statuses, events, progress, attempts, checkpoints."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import strawberry

from app.api.graphql.pagination import (
    Edge,
    PageInfo,
)
from app.api.graphql.scalars import JSON, BigInt
from app.attempts import tables as attempt_rows
from app.events import cursors, describe
from app.events.log import LoggedEvent
from app.jobs.metrics import Point


@strawberry.enum(description="The life of a job.")
class JobStatus(Enum):
    PENDING = strawberry.enum_value("pending", description="Recorded; no worker has seen it yet.")
    VALIDATING = strawberry.enum_value("validating", description="Its data is being checked.")
    QUEUED = strawberry.enum_value("queued", description="Waiting for its turn.")
    RUNNING = strawberry.enum_value("running", description="Training.")
    PAUSED = strawberry.enum_value("paused", description="Set aside, with its checkpoint.")
    SUCCEEDED = strawberry.enum_value("succeeded", description="Over: there is a model.")
    FAILED = strawberry.enum_value("failed", description="Over: see error.")
    CANCELLED = strawberry.enum_value("cancelled", description="Over: somebody ended it.")


@strawberry.type(description="A run at Weights & Biases that the job's metrics go to.")
class Wandb:
    project: str = strawberry.field(description="The project there.")
    entity: str | None = strawberry.field(description="The team or user; null for the key's own.")
    name: str | None = strawberry.field(description="The run's name; null for the job's id.")
    tags: list[str] = strawberry.field(description="Besides those that are always added.")


@strawberry.type(description="Where else a job is shown.")
class Integration:
    wandb: Wandb | None = strawberry.field(description="Weights & Biases.")


@strawberry.enum(description="What was asked of a job and is not done yet.")
class RequestedAction(Enum):
    PAUSE = strawberry.enum_value("pause", description="Save a checkpoint and leave the machine.")
    RESUME = strawberry.enum_value("resume", description="Go on as soon as it has paused.")
    CANCEL = strawberry.enum_value("cancel", description="End.")


@strawberry.enum(description="What an event tells. New values may be added: keep a default.")
class JobEventType(Enum):
    STATUS = strawberry.enum_value("job.status", description="The status changed.")
    REQUESTED = strawberry.enum_value("job.requested", description="Something was asked of it.")
    DELETED = strawberry.enum_value("job.deleted", description="It was deleted.")
    ATTEMPT_STARTED = strawberry.enum_value(
        "attempt.started", description="A worker began, at data.fromStep."
    )
    ATTEMPT_ENDED = strawberry.enum_value("attempt.ended", description="A worker's try is over.")
    METRICS = strawberry.enum_value("metrics", description="One step's values.")
    CHECKPOINT = strawberry.enum_value("checkpoint", description="Weights were saved.")
    SCORE = strawberry.enum_value(
        "score",
        description="A checkpoint was judged: data has score, graders, errors and samples.",
    )
    MESSAGE = strawberry.enum_value("message", description="Something to read.")
    MODEL = strawberry.enum_value("model.created", description="The result has a name.")
    RESULT = strawberry.enum_value("result.created", description="A result file was made.")


@strawberry.enum(description="How much an event matters; each includes the ones after it.")
class LogLevel(Enum):
    DEBUG = strawberry.enum_value("debug", description="Everything.")
    INFO = strawberry.enum_value("info", description="The ordinary course.")
    WARN = strawberry.enum_value("warn", description="Worth a look.")
    ERROR = strawberry.enum_value("error", description="It went wrong.")


# Events are many, and an Enum takes its time to find a value.
_EVENT_TYPES = {str(kind.value): kind for kind in JobEventType}
_LEVELS = {str(level.value): level for level in LogLevel}


@strawberry.type(description="How far a job is.")
class JobProgress:
    step: int = strawberry.field(description="Steps done.")
    total_steps: int | None = strawberry.field(
        description="Steps in all; null while a provider does not tell."
    )
    epoch: float = strawberry.field(description="Passes over the data done, in parts.")
    total_epochs: int = strawberry.field(description="Passes in all.")
    percent: float | None = strawberry.field(
        description="0 to 100; 100 only when every step is done; null when nobody can tell."
    )
    trained_tokens: BigInt = strawberry.field(description="Tokens seen so far.")
    tokens_per_second: float | None = strawberry.field(description="Speed of this session.")
    estimated_finish_at: datetime | None = strawberry.field(
        description="When it will be done at that speed; null when it is not running."
    )


@strawberry.type(description="The newest observation of a job where it runs.")
class Evidence:
    source: str = strawberry.field(description="worker, poll or webhook.")
    at: datetime = strawberry.field(description="When.")


@strawberry.type(description="Why a job failed.")
class JobError:
    code: str = strawberry.field(description="For programs.")
    message: str = strawberry.field(description="For people.")
    param: str | None = strawberry.field(description="The part of the input it is about.")


@strawberry.type(
    description="The exact record of a run: with the same again, the losses come out the same."
)
class RunManifest:
    luthier: str = strawberry.field(description="The version of Luthier.")
    training_sha256: str = strawberry.field(description="Of the training data's bytes.")
    validation_sha256: str | None = strawberry.field(description="Of the validation data's bytes.")
    base_model: str = strawberry.field(description="What was tuned.")
    base_sha256: str | None = strawberry.field(
        description="Of the base model's files; null when it came from a hub."
    )
    method: str = strawberry.field(description="How.")
    hyperparameters: JSON = strawberry.field(description='As numbers: what "auto" became.')
    seed: BigInt = strawberry.field(description="Of every random choice.")
    device: str = strawberry.field(description="cpu or cuda.")
    dtype: str = strawberry.field(description="The number format computed in.")
    threads: int = strawberry.field(description="Processor threads, of each process.")
    versions: JSON = strawberry.field(description="Of Python and of the libraries, by name.")
    hardware: JSON = strawberry.field(description="The machine's processors, memory in bytes.")
    hourly_cost: float = strawberry.field(description="US dollars an hour of that machine.")
    template_sha256: str | None = strawberry.field(
        description="Of the chat template that made tokens of the data.", default=None
    )
    start_sha256: str | None = strawberry.field(
        description="Of the manifest of the model it started with, where it went on from one.",
        default=None,
    )
    processes: int = strawberry.field(
        description="How many shared the work, each on a part of every batch.", default=1
    )
    evaluation_sha256: str | None = strawberry.field(
        description="Of the held-out cases' bytes.", default=None
    )
    evaluation: JSON | None = strawberry.field(
        description="How the checkpoints were judged.", default=None
    )

    @staticmethod
    def of(found: Mapping[str, Any]) -> "RunManifest":
        return RunManifest(**{_snake(name): value for name, value in found.items()})


@strawberry.type(description="One start of the work.")
class Attempt:
    number: int = strawberry.field(description="1, 2, 3 … within the job.")
    worker_id: strawberry.ID | None = strawberry.field(description="Who took it.")
    from_step: int | None = strawberry.field(description="The step it went on from.")
    outcome: str | None = strawberry.field(description="How it ended, such as succeeded or lost.")
    created_at: datetime = strawberry.field(description="When it was queued.")
    started_at: datetime | None = strawberry.field(description="When a worker took it.")
    finished_at: datetime | None = strawberry.field(description="When it ended.")

    @staticmethod
    def of(row: attempt_rows.Attempt) -> "Attempt":
        return Attempt(
            number=row.number,
            worker_id=strawberry.ID(row.worker_id) if row.worker_id else None,
            from_step=row.from_step,
            outcome=row.outcome,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )


@strawberry.type(description="One thing that happened to a job.")
class JobEvent:
    id: strawberry.ID = strawberry.field(description="Opaque and stable.")
    cursor: str = strawberry.field(description="Its place in the stream: subscribe after it.")
    job_id: strawberry.ID = strawberry.field(description="The job.")
    type: JobEventType = strawberry.field(description="What kind of thing.")
    level: LogLevel = strawberry.field(description="How much it matters.")
    message: str = strawberry.field(description="The same in words.")
    at: datetime = strawberry.field(description="When it happened.")
    attempt: int | None = strawberry.field(description="In which attempt.")
    step: int | None = strawberry.field(description="At which step.")
    data: JSON = strawberry.field(description="Its details; the keys depend on type.")

    @staticmethod
    def of(event: LoggedEvent) -> "JobEvent":
        data: Any = event.data
        return JobEvent(
            id=strawberry.ID(f"{event.stream_id}:{event.seq}"),
            cursor=cursors.encode(event.seq),
            job_id=strawberry.ID(event.stream_id),
            type=_EVENT_TYPES[event.type],
            level=_LEVELS[describe.level(event)],
            message=describe.message(event),
            at=event.at,
            attempt=event.attempt,
            step=event.step,
            data=data,
        )


@strawberry.type(description="A job's events, oldest first.")
class JobEventConnection:
    edges: list[Edge[JobEvent]] = strawberry.field(description="The events with their cursors.")
    nodes: list[JobEvent] = strawberry.field(description="The events alone.")
    page_info: PageInfo = strawberry.field(description="Where this page lies.")

    @staticmethod
    def of(found: Sequence[LoggedEvent], size: int, position: int) -> "JobEventConnection":
        """The events after a position; one more than the page holds, when there are more."""
        nodes = [JobEvent.of(event) for event in found[:size]]
        return JobEventConnection(
            edges=[Edge(cursor=node.cursor, node=node) for node in nodes],
            nodes=nodes,
            page_info=PageInfo(
                has_next_page=len(found) > size,
                has_previous_page=position > 0,
                start_cursor=nodes[0].cursor if nodes else None,
                end_cursor=nodes[-1].cursor if nodes else None,
            ),
        )


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def latest_point(job_id: str, latest: Mapping[str, Any]) -> Point:
    return Point(
        job_id,
        latest["attempt"],
        latest["step"],
        datetime.fromisoformat(latest["at"]),
        latest["epoch"],
        latest["values"],
        latest.get("nonFinite", []),
    )


def _percent(step: int, total: int | None, told: float | None) -> float | None:
    if total is None:
        return None if told is None else min(99.9, round(told, 1))
    return 100.0 if step >= total else min(99.9, round(100 * step / total, 1))


def progress_of(latest: Mapping[str, Any], *, running: bool) -> JobProgress:
    found = latest["progress"]
    step, total = found["step"], found["total_steps"]
    left = found.get("remaining_seconds")
    finish = None
    if running and left is not None:
        finish = datetime.fromisoformat(latest["at"]) + timedelta(seconds=left)
    return JobProgress(
        step=step,
        total_steps=total,
        epoch=found["epoch"],
        total_epochs=found["total_epochs"],
        percent=_percent(step, total, found.get("percent")),
        trained_tokens=BigInt(found["trained_tokens"]),
        tokens_per_second=found.get("tokens_per_second"),
        estimated_finish_at=finish,
    )
