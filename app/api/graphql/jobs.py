"""The job as the API shows it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import strawberry
from sqlmodel.ext.asyncio.session import AsyncSession
from strawberry.types import get_object_definition
from strawberry.utils.str_converters import to_camel_case

from app.api.graphql.catalog import Provider
from app.api.graphql.checkpoints import Checkpoint, CheckpointRetention
from app.api.graphql.context import Info, Waiting
from app.api.graphql.datasets import DatasetVersion, File
from app.api.graphql.evaluations import JobEvaluation
from app.api.graphql.job_examples import (
    DataSplit,
    ExampleConnection,
    ExampleFlag,
    ExampleOrder,
    example_page,
)
from app.api.graphql.job_types import (
    Attempt,
    Evidence,
    Integration,
    JobError,
    JobEventConnection,
    JobEventType,
    JobProgress,
    JobStatus,
    LogLevel,
    RequestedAction,
    RunManifest,
    Wandb,
    latest_point,
    progress_of,
)
from app.api.graphql.metrics import MetricPoint
from app.api.graphql.models import Deployment, Model
from app.api.graphql.node import Node
from app.api.graphql.pagination import After, Connection, First, arg, connect
from app.api.graphql.scalars import JSON, BigInt
from app.core import clock
from app.core.errors import Invalid
from app.core.paging import PageRequest
from app.events import cursors
from app.events.log import Head
from app.files import service as files
from app.jobs import checkpoints, evidence, queries, remote
from app.jobs import tables as rows
from app.jobs.states import JobStatus as Status


@strawberry.type(
    description="What a customer submitted: one base model, one dataset version, one method."
)
class Job(Node):
    name: str = strawberry.field(description="For people.")
    description: str | None = strawberry.field(description="For people.")
    status: JobStatus = strawberry.field(description="Where it is in its life.")
    requested_action: RequestedAction | None = strawberry.field(
        description="What was asked and is not done yet."
    )
    provider: Provider = strawberry.field(description="Where it is tuned.")
    provider_job_id: str | None = strawberry.field(description="Its id there.")
    provider_status: str | None = strawberry.field(description="The provider's own word.")
    base_model: str = strawberry.field(description="What is tuned.")
    method: str = strawberry.field(description="How.")
    grader: JSON | None = strawberry.field(description="What rewards answers, in reinforcement.")
    hyperparameters: JSON = strawberry.field(description='As asked, "auto" where nothing was.')
    resolved_hyperparameters: JSON | None = strawberry.field(description='What "auto" became.')
    suffix: str | None = strawberry.field(description="Part of the resulting model's name.")
    seed: BigInt = strawberry.field(description="Of every random choice.")
    metadata: JSON = strawberry.field(description="The customer's own pairs.")
    hardware: str | None = strawberry.field(description="The worker label asked for.")
    rerun_of: strawberry.ID | None = strawberry.field(description="The job that it repeats.")
    manifest: RunManifest | None = strawberry.field(
        description="The exact record of its newest run; null before training."
    )
    estimated_cost: float | None = strawberry.field(description="US dollars, at submission.")
    cost: float | None = strawberry.field(description="US dollars, once over.")
    error: JobError | None = strawberry.field(description="Why it failed.")
    owner_id: strawberry.ID = strawberry.field(description="The member who submitted it.")
    organization_id: strawberry.ID = strawberry.field(description="The tenant.")
    project_id: strawberry.ID = strawberry.field(description="The project.")
    created_at: datetime = strawberry.field(description="When it was submitted.")
    started_at: datetime | None = strawberry.field(description="When training first began.")
    finished_at: datetime | None = strawberry.field(description="When it ended.")
    updated_at: datetime = strawberry.field(description="When its row last changed.")
    row: strawberry.Private[rows.Job]
    head: strawberry.Private[Head | None] = None

    @staticmethod
    def now(found: queries.JobNow) -> "Job":
        return Job.of(found.row, found.head)

    @staticmethod
    async def within(session: AsyncSession, row: rows.Job) -> "Job":
        """As it stands in this transaction, which holds the row's lock."""
        return Job.of(row, (await queries.heads(session, [row.id])).get(row.id))

    @staticmethod
    def of(row: rows.Job, head: Head | None = None) -> "Job":
        return EVERYTHING.job(row, head)

    async def _stream(self, info: Info) -> Head:
        return self.head or await info.context.heads.load(str(self.id))

    @strawberry.field(
        description="This stream's position when the job was read: subscribe after it."
    )
    async def cursor(self, info: Info) -> str:
        return cursors.encode((await self._stream(info)).last_seq)

    @strawberry.field(description="How far it is; null before the first step.")
    async def progress(self, info: Info) -> JobProgress | None:
        latest = (await self._stream(info)).latest
        return progress_of(latest, running=self.status is JobStatus.RUNNING) if latest else None

    @strawberry.field(description="Tokens trained on so far; once over, those that count.")
    async def trained_tokens(self, info: Info) -> BigInt | None:
        if self.row.trained_tokens is not None:
            return BigInt(self.row.trained_tokens)
        latest = (await self._stream(info)).latest
        return BigInt(latest["progress"]["trained_tokens"]) if latest else None

    @strawberry.field(description="The newest step's values; null before the first.")
    async def latest_metrics(self, info: Info) -> MetricPoint | None:
        latest = (await self._stream(info)).latest
        return MetricPoint.of(latest_point(str(self.id), latest)) if latest else None

    @strawberry.field(description="Values per step, from the newest attempt that reached it.")
    async def metrics(
        self,
        info: Info,
        from_step: Annotated[int | None, arg("From this step on.")] = None,
        to_step: Annotated[int | None, arg("Up to this step.")] = None,
        max_points: Annotated[int, arg("At most so many, 1 to 5000; the extremes are kept.")] = 500,
    ) -> list[MetricPoint]:
        if not 1 <= max_points <= 5_000:
            raise Invalid("maxPoints must lie between 1 and 5000.", path=("maxPoints",))
        async with info.context.transaction() as session:
            found = await queries.points(
                session,
                info.context.actor,
                str(self.id),
                low=from_step,
                high=to_step,
                most=max_points,
            )
        return [MetricPoint.of(point) for point in found]

    @strawberry.field(description="What happened, oldest first.")
    async def events(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        level: Annotated[LogLevel | None, arg("At least this level.")] = None,
        types: Annotated[list[JobEventType] | None, arg("Only these kinds.")] = None,
    ) -> JobEventConnection:
        size = PageRequest.of(first).size
        position = cursors.decode(after or "0")
        async with info.context.transaction() as session:
            found = await queries.events(
                session,
                info.context.actor,
                str(self.id),
                after=position,
                limit=size + 1,
                types=[str(kind.value) for kind in types] if types is not None else None,
                level=str(level.value) if level else None,
            )
        return JobEventConnection.of(found, size, position)

    @strawberry.field(description="Weights saved on the way, the furthest first.")
    async def checkpoints(
        self, info: Info, first: First = None, after: After = None
    ) -> Connection[Checkpoint]:
        async with info.context.transaction() as session:
            page = await queries.checkpoint_page(
                session, info.context.actor, str(self.id), PageRequest.of(first, after)
            )
        found: Connection[Checkpoint] = connect(page, Checkpoint.of)
        return found

    @strawberry.field(
        description="How well the finished model knows each case of its data; empty before it is "
        "done, and after reinforcement."
    )
    async def examples(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        split: Annotated[DataSplit | None, arg("Only of this data.")] = None,
        flag: Annotated[ExampleFlag | None, arg("Only those flagged so.")] = None,
        order_by: Annotated[ExampleOrder, arg("In which order.")] = ExampleOrder.LOSS_DESC,
    ) -> ExampleConnection:
        request = PageRequest.of(first, after)
        return await example_page(info, self.row, request, split, flag, order_by)

    @strawberry.field(
        description="By score where there are scores, else by validation loss, else the furthest."
    )
    async def best_checkpoint(self, info: Info) -> Checkpoint | None:
        async with info.context.transaction() as session:
            found = await checkpoints.best_of(session, info.context.actor, str(self.id))
        return Checkpoint.of(found) if found else None

    @strawberry.field(description="Where else it is shown.")
    def integrations(self) -> list[Integration]:
        return [Integration(wandb=Wandb(**one["wandb"])) for one in self.row.integrations or []]

    @strawberry.field(description="Which checkpoints are kept; null for the server's setting.")
    def checkpoint_retention(self) -> CheckpointRetention | None:
        return CheckpointRetention(**self.row.retention) if self.row.retention else None

    @strawberry.field(description="The pinned training data; null for imported jobs.")
    async def training_data(self, info: Info) -> DatasetVersion | None:
        if self.row.training_version_id is None:
            return None
        found = await info.context.versions.load(self.row.training_version_id)
        return DatasetVersion.of(found) if found else None

    @strawberry.field(description="The pinned validation data.")
    async def validation_data(self, info: Info) -> DatasetVersion | None:
        if self.row.validation_version_id is None:
            return None
        found = await info.context.versions.load(self.row.validation_version_id)
        return DatasetVersion.of(found) if found else None

    @strawberry.field(description="How its checkpoints are judged; null when they are not.")
    def evaluation(self) -> JobEvaluation | None:
        return JobEvaluation.of(self.row)

    @strawberry.field(description="Files it produced, such as its metrics as CSV.")
    async def result_files(self, info: Info) -> list[File]:
        if not self.row.result_file_ids:
            return []
        async with info.context.transaction() as session:
            return [
                File.of(await files.get(session, info.context.actor, id))
                for id in self.row.result_file_ids
            ]

    @strawberry.field(
        description="The model whose weights it started with; null: the base model's own."
    )
    async def starts_from(self, info: Info) -> Model | None:
        if self.row.start_id is None:
            return None
        found = await info.context.models.load(self.row.start_id)
        return Model.of(found) if found else None

    @strawberry.field(description="The model it made.")
    async def model(self, info: Info) -> Model | None:
        if self.row.model_id is None:
            return None
        found = await info.context.models.load(self.row.model_id)
        return Model.of(found) if found and found.deleted_at is None else None

    @strawberry.field(description="Deployments of the model it made.")
    async def deployments(self, info: Info) -> list[Deployment]:
        if self.row.model_id is None:
            return []
        found = await info.context.deployments.load(self.row.model_id)
        return [Deployment.of(row, info) for row in found]

    @strawberry.field(description="Each start of the work, the first one first.")
    async def attempts(self, info: Info) -> list[Attempt]:
        async with info.context.transaction() as session:
            found = await queries.attempts(session, info.context.actor, str(self.id))
        return [Attempt.of(row) for row in found]

    @strawberry.field(
        description="What it waits for, for people: a worker, or its provider. Null while it goes "
        "on."
    )
    async def queue_reason(self, info: Info) -> str | None:
        row = self.row
        if remote.is_remote(row):
            return remote.why_waiting(row)
        return await info.context.waiting.load(Waiting(row.id, row.hardware, row.status))

    @strawberry.field(description="The newest observation of it where it runs.")
    async def last_evidence(self, info: Info) -> Evidence | None:
        if remote.is_remote(self.row):
            at = self.row.evidence_at
            return Evidence(source=self.row.evidence_source or "poll", at=at) if at else None
        latest = (await self._stream(info)).latest
        if not latest:
            return None
        return Evidence(source="worker", at=datetime.fromisoformat(latest["at"]))

    @strawberry.field(description="Whether a running job has been silent for too long.")
    async def is_stale(self, info: Info) -> bool:
        if remote.is_remote(self.row):
            newest = self.row.evidence_at or self.row.updated_at
            return evidence.is_stale(Status(self.row.status), newest)
        if self.status is not JobStatus.RUNNING:
            return False
        async with info.context.transaction() as session:
            found = await queries.attempts(session, info.context.actor, str(self.id))
        lease = found[-1].lease_until if found else None
        return lease is None or lease < clock.now()


def _values(kind: type[Enum]) -> Callable[[str], Any]:
    return {member.value: member for member in kind}.__getitem__


# Fields that are a column, with its name where it is another, and how its values are read.
_COLUMNS: dict[str, tuple[str, Callable[[Any], Any] | None]] = {
    field.python_name: (field.python_name, None)
    for field in get_object_definition(Job, strict=True).fields
    if field.base_resolver is None
} | {
    "status": ("status", _values(JobStatus)),
    "requested_action": ("requested_action", _values(RequestedAction)),
    "provider": ("provider", _values(Provider)),
    "resolved_hyperparameters": ("resolved", None),
    "metadata": ("labels", None),
    "manifest": ("manifest", RunManifest.of),
    "error": ("error", lambda error: JobError(**error)),
    "organization_id": ("org_id", None),
}
# What the other fields look at: columns of `row`, and attributes.
_LOOKED_AT = {
    "progress": ("status",),
    "isStale": ("status", "provider", "evidence_at", "updated_at"),
    "lastEvidence": ("provider", "evidence_at", "evidence_source"),
    "queueReason": (
        "status", "hardware", "provider", "provider_job_id", "provider_status", "remote",
        "evidence_at", "created_at", "updated_at",
    ),
    "trainedTokens": ("trained_tokens",),
    "trainingData": ("training_version_id",),
    "validationData": ("validation_version_id",),
    "evaluation": ("evaluation", "evaluation_version_id"),
    "resultFiles": ("result_file_ids",),
    "startsFrom": ("start_id",),
    "model": ("model_id",),
    "deployments": ("model_id",),
} | dict.fromkeys(
    ("__typename", "cursor", "latestMetrics", "metrics", "events", "checkpoints",
     "attempts"),
    (),
)  # fmt: skip
_STREAM = frozenset({"cursor", "progress", "trainedTokens", "latestMetrics", "lastEvidence"})
_BY_NAME = {to_camel_case(name): name for name in _COLUMNS}


@dataclass(frozen=True)
class Reading:
    """How much of a job is read: all of it (no `columns` named), or what some fields look at."""

    columns: frozenset[str] | None
    stream: bool
    fields: tuple[tuple[str, str, Callable[[Any], Any] | None], ...]

    @staticmethod
    def of(asked: frozenset[str]) -> "Reading":
        """For these fields of the API. One that is not known here may look at anything."""
        if not asked <= _BY_NAME.keys() | _LOOKED_AT.keys():
            return EVERYTHING
        looked_at = {name for field in asked for name in _LOOKED_AT.get(field, ())}
        plain = {_BY_NAME[field] for field in asked if field in _BY_NAME} | {"id"}
        plain |= looked_at & _COLUMNS.keys()
        columns = {_COLUMNS[name][0] for name in plain} | looked_at
        return Reading(frozenset(columns), bool(asked & _STREAM), _fields(plain))

    def job(self, row: rows.Job, head: Head | None) -> Job:
        """Past the initializer: a list has up to 200 of them."""
        job = object.__new__(Job)
        values = job.__dict__
        values["row"], values["head"] = row, head
        for name, column, read in self.fields:
            value = getattr(row, column)
            values[name] = value if read is None or value is None else read(value)
        return job


def _fields(names: Collection[str]) -> tuple[Any, ...]:
    return tuple((name, *_COLUMNS[name]) for name in sorted(names))


EVERYTHING = Reading(None, True, _fields(_COLUMNS))


@strawberry.type(description="One page of jobs.")
class JobConnection(Connection[Job]):
    cursor: str = strawberry.field(
        description="The ledger's position in the same snapshot: subscribe to jobChanges after it.",
        default="0",
    )
