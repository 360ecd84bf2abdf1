"""What an owner asks of a job: cancel, pause, resume, restart, correct, delete.

A wish about a job that a worker is running is recorded first (`requested_action`) and carried out
by the worker; about a job that nobody is running it takes effect at once. A job that may be at a
provider is always being run.
"""

from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import audit, idempotency
from app.attempts import queue
from app.core import clock
from app.core.actor import Actor, Role, Scope
from app.core.errors import Invalid
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.jobs import remote
from app.jobs.errors import JobStillLive
from app.jobs.repository import JobRepository
from app.jobs.states import TERMINAL, Cause, JobStatus, RequestedAction, TransitionRefused
from app.jobs.tables import Job
from app.jobs.transition import move


async def cancel(
    session: AsyncSession, actor: Actor, id: str, *, keep_checkpoints: bool = True
) -> Job:
    """End a job that is not over. Cancelling a cancelled job is no error.

    Without its checkpoints it can only be restarted from the beginning; whoever ends it calls
    `checkpoints.discard`.
    """
    job = await _locked(session, actor, id)
    if job.status == JobStatus.CANCELLED:
        return job
    _refuse_if_over(job, "cancelled", JobStatus.CANCELLED)
    job.keep_checkpoints = keep_checkpoints
    audit.record(
        session,
        actor,
        "job.cancelled",
        id,
        before={"status": job.status},
        after={"keepCheckpoints": keep_checkpoints},
    )
    await _end_or_request(session, job, JobStatus.CANCELLED, RequestedAction.CANCEL)
    return job


async def pause(session: AsyncSession, actor: Actor, id: str) -> Job:
    """Set a job aside: a running one saves a checkpoint and leaves the machine first."""
    job = await _locked(session, actor, id)
    if job.status == JobStatus.PAUSED:
        return job
    _refuse_if_over(job, "paused", JobStatus.PAUSED)
    remote.require(job, "pause")
    if job.requested_action == RequestedAction.CANCEL:
        raise TransitionRefused(
            "The job is being cancelled; it cannot be paused any more.",
            before=job.status,
            after=JobStatus.PAUSED,
        )
    audit.record(session, actor, "job.paused", id, before={"status": job.status})
    await _end_or_request(session, job, JobStatus.PAUSED, RequestedAction.PAUSE)
    return job


async def resume(session: AsyncSession, actor: Actor, id: str) -> Job:
    """Queue a paused job again; it goes on from its checkpoint. One that is still pausing goes on
    as soon as it has paused."""
    job = await _locked(session, actor, id)
    if job.status == JobStatus.PAUSED:
        remote.require(job, "resume")
        if job.requested_action == RequestedAction.RESUME:
            return job
        audit.record(session, actor, "job.resumed", id)
        if remote.may_exist(job):
            await _request(session, job, RequestedAction.RESUME)
        else:
            await requeue(session, job)
        return job
    if job.requested_action in (RequestedAction.PAUSE, RequestedAction.RESUME):
        if job.requested_action == RequestedAction.PAUSE:
            audit.record(session, actor, "job.resumed", id)
            await _request(session, job, RequestedAction.RESUME)
        return job
    raise TransitionRefused(
        f"The job is {job.status}; only a paused job can be resumed. "
        "A failed or cancelled one can be restarted.",
        path=("id",),
        before=job.status,
        after=JobStatus.QUEUED,
    )


async def restart(
    session: AsyncSession,
    actor: Actor,
    id: str,
    *,
    from_scratch: bool = False,
    idempotency_key: str | None = None,
) -> Job:
    """Queue a failed or cancelled job again, from its newest checkpoint or from the beginning."""
    job = await _locked(session, actor, id)
    asked = {"id": id, "fromScratch": from_scratch}
    if await idempotency.remember(session, actor, idempotency_key, "restartJob", asked, id):
        return job
    if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise TransitionRefused(
            f"The job is {job.status}; only a failed or cancelled job can be restarted.",
            path=("id",),
            before=job.status,
            after=JobStatus.QUEUED,
        )
    if from_scratch:
        for checkpoint in await JobRepository(session, actor.org_id).checkpoints(id):
            await session.delete(checkpoint)
    job.keep_checkpoints = True
    audit.record(
        session,
        actor,
        "job.restarted",
        id,
        before={"status": job.status, "error": job.error},
        after={"fromScratch": from_scratch},
    )
    if remote.is_remote(job):
        remote.start_over(job)
    await queue.open_attempt(
        session, job.org_id, id, remote.labels_of(job), 0 if from_scratch else None
    )
    await log.fence(session, id)
    await move(session, job, JobStatus.QUEUED, cause=Cause.RESTART)
    return job


async def correct(
    session: AsyncSession, actor: Actor, id: str, status: JobStatus, reason: str
) -> Job:
    """Put right what a finished job's record says, with a reason, for the audit log."""
    job = await _locked(session, actor, id)
    if not reason.strip():
        raise Invalid("Say why the record is corrected.", path=("reason",))
    if status not in TERMINAL or job.status not in TERMINAL or status == job.status:
        raise TransitionRefused(
            f"Only a finished job's outcome can be corrected, to another outcome; this one is "
            f"{job.status}.",
            path=("status",),
            before=job.status,
            after=status,
        )
    audit.record(
        session,
        actor,
        "job.corrected",
        id,
        before={"status": job.status},
        after={"status": status.value},
        reason=reason.strip(),
    )
    await move(session, job, status, cause=Cause.CORRECTION, message=reason.strip())
    return job


async def delete(session: AsyncSession, actor: Actor, id: str) -> Job:
    """Hide a finished job. Its events and audit rows stay in the database."""
    actor.require(Scope.WRITE, Role.OWNER)
    job = await JobRepository(session, actor.org_id).get(id, lock=True)
    if job.status not in TERMINAL:
        raise JobStillLive(f"The job is {job.status}. Cancel it first.", path=("id",))
    job.deleted_at = job.updated_at = clock.now()
    session.add(job)
    audit.record(session, actor, "job.deleted", id, before={"status": job.status})
    event = NewEvent(EventType.JOB_DELETED, {"jobId": id})
    await log.append(session, id, [event])
    await log.append(session, job.org_id, [event])
    return job


async def requeue(session: AsyncSession, job: Job) -> None:
    await queue.open_attempt(session, job.org_id, job.id, remote.labels_of(job))
    await move(session, job, JobStatus.QUEUED)


async def _locked(session: AsyncSession, actor: Actor, id: str) -> Job:
    actor.require(Scope.WRITE, Role.ADMIN)
    return await JobRepository(session, actor.org_id).get(id, lock=True)


def _refuse_if_over(job: Job, verb: str, after: JobStatus) -> None:
    if job.status in TERMINAL:
        raise TransitionRefused(
            f"The job is already over ({job.status}); it cannot be {verb}.",
            path=("id",),
            before=job.status,
            after=after,
        )


async def _end_or_request(
    session: AsyncSession, job: Job, status: JobStatus, action: RequestedAction
) -> None:
    attempt = await queue.current(session, job.org_id, job.id)
    if remote.may_exist(job) or (attempt is not None and await queue.held(session, attempt)):
        if job.requested_action != action:
            await _request(session, job, action)
        return
    if attempt is not None:
        queue.finish(attempt, status.value)
        session.add(attempt)
        await session.flush()
    await log.fence(session, job.id)
    await move(session, job, status)


async def _request(session: AsyncSession, job: Job, action: RequestedAction) -> None:
    job.requested_action = action.value
    job.updated_at = clock.now()
    session.add(job)
    await session.flush()
    if remote.is_remote(job):
        await queue.nudge(session, job.org_id, [job.id], "wish")
    await log.append(session, job.id, [NewEvent(EventType.JOB_REQUESTED, {"action": action.value})])
