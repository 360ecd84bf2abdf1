"""Jobs: their types and queries."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Annotated, Any

import strawberry

from app.api.graphql.catalog import Provider
from app.api.graphql.context import Info
from app.api.graphql.datasets import DatasetVersion, File
from app.api.graphql.errors import refusing
from app.api.graphql.metrics import MetricPoint
from app.api.graphql.models import Deployment, Model
from app.api.graphql.node import Node
from app.api.graphql.pagination import (
    After,
    Before,
    Connection,
    Edge,
    First,
    Last,
    PageInfo,
    arg,
    connect,
)
from app.api.graphql.scalars import JSON, BigInt
from app.attempts import tables as attempt_rows
from app.core import clock
from app.core.errors import Invalid
from app.core.paging import PageRequest
from app.events import cursors, describe
from app.events.log import LoggedEvent
from app.files import service as files
from app.jobs import filters, queries
from app.jobs import states as job_states
from app.jobs import tables as rows
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
    MESSAGE = strawberry.enum_value("message", description="Something to read.")
    MODEL = strawberry.enum_value("model.created", description="The result has a name.")
    RESULT = strawberry.enum_value("result.created", description="A result file was made.")


@strawberry.enum(description="How much an event matters; each includes the ones after it.")
class LogLevel(Enum):
    DEBUG = strawberry.enum_value("debug", description="Everything.")
    INFO = strawberry.enum_value("info", description="The ordinary course.")
    WARN = strawberry.enum_value("warn", description="Worth a look.")
    ERROR = strawberry.enum_value("error", description="It went wrong.")


@strawberry.enum(description="The order of a list of jobs.")
class JobOrder(Enum):
    CREATED_AT_DESC = strawberry.enum_value("created_at desc", description="Newest first.")
    CREATED_AT_ASC = strawberry.enum_value("created_at asc", description="Oldest first.")
    UPDATED_AT_DESC = strawberry.enum_value("updated_at desc", description="Last changed first.")
    UPDATED_AT_ASC = strawberry.enum_value("updated_at asc", description="Last changed last.")
    NAME_ASC = strawberry.enum_value("name asc", description="By name.")
    NAME_DESC = strawberry.enum_value("name desc", description="By name, backwards.")


@strawberry.type(description="How far a job is.")
class JobProgress:
    step: int = strawberry.field(description="Steps done.")
    total_steps: int = strawberry.field(description="Steps in all.")
    epoch: float = strawberry.field(description="Passes over the data done, in parts.")
    total_epochs: int = strawberry.field(description="Passes in all.")
    percent: float = strawberry.field(description="0 to 100; 100 only when every step is done.")
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


@strawberry.type(description="Weights saved at a step.")
class Checkpoint(Node):
    step: int = strawberry.field(description="The step.")
    attempt: int = strawberry.field(description="The attempt that saved it.")
    size_bytes: BigInt = strawberry.field(description="On disk.")
    metrics: MetricPoint = strawberry.field(description="The values at that step.")
    created_at: datetime = strawberry.field(description="When it was saved.")

    @staticmethod
    def of(row: rows.Checkpoint) -> "Checkpoint":
        point = Point(row.job_id, row.attempt, row.step, row.created_at, None, row.metrics)
        return Checkpoint(
            id=strawberry.ID(row.id),
            step=row.step,
            attempt=row.attempt,
            size_bytes=BigInt(row.size_bytes),
            metrics=MetricPoint.of(point),
            created_at=row.created_at,
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
            type=JobEventType(event.type),
            level=LogLevel(describe.level(event)),
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
    hyperparameters: JSON = strawberry.field(description='As asked, "auto" where nothing was.')
    resolved_hyperparameters: JSON | None = strawberry.field(description='What "auto" became.')
    suffix: str | None = strawberry.field(description="Part of the resulting model's name.")
    seed: BigInt = strawberry.field(description="Of every random choice.")
    metadata: JSON = strawberry.field(description="The customer's own pairs.")
    hardware: str | None = strawberry.field(description="The worker label asked for.")
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

    @staticmethod
    def of(row: rows.Job) -> "Job":
        hyperparameters: Any = row.hyperparameters
        resolved: Any = row.resolved
        metadata: Any = row.labels
        return Job(
            id=strawberry.ID(row.id),
            name=row.name,
            description=row.description,
            status=JobStatus(row.status),
            requested_action=(
                RequestedAction(row.requested_action) if row.requested_action else None
            ),
            provider=Provider(row.provider),
            provider_job_id=row.provider_job_id,
            provider_status=row.provider_status,
            base_model=row.base_model,
            method=row.method,
            hyperparameters=hyperparameters,
            resolved_hyperparameters=resolved,
            suffix=row.suffix,
            seed=BigInt(row.seed),
            metadata=metadata,
            hardware=row.hardware,
            estimated_cost=row.estimated_cost,
            cost=row.cost,
            error=JobError(**row.error) if row.error else None,
            owner_id=strawberry.ID(row.owner_id),
            organization_id=strawberry.ID(row.org_id),
            project_id=strawberry.ID(row.project_id),
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            updated_at=row.updated_at,
            row=row,
        )

    @strawberry.field(description="This stream's position now: subscribe after it.")
    async def cursor(self, info: Info) -> str:
        return cursors.encode((await info.context.heads.load(str(self.id))).last_seq)

    @strawberry.field(description="How far it is; null before the first step.")
    async def progress(self, info: Info) -> JobProgress | None:
        latest = (await info.context.heads.load(str(self.id))).latest
        return progress_of(latest, running=self.status is JobStatus.RUNNING) if latest else None

    @strawberry.field(description="Tokens trained on so far; once over, those that count.")
    async def trained_tokens(self, info: Info) -> BigInt | None:
        if self.row.trained_tokens is not None:
            return BigInt(self.row.trained_tokens)
        latest = (await info.context.heads.load(str(self.id))).latest
        return BigInt(latest["progress"]["trained_tokens"]) if latest else None

    @strawberry.field(description="The newest step's values; null before the first.")
    async def latest_metrics(self, info: Info) -> MetricPoint | None:
        latest = (await info.context.heads.load(str(self.id))).latest
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

    @strawberry.field(description="The pinned training data.")
    async def training_data(self, info: Info) -> DatasetVersion:
        found = await info.context.versions.load(self.row.training_version_id)
        assert found is not None  # noqa: S101 - a foreign key holds it
        return DatasetVersion.of(found)

    @strawberry.field(description="The pinned validation data.")
    async def validation_data(self, info: Info) -> DatasetVersion | None:
        if self.row.validation_version_id is None:
            return None
        found = await info.context.versions.load(self.row.validation_version_id)
        return DatasetVersion.of(found) if found else None

    @strawberry.field(description="Files it produced, such as its metrics as CSV.")
    async def result_files(self, info: Info) -> list[File]:
        if not self.row.result_file_ids:
            return []
        async with info.context.transaction() as session:
            return [
                File.of(await files.get(session, info.context.actor, id))
                for id in self.row.result_file_ids
            ]

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

    @strawberry.field(description="The newest observation of it where it runs.")
    async def last_evidence(self, info: Info) -> Evidence | None:
        latest = (await info.context.heads.load(str(self.id))).latest
        if not latest:
            return None
        return Evidence(source="worker", at=datetime.fromisoformat(latest["at"]))

    @strawberry.field(description="Whether a running job has been silent for too long.")
    async def is_stale(self, info: Info) -> bool:
        if self.status is not JobStatus.RUNNING:
            return False
        async with info.context.transaction() as session:
            found = await queries.attempts(session, info.context.actor, str(self.id))
        lease = found[-1].lease_until if found else None
        return lease is None or lease < clock.now()


@strawberry.type(description="One page of jobs.")
class JobConnection(Connection[Job]):
    cursor: str = strawberry.field(
        description="The ledger's position in the same snapshot: subscribe to jobChanges after it.",
        default="0",
    )


@strawberry.input(description="A pair that a job's metadata must hold.")
class MetadataPair:
    key: str = strawberry.field(description="Its key.")
    value: str = strawberry.field(description="Its value.")


@strawberry.input(description="Which jobs; every condition given must hold.")
class JobFilter:
    status: list[JobStatus] | None = strawberry.field(description="One of these.", default=None)
    provider: list[Provider] | None = strawberry.field(description="One of these.", default=None)
    base_model: str | None = strawberry.field(description="Tuned from this one.", default=None)
    method: str | None = strawberry.field(description="By this method.", default=None)
    search: str | None = strawberry.field(
        description="Part of the name or description.", default=None
    )
    metadata: list[MetadataPair] | None = strawberry.field(
        description="All of these pairs.", default=None
    )
    dataset_version_id: strawberry.ID | None = strawberry.field(
        description="Trained or validated on this version.", default=None
    )
    created_after: datetime | None = strawberry.field(description="Made later.", default=None)
    created_before: datetime | None = strawberry.field(description="Made earlier.", default=None)
    owner_id: strawberry.ID | None = strawberry.field(
        description="Submitted by this member.", default=None
    )

    def plain(self) -> filters.JobFilter:
        status = self.status
        return filters.JobFilter(
            status=[job_states.JobStatus(str(s.value)) for s in status]
            if status is not None
            else None,
            provider=[str(p.value) for p in self.provider] if self.provider is not None else None,
            base_model=self.base_model,
            method=self.method,
            search=self.search,
            metadata={pair.key: pair.value for pair in self.metadata or []},
            dataset_version_id=self.dataset_version_id,
            created_after=self.created_after,
            created_before=self.created_before,
            owner_id=self.owner_id,
        )


Filter = Annotated[JobFilter | None, arg("Which jobs.")]


@strawberry.type
class JobQueries:
    @strawberry.field(description="One job; null when there is none.")
    async def job(
        self, info: Info, id: Annotated[strawberry.ID, arg("The job's id.")]
    ) -> Job | None:
        with refusing():
            async with info.context.transaction() as session:
                return Job.of(await queries.get(session, info.context.actor, id))
        return None

    @strawberry.field(description="The organization's jobs.")
    async def jobs(
        self,
        info: Info,
        filter: Filter = None,
        order_by: Annotated[JobOrder, arg("In which order.")] = JobOrder.CREATED_AT_DESC,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> JobConnection:
        request = PageRequest.of(first, after, last, before)
        who = info.context.actor
        async with info.context.transaction() as session:
            # The position is read before the page: an event in between then comes again,
            # harmlessly, instead of being missed.
            head = (await queries.heads(session, [who.org_id]))[who.org_id]
            page = await queries.page(
                session,
                who,
                request,
                (filter or JobFilter()).plain(),
                filters.JobOrder(str(order_by.value)),
            )
        connection: JobConnection = connect(page, Job.of, JobConnection)
        connection.cursor = cursors.encode(head.last_seq)
        return connection


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
        percent=100.0 if step >= total else min(99.9, round(100 * step / total, 1)),
        trained_tokens=BigInt(found["trained_tokens"]),
        tokens_per_second=found.get("tokens_per_second"),
        estimated_finish_at=finish,
    )
