"""Live streams: a job's events and metrics, the organization's ledger, deployments.

Each takes `after`: what the log holds after that position comes first, then the live events, with
no gap and no repeat where the two meet.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any

import strawberry

from app.api.graphql.catalog import Provider
from app.api.graphql.context import Info
from app.api.graphql.job_queries import Filter, JobFilter
from app.api.graphql.job_types import JobEvent, JobEventType, JobProgress, JobStatus, progress_of
from app.api.graphql.jobs import Job
from app.api.graphql.live.channel import Results
from app.api.graphql.metrics import MetricPoint
from app.api.graphql.models import Deployment, DeploymentStatus
from app.api.graphql.pagination import arg
from app.core.actor import Scope
from app.core.errors import Invalid
from app.events import cursors
from app.events.log import LoggedEvent
from app.events.types import EventType
from app.jobs import queries
from app.jobs.filters import JobFilter as PlainFilter
from app.jobs.metrics import Point
from app.jobs.states import TERMINAL
from app.jobs.states import JobStatus as Status
from app.models import service as models

_MOST_POINTS = 100
_PROGRESS_EVERY = 1.0
_STATUS = EventType.JOB_STATUS  # compared with every event, and an Enum takes its time

AfterCursor = Annotated[
    str | None,
    arg('Only what comes after this cursor; "0": from the beginning. Omitted: from now.'),
]


@strawberry.type(description="New metric points of a job; one at a time when they come so.")
class MetricBatch:
    cursor: str = strawberry.field(description="The place of the last of them in the stream.")
    points: list[MetricPoint] = strawberry.field(description="At most 100, in order.")


@strawberry.enum(description="What an entry of the ledger tells. New values may be added.")
class JobChangeType(Enum):
    STATUS = strawberry.enum_value("job.status", description="A job's status changed.")
    DELETED = strawberry.enum_value("job.deleted", description="A job was deleted.")
    PROGRESS = strawberry.enum_value(
        "progress", description="A running job went on; only the newest counts."
    )


@strawberry.type(description="One change in the organization's ledger.")
class JobChange:
    cursor: str = strawberry.field(
        description="Its place in the ledger; progress repeats the last one."
    )
    type: JobChangeType = strawberry.field(description="What kind of change.")
    at: datetime = strawberry.field(description="When.")
    job_id: strawberry.ID = strawberry.field(description="Which job.")
    status_then: JobStatus | None = strawberry.field(
        description="The status it got by this change; job may be further on already."
    )
    matches: bool = strawberry.field(
        description="Whether the job passes the filter now; false once, when it leaves it."
    )
    job: Job | None = strawberry.field(description="The job as it is now; null when deleted.")
    progress: JobProgress | None = strawberry.field(description="How far it is, on progress.")


@strawberry.type(description="One change of a deployment.")
class DeploymentChange:
    cursor: str = strawberry.field(description="Its place in the ledger.")
    at: datetime = strawberry.field(description="When.")
    deployment_id: strawberry.ID = strawberry.field(description="Which deployment.")
    status_then: DeploymentStatus = strawberry.field(description="The status it got.")
    deployment: Deployment | None = strawberry.field(description="The deployment as it is now.")


@strawberry.type(description="News of a model's end at its provider.")
class ModelSunset:
    cursor: str = strawberry.field(description="Its place in the ledger.")
    at: datetime = strawberry.field(description="When it was noticed.")
    provider: Provider = strawberry.field(description="Where the model is.")
    model: str = strawberry.field(description="A base model's name, or that of a tuned one.")
    ends: date | None = strawberry.field(description="When it ends, where that is known.")
    gone: bool = strawberry.field(description="Whether the provider does not list it any more.")
    message: str = strawberry.field(description="The same in words.")


@strawberry.type(description="What can be watched.")
class Subscription:
    @strawberry.subscription(description="Everything about one job, until it is over.")
    async def job_events(
        self,
        info: Info,
        job_id: Annotated[strawberry.ID, arg("The job.")],
        after: AfterCursor = None,
        types: Annotated[list[JobEventType] | None, arg("Only these kinds.")] = None,
    ) -> AsyncIterator[JobEvent]:
        wanted = None if types is None else {str(kind.value) for kind in types}

        def results(batch: list[LoggedEvent]) -> Results:
            for event in batch:
                if wanted is None or event.type in wanted:
                    yield event.seq, event.seq, JobEvent.of(event)

        async with aclosing(_job_log(info, job_id, after, results)) as found:
            async for event in found:
                yield event

    @strawberry.subscription(description="One job's metric points, until it is over.")
    async def job_metrics(
        self,
        info: Info,
        job_id: Annotated[strawberry.ID, arg("The job.")],
        after: AfterCursor = None,
    ) -> AsyncIterator[MetricBatch]:
        async with aclosing(_job_log(info, job_id, after, _metric_batches)) as found:
            async for batch in found:
                yield batch

    @strawberry.subscription(description="The organization's ledger of jobs.")
    async def job_changes(
        self, info: Info, filter: Filter = None, after: AfterCursor = None
    ) -> AsyncIterator[JobChange]:
        where = (filter or JobFilter()).plain()
        live, org_id = info.context.live, info.context.actor.org_id
        info.context.actor.require(Scope.READ)
        position = await _position(info, org_id, after)
        shown: dict[str, str] = {}
        ledger = info.context.services.streams.follow(org_id, org_id, position)
        async with aclosing(_with_ticks(ledger, _PROGRESS_EVERY)) as batches:
            async for batch in batches:
                if batch is None:
                    async for news in _progress(info, where, position, shown):
                        live.covers(None)
                        yield news
                    if live.idle(position, at_once=False):  # only after all progress was told
                        return
                    continue
                for event in batch:
                    position = event.seq
                    if change := await _change(info, where, event):
                        live.covers(event.seq)
                        yield change

    @strawberry.subscription(description="The organization's ledger of deployments.")
    async def deployment_changes(
        self,
        info: Info,
        model_id: Annotated[strawberry.ID | None, arg("Only of this model.")] = None,
        after: AfterCursor = None,
    ) -> AsyncIterator[DeploymentChange]:
        org_id = info.context.actor.org_id
        info.context.actor.require(Scope.READ)
        position = await _position(info, org_id, after)
        live = info.context.live
        ledger = info.context.services.streams.follow(org_id, org_id, position, live.idle)
        async with aclosing(ledger) as batches:
            async for batch in batches:
                for event in batch:
                    data = event.data
                    if event.type != EventType.DEPLOYMENT_STATUS or model_id not in (
                        None,
                        data["modelId"],
                    ):
                        continue
                    async with info.context.transaction() as session:
                        row = await models.get_deployment(
                            session, info.context.actor, data["deploymentId"]
                        )
                    live.covers(event.seq)
                    yield DeploymentChange(
                        cursor=cursors.encode(event.seq),
                        at=event.at,
                        deployment_id=strawberry.ID(row.id),
                        status_then=DeploymentStatus(data["after"]),
                        deployment=Deployment.of(row, info),
                    )

    @strawberry.subscription(
        description="The organization's ledger of models that end: told 90, 30, 7 and 1 days "
        "before, and when a provider does not list one any more."
    )
    async def model_sunsets(
        self, info: Info, after: AfterCursor = None
    ) -> AsyncIterator[ModelSunset]:
        org_id = info.context.actor.org_id
        info.context.actor.require(Scope.READ)
        position = await _position(info, org_id, after)
        live = info.context.live
        ledger = info.context.services.streams.follow(org_id, org_id, position, live.idle)
        async with aclosing(ledger) as batches:
            async for batch in batches:
                for first, last, sunset in _sunsets(batch):
                    live.covers(first, last)
                    yield sunset


def _sunsets(batch: list[LoggedEvent]) -> Results:
    for event in batch:
        if event.type != EventType.MODEL_SUNSET:
            continue
        data = event.data
        yield (
            event.seq,
            event.seq,
            ModelSunset(
                cursor=cursors.encode(event.seq),
                at=event.at,
                provider=Provider(data["provider"]),
                model=data["model"],
                ends=date.fromisoformat(data["ends"]) if data["ends"] else None,
                gone=data["gone"],
                message=data["message"],
            ),
        )


async def _position(info: Info, stream_id: str, after: str | None) -> int:
    head = await info.context.heads.load(stream_id)
    return _begin(info, head.last_seq, after)


def _begin(info: Info, end: int, after: str | None) -> int:
    """Where to begin. Raises Invalid for a position that the stream has not reached."""
    position = info.context.live.start
    if position is None:
        position = end if after is None else cursors.decode(after)
    if position > end:
        raise Invalid(
            "This cursor lies beyond the end of the stream; it belongs to another one.",
            path=("after",),
        )
    info.context.live.begin(position)
    return position


def _metric_batches(batch: list[LoggedEvent]) -> Results:
    points = [event for event in batch if event.type == EventType.METRICS]
    for start in range(0, len(points), _MOST_POINTS):
        part = points[start : start + _MOST_POINTS]
        first, last = part[0].seq, part[-1].seq
        found = [MetricPoint.of(Point.of(event)) for event in part]
        yield first, last, MetricBatch(cursor=cursors.encode(last), points=found)


async def _job_log(
    info: Info,
    job_id: str,
    after: str | None,
    results: Callable[[list[LoggedEvent]], Results],
) -> AsyncGenerator[Any, None]:
    """What a job's events give, until the job is over now and its log has been read to the end."""
    who, live = info.context.actor, info.context.live

    def take(batch: list[LoggedEvent]) -> Callable[[], int] | None:
        if over or _STATUS in [event.type for event in batch]:
            return None  # this may be the end
        return live.tell(results(batch), batch[-1].seq)

    who.require(Scope.READ)
    standing = await info.context.services.standings(who.org_id).load(job_id)
    position = _begin(info, standing.last_seq, after)
    over = standing.status in TERMINAL
    if over and position == standing.last_seq:
        return
    async with aclosing(
        info.context.services.streams.follow(
            who.org_id, job_id, position, live.idle, standing.last_seq, take
        )
    ) as batches:
        async for batch in batches:
            for first, last, result in results(batch):
                live.covers(first, last)
                yield result
            for event in batch:
                if event.type == _STATUS:
                    over = event.data["after"] in TERMINAL
            if over and await _at_end(info, job_id, batch[-1].seq):
                return


async def _at_end(info: Info, job_id: str, position: int) -> bool:
    async with info.context.transaction() as session:
        # In this order: a job that was over here and restarts now is ahead of `position` again.
        found = await queries.get_many(session, info.context.actor, [job_id])
        head = (await queries.heads(session, [job_id]))[job_id]
    return position >= head.last_seq and (not found or found[0].status in TERMINAL)


async def _change(info: Info, where: PlainFilter, event: LoggedEvent) -> JobChange | None:
    if event.type not in (EventType.JOB_STATUS, EventType.JOB_DELETED):
        return None
    data = event.data
    deleted = event.type == EventType.JOB_DELETED
    now = await info.context.jobs.load(data["jobId"])
    judged = now.row if now else None
    if deleted:
        async with info.context.transaction() as session:
            judged = await queries.even_deleted(session, info.context.actor, data["jobId"])
    before = after = False
    if judged is not None:
        statuses, rest = where.status, replace(where, status=None)
        fits = rest.accepts(judged)
        after = fits and not deleted and (statuses is None or Status(data["after"]) in statuses)
        then = judged.status if deleted else data["before"]
        before = fits and then is not None and (statuses is None or Status(then) in statuses)
    if not (after or before):
        return None
    return JobChange(
        cursor=cursors.encode(event.seq),
        type=JobChangeType(event.type),
        at=event.at,
        job_id=strawberry.ID(data["jobId"]),
        status_then=JobStatus(data["after"]) if "after" in data else None,
        matches=after,
        job=Job.now(now) if now else None,
        progress=None,
    )


async def _progress(
    info: Info, where: PlainFilter, position: int, shown: dict[str, str]
) -> AsyncIterator[JobChange]:
    """The newest progress of running jobs that pass the filter, where it is news."""
    if where.status is not None and Status.RUNNING not in where.status:
        return
    async with info.context.transaction() as session:
        running = await queries.running(session, info.context.actor)
    live = set()
    for row, latest in running:
        live.add(row.id)
        if latest is None or shown.get(row.id) == latest["at"] or not where.accepts(row):
            continue
        shown[row.id] = latest["at"]
        yield JobChange(
            cursor=cursors.encode(position),
            type=JobChangeType.PROGRESS,
            at=datetime.fromisoformat(latest["at"]),
            job_id=strawberry.ID(row.id),
            status_then=None,
            matches=True,
            job=Job.of(row),
            progress=progress_of(latest, running=True),
        )
    for gone in shown.keys() - live:
        del shown[gone]


async def _with_ticks(
    batches: AsyncGenerator[list[LoggedEvent], None], every: float
) -> AsyncGenerator[list[LoggedEvent] | None, None]:
    """The batches, and None every so often between them."""
    clock = asyncio.get_running_loop().time
    due = clock() + every
    pending = asyncio.ensure_future(anext(batches))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=max(0.0, due - clock()))
            if done:
                yield pending.result()
                pending = asyncio.ensure_future(anext(batches))
            if clock() >= due:
                yield None
                due = clock() + every
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
        await batches.aclose()
