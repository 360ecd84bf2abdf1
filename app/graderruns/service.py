"""Asking a worker to grade one sample: submit, collect; and the worker's side of it."""

from datetime import timedelta
from typing import Any

from sqlalchemy import delete
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.attempts import queue
from app.attempts.queue import Claim
from app.attempts.tables import Attempt
from app.core import clock, ids
from app.core.actor import Actor, Role, Scope
from app.core.errors import Limited
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.graderruns.tables import GraderRun, RunStatus

WAITING = 20  # runs of one organization at once: the worker's places are everybody's
_FORGOTTEN = timedelta(minutes=1)  # nobody waits for a run that long: its request was cut off
_KEPT = timedelta(days=1)


async def submit(
    session: AsyncSession,
    actor: Actor,
    grader: dict[str, Any],
    given: dict[str, Any],
    seconds: float,
) -> str:
    """Queue a run that may take so many seconds; returns its id, which is also its stream's.

    Raises Limited when too many of the organization's wait already.
    """
    require(actor)
    now = clock.now()
    mine = col(GraderRun.org_id) == actor.org_id
    # What is answered is deleted at once; this is what broken connections leave behind.
    old = col(GraderRun.created_at) < now - _KEPT
    await (await session.connection()).execute(delete(GraderRun).where(mine, old))
    waiting = await session.exec(
        select(func.count())
        .select_from(GraderRun)
        .where(mine, col(GraderRun.created_at) > now - _FORGOTTEN)
    )
    if waiting.one() >= WAITING:
        raise Limited(
            f"{WAITING} grader runs of this organization are in work. Wait for one to end.",
            limit=WAITING,
        )
    id = ids.new(ids.GRADER_RUN)
    run = GraderRun(
        org_id=actor.org_id,
        id=id,
        project_id=actor.project_id,
        grader=grader,
        given=given,
        seconds=seconds,
        status=RunStatus.QUEUED.value,
        created_at=now,
    )
    session.add(run)
    await session.flush()
    await log.open_stream(session, actor.org_id, id)
    await queue.open_attempt(session, actor.org_id, id)
    await _announce(session, run)
    return id


def require(actor: Actor) -> None:
    """Raises Forbidden. A run costs a worker's time, as a job does."""
    actor.require(Scope.WRITE, Role.ADMIN)


async def collect(session: AsyncSession, actor: Actor, id: str) -> GraderRun:
    """The run as it stands; it is over with that, whether or not it was graded."""
    require(actor)
    # In the order in which the worker locks them.
    attempt = await queue.current(session, actor.org_id, id)
    run = await session.get_one(GraderRun, (actor.org_id, id))
    if attempt is not None:
        queue.finish(attempt, "abandoned")
        await log.fence(session, id)
    await session.delete(run)
    return run


async def begin(session: AsyncSession, claim: Claim) -> GraderRun | None:
    """The claimed run; None, and the attempt finished, when nobody waits for it any more."""
    attempt = await _locked(session, claim)
    run = await session.get(GraderRun, (claim.org_id, claim.subject_id))
    if attempt.finished_at is None and run is None:
        queue.finish(attempt, "not_needed")
    return run


async def finish(session: AsyncSession, claim: Claim, result: dict[str, Any] | None) -> None:
    """Record what came of it (None: the graders were out of reach) and finish the attempt.

    May be repeated. Raises Fenced when another worker owns the run now.
    """
    attempt = await _locked(session, claim)
    if attempt.finished_at is not None:
        return  # said before, or nobody waits any more
    run = await session.get_one(GraderRun, (claim.org_id, claim.subject_id))
    run.status = (RunStatus.FAILED if result is None else RunStatus.DONE).value
    run.result = result
    run.finished_at = clock.now()
    queue.finish(attempt, run.status)
    await session.flush()
    await _announce(session, run, claim.epoch)


async def _locked(session: AsyncSession, claim: Claim) -> Attempt:
    return await session.get_one(Attempt, (claim.org_id, claim.id), with_for_update=True)


async def _announce(session: AsyncSession, run: GraderRun, epoch: int | None = None) -> None:
    event = NewEvent(EventType.GRADER_RUN, {"status": run.status})
    await log.append(session, run.id, [event], epoch=epoch)
