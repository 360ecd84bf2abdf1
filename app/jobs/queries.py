"""Reading jobs: one, many, their events, points, checkpoints and statistics."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import case, func, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.attempts import queue
from app.attempts.tables import Attempt
from app.core.actor import Actor, Scope
from app.core.paging import Page, PageRequest
from app.events import log
from app.events.log import Head, LoggedEvent
from app.events.tables import Stream
from app.jobs import metrics
from app.jobs.errors import JobNotFound
from app.jobs.filters import JobFilter, JobOrder
from app.jobs.metrics import Point
from app.jobs.repository import JobRepository, no_job
from app.jobs.states import LIVE, JobStatus
from app.jobs.tables import Checkpoint, Job

LEVELS = ("debug", "info", "warn", "error")
_EVENTS = text(
    "SELECT stream_id, seq, attempt, type, step, at, data FROM events"
    " WHERE stream_id = :stream AND seq > :after"
    " AND (CAST(:types AS text[]) IS NULL OR type = ANY(:types))"
    # The same as `describe.level`.
    " AND (CAST(:levels AS text[]) IS NULL OR CASE"
    " WHEN type = 'job.status' AND data ->> 'after' = 'failed' THEN 'error'"
    " WHEN type = 'attempt.ended' AND data ->> 'outcome' = 'lost' THEN 'warn'"
    " ELSE coalesce(data ->> 'level', 'info') END = ANY(:levels))"
    " ORDER BY seq LIMIT :limit"
)

_STANDINGS = text(
    "SELECT j.id, j.status, coalesce(s.last_seq, 0)"
    " FROM jobs j LEFT JOIN streams s ON s.stream_id = j.id"
    " WHERE j.org_id = :org AND j.id = ANY(:ids) AND j.deleted_at IS NULL"
)


class StatsGroup(StrEnum):
    STATUS = "status"
    PROVIDER = "provider"
    BASE_MODEL = "base_model"
    METHOD = "method"
    OWNER = "owner_id"


class StatsInterval(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True)
class Bucket:
    """Figures of the jobs that share a key or a stretch of time. Costs in US dollars."""

    key: str | None
    start: datetime | None
    total: int
    succeeded: int
    failed: int
    cancelled: int
    live: int
    trained_tokens: int
    cost: float
    estimated_cost: float
    queue_wait_seconds: float | None

    @property
    def success_rate(self) -> float | None:
        """Of the jobs that ended by themselves."""
        ended = self.succeeded + self.failed
        return self.succeeded / ended if ended else None


@dataclass(frozen=True)
class Stats:
    whole: Bucket
    by_status: dict[JobStatus, int]
    groups: list[Bucket]
    intervals: list[Bucket]


async def get(session: AsyncSession, actor: Actor, id: str) -> Job:
    actor.require(Scope.READ)
    return await JobRepository(session, actor.org_id).get(id)


async def get_many(session: AsyncSession, actor: Actor, wanted: list[str]) -> list[Job]:
    actor.require(Scope.READ)
    return await JobRepository(session, actor.org_id).by_id(wanted)


async def even_deleted(session: AsyncSession, actor: Actor, id: str) -> Job | None:
    """A job's row, also when the job was deleted: to judge what it was."""
    actor.require(Scope.READ)
    return await session.get(Job, (actor.org_id, id))


async def page(
    session: AsyncSession,
    actor: Actor,
    request: PageRequest,
    where: JobFilter,
    order: JobOrder = JobOrder.CREATED_AT_DESC,
    columns: Collection[str] | None = None,
) -> Page[Job]:
    """Rows to read; with `columns` they have these only, beside those that the order needs."""
    actor.require(Scope.READ)
    return await JobRepository(session, actor.org_id).page(request, where, order, columns)


@dataclass(frozen=True)
class JobNow:
    """A job, and its stream's end, of one moment."""

    row: Job
    head: Head

    @property
    def id(self) -> str:
        return self.row.id


async def now(session: AsyncSession, actor: Actor, wanted: list[str]) -> list[JobNow]:
    """To be called in a snapshot: a job that is over shows its last step."""
    found = await log.heads(session, wanted)
    return [
        JobNow(row, found.get(row.id, Head())) for row in await get_many(session, actor, wanted)
    ]


@dataclass(frozen=True)
class Standing:
    """A job's status and the end of its stream, at one moment."""

    status: JobStatus
    last_seq: int


async def standings(
    session: AsyncSession, org_id: str, wanted: list[str]
) -> list[Standing | JobNotFound]:
    """One for each that is wanted, in that order, for whoever may read jobs."""
    # A text that Postgres cannot hold must not fail the others.
    ids = [id for id in wanted if id.isprintable()]
    rows = await (await session.connection()).execute(_STANDINGS, {"org": org_id, "ids": ids})
    found = {id: Standing(JobStatus(status), last_seq) for id, status, last_seq in rows}
    return [found.get(id) or no_job(id) for id in wanted]


async def heads(session: AsyncSession, stream_ids: Sequence[str]) -> dict[str, Head]:
    """Where streams end and what they last showed, for many at once."""
    return await log.heads(session, stream_ids)


async def events(
    session: AsyncSession,
    actor: Actor,
    job_id: str,
    *,
    after: int,
    limit: int,
    types: list[str] | None = None,
    level: str | None = None,
) -> list[LoggedEvent]:
    """Events after a position, oldest first. `level` is the lowest one wanted."""
    actor.require(Scope.READ)
    levels = None if level is None else list(LEVELS[LEVELS.index(level) :])
    rows = await (await session.connection()).execute(
        _EVENTS,
        {"stream": job_id, "after": after, "limit": limit, "types": types, "levels": levels},
    )
    return [LoggedEvent(*row) for row in rows]


async def points(
    session: AsyncSession,
    actor: Actor,
    job_id: str,
    *,
    low: int | None = None,
    high: int | None = None,
    most: int = 500,
) -> list[Point]:
    actor.require(Scope.READ)
    return await metrics.points(session, job_id, low, high, most)


async def checkpoint(session: AsyncSession, actor: Actor, id: str) -> Checkpoint:
    actor.require(Scope.READ)
    return await JobRepository(session, actor.org_id).checkpoint(id)


async def checkpoint_page(
    session: AsyncSession, actor: Actor, job_id: str, request: PageRequest
) -> Page[Checkpoint]:
    actor.require(Scope.READ)
    return await JobRepository(session, actor.org_id).checkpoint_page(job_id, request)


async def attempts(session: AsyncSession, actor: Actor, job_id: str) -> list[Attempt]:
    actor.require(Scope.READ)
    return await queue.history(session, actor.org_id, job_id)


async def without_worker(session: AsyncSession, actor: Actor, wanted: list[str]) -> set[str]:
    """Those of these jobs whose next attempt no worker has taken."""
    actor.require(Scope.READ)
    return await queue.untaken(session, wanted)


async def stats(
    session: AsyncSession,
    actor: Actor,
    where: JobFilter,
    group_by: StatsGroup | None = None,
    interval: StatsInterval | None = None,
) -> Stats:
    """Figures over the organization's jobs that match."""
    actor.require(Scope.READ)
    inside = [Job.org_id == actor.org_id, col(Job.deleted_at).is_(None), *where.conditions()]
    counted = await session.exec(
        select(Job.status, func.count()).where(*inside).group_by(Job.status)
    )
    return Stats(
        whole=(await _buckets(session, inside, None, None))[0],
        by_status={JobStatus(status): count for status, count in counted},
        groups=await _buckets(session, inside, group_by, None) if group_by else [],
        intervals=await _buckets(session, inside, None, interval) if interval else [],
    )


async def _buckets(
    session: AsyncSession,
    inside: list[Any],
    group_by: StatsGroup | None,
    interval: StatsInterval | None,
) -> list[Bucket]:
    key = getattr(Job, group_by.value) if group_by else None
    start = func.date_trunc(interval.value, Job.created_at, "UTC") if interval else None

    def count_of(*statuses: JobStatus) -> Any:
        return func.count(case((col(Job.status).in_(statuses), 1)))

    waited = func.extract("epoch", col(Job.started_at) - col(Job.created_at))
    columns = [
        func.count(),
        count_of(JobStatus.SUCCEEDED),
        count_of(JobStatus.FAILED),
        count_of(JobStatus.CANCELLED),
        count_of(*LIVE),
        func.coalesce(func.sum(Job.trained_tokens), 0),
        func.coalesce(func.sum(Job.cost), 0.0),
        func.coalesce(func.sum(Job.estimated_cost), 0.0),
        func.avg(waited),
    ]
    by = [column for column in (key, start) if column is not None]
    query: Any = select(*by, *columns).where(*inside)
    if by:
        query = query.group_by(*by).order_by(*by)
    found = []
    for row in await session.exec(query):
        values = list(row)
        found.append(
            Bucket(
                values.pop(0) if key is not None else None,
                values.pop(0) if start is not None else None,
                values[0],
                values[1],
                values[2],
                values[3],
                values[4],
                int(values[5]),
                float(values[6]),
                float(values[7]),
                None if values[8] is None else float(values[8]),
            )
        )
    return found


async def running(
    session: AsyncSession, actor: Actor
) -> list[tuple[Job, Mapping[str, Any] | None]]:
    """The organization's running jobs, with what each last showed."""
    actor.require(Scope.READ)
    query = (
        select(Job, Stream.latest)
        .join(Stream, col(Stream.stream_id) == Job.id)
        .where(
            Job.org_id == actor.org_id,
            Job.status == JobStatus.RUNNING,
            col(Job.deleted_at).is_(None),
        )
        .limit(500)
    )
    return [(row, latest) for row, latest in await session.exec(query)]
