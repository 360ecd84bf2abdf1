"""The one guarded transition: a job's status changes here, in the transaction of its event."""

from typing import Any

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core import clock
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.jobs.states import TERMINAL, Cause, JobStatus, TransitionRefused, allowed
from app.jobs.tables import Job

_CAUSE = text("SELECT set_config('luthier.cause', :cause, true)")


async def move(
    session: AsyncSession,
    job: Job,
    status: JobStatus,
    *,
    cause: Cause = Cause.EVIDENCE,
    epoch: int | None = None,
    attempt: int | None = None,
    error: dict[str, Any] | None = None,
    message: str | None = None,
) -> None:
    """Change the status of a job whose row the caller has locked, and say so in both streams.

    Raises TransitionRefused when the table forbids it, Fenced when `epoch` is no longer the
    stream's. The organization's stream is locked last, so this is a transaction's last word.
    """
    before = JobStatus(job.status)
    if not allowed(before, status, cause):
        raise TransitionRefused(
            f"The job is {before}; it cannot become {status}.", before=before, after=status
        )
    now = clock.now()
    job.status = status.value
    job.updated_at = now
    job.error = error
    if status is JobStatus.RUNNING and job.started_at is None:
        job.started_at = now
    job.finished_at = now if status in TERMINAL else None
    if status in TERMINAL or status is JobStatus.PAUSED:
        job.requested_action = None
    if cause is not Cause.EVIDENCE:
        await (await session.connection()).execute(_CAUSE, {"cause": cause.value})
    session.add(job)
    await session.flush()
    await announce(session, job, before, cause, epoch=epoch, attempt=attempt, message=message)


async def announce(
    session: AsyncSession,
    job: Job,
    before: JobStatus | None,
    cause: Cause,
    *,
    epoch: int | None = None,
    attempt: int | None = None,
    message: str | None = None,
) -> None:
    data: dict[str, Any] = {"jobId": job.id, "before": before, "after": job.status}
    if cause is not Cause.EVIDENCE:
        data["cause"] = cause.value
    if job.error:
        data["error"] = job.error
    if message:
        data["message"] = message
    event = NewEvent(EventType.JOB_STATUS, data, attempt=attempt)
    await log.append(session, job.id, [event], epoch=epoch)
    await log.append(session, job.org_id, [event])
