"""Jobs at providers: what their driver takes up, remembers and writes, always under its claim.

The driver leases an attempt for one step (upload, create, look, cancel …) and gives it back. What
it is about to do is written down first, so that whoever comes next can finish it.
"""

from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import credentials
from app.accounts.tables import ProviderCredential
from app.attempts import queue
from app.attempts.queue import Claim
from app.attempts.tables import Attempt
from app.datasets.tables import DatasetVersion
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.jobs import evidence, progress
from app.jobs.repository import JobRepository
from app.jobs.states import TERMINAL, Cause, JobStatus, RequestedAction, allowed
from app.jobs.tables import Job
from app.jobs.transition import move
from app.providers.base import Sighting
from app.providers.errors import Unsupported
from app.providers.registry import LOCAL, capabilities


@dataclass(frozen=True)
class Memory:
    """What the driver knows between its steps. Times are RFC 3339.

    `training` and `validation` are the files at the provider; `create` says since when a job may
    have been created there, `looks` how often it was looked for since; `number` counts the jobs
    made there for ours (a restart makes another). `told` is the wish that was passed on.
    """

    training: str | None = None
    validation: str | None = None
    create: str | None = None
    looks: int = 0
    number: int = 1
    told: str | None = None
    attempt: int = 0
    newest: str | None = None
    since: str | None = None
    """Since when the provider has shown the status that it shows."""
    missing: str | None = None
    """Since when it has said that there is no such job."""
    trouble: str | None = None
    troubles: int = 0
    imported: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(job: Job) -> "Memory":
        return Memory(**(job.remote or {}))

    def marker(self, job: Job) -> str:
        """What the job at the provider carries, so that it is found again."""
        return job.id if self.number == 1 else f"{job.id}.{self.number}"


@dataclass(frozen=True)
class Errand:
    """All that a step needs. `source` is what the driver was woken by: a webhook, or the time."""

    job: Job
    memory: Memory
    training: DatasetVersion | None
    validation: DatasetVersion | None
    credential: ProviderCredential | None
    source: str
    wish: RequestedAction | None


def is_remote(job: Job) -> bool:
    return job.provider != LOCAL


def may_exist(job: Job) -> bool:
    """Whether there may be a job at the provider."""
    return job.provider_job_id is not None or Memory.of(job).create is not None


def labels_of(job: Job) -> list[str]:
    """What a worker must carry for the job's next attempt."""
    if is_remote(job):
        return [queue.PROVIDER]
    return [queue.LOCAL, *([job.hardware] if job.hardware else [])]


def start_from(job: Job, model: str) -> None:
    """It goes on from an earlier model of the provider."""
    job.remote = asdict(replace(Memory.of(job), extra={"base_model": model}))


def start_over(job: Job) -> None:
    """Before a restart: another job at the provider will be made, of the same files."""
    memory = Memory.of(job)
    kept = Memory(
        training=memory.training,
        validation=memory.validation,
        number=memory.number + 1,
        extra=memory.extra,
    )
    job.remote = asdict(kept)
    job.provider_job_id = job.provider_status = None
    job.evidence_source = job.evidence_at = None


def require(job: Job, verb: str) -> None:
    """Raises Unsupported when the provider cannot do that with a job."""
    if not is_remote(job) or not may_exist(job):
        return
    found = capabilities(job.provider)
    if not {"pause": found.pause, "resume": found.resume}[verb]:
        raise Unsupported(f"{found.name} cannot {verb} jobs through its API.", path=("id",))


def why_waiting(job: Job) -> str | None:
    """What keeps a job at a provider from going on, for people; None while it does."""
    if job.status in TERMINAL:
        return None
    memory, name = Memory.of(job), capabilities(job.provider).name
    heard = job.evidence_at or job.updated_at
    if evidence.is_stale(JobStatus(job.status), heard):
        why = f" {memory.trouble}" if memory.trouble else ""
        return f"No word from {name} for {evidence.ago(heard)}.{why}"
    if memory.trouble:
        return memory.trouble
    if job.status == JobStatus.RUNNING or job.status == JobStatus.PAUSED:
        return None
    if job.provider_job_id is None:
        return f"On its way to {name}."
    since = datetime.fromisoformat(memory.since) if memory.since else job.created_at
    return f"{job.provider_status} at {name} for {evidence.ago(since)}."


async def begin(session: AsyncSession, claim: Claim) -> Errand | None:
    """Take up the claimed attempt. None: the job needs nothing (any more)."""
    job = await JobRepository(session, claim.org_id).get(claim.subject_id, lock=True)
    attempt = await session.get_one(Attempt, (claim.org_id, claim.id), with_for_update=True)
    unsent_pause = job.status == JobStatus.PAUSED and not may_exist(job)
    if job.status in TERMINAL or unsent_pause:
        queue.finish(attempt, "not_needed")
        return None
    memory = Memory.of(job)
    events = []
    if claim.lost_number is not None:
        lost = {"outcome": "lost", "message": "The driver fell silent; another goes on."}
        events.append(NewEvent(EventType.ATTEMPT_ENDED, lost, attempt=claim.lost_number))
    if memory.attempt != claim.number:
        memory = replace(memory, attempt=claim.number)
        started = {"fromStep": 0, "worker": attempt.worker_id}
        events.append(NewEvent(EventType.ATTEMPT_STARTED, started, attempt=claim.number))
        attempt.from_step = attempt.from_step or 0
        job.remote = asdict(memory)
    if events:
        await log.append(session, job.id, events, epoch=claim.epoch)
    source = "webhook" if attempt.nudged == "webhook" else "poll"
    attempt.nudged = None

    async def version(id: str | None) -> DatasetVersion | None:
        return await session.get_one(DatasetVersion, (job.org_id, id)) if id else None

    return Errand(
        job,
        memory,
        await version(job.training_version_id),
        await version(job.validation_version_id),
        await credentials.of_project(session, job.org_id, job.project_id, job.provider),
        source,
        RequestedAction(job.requested_action) if job.requested_action else None,
    )


async def memory_of(session: AsyncSession, claim: Claim) -> Memory:
    return Memory.of(await JobRepository(session, claim.org_id).get(claim.subject_id))


async def remember(
    session: AsyncSession, claim: Claim, memory: Memory, status: JobStatus | None = None
) -> None:
    """Write down what is known, or about to be done, and perhaps how far that brings the job."""
    job = await held(session, claim)
    job.remote = asdict(memory)
    session.add(job)
    await session.flush()
    # A restarted job was further before: it is queued while its data is sent again.
    if status is not None and allowed(JobStatus(job.status), status, Cause.EVIDENCE):
        await move(session, job, status, epoch=claim.epoch, attempt=claim.number)


async def say(
    session: AsyncSession, claim: Claim, memory: Memory, level: str, message: str
) -> None:
    """A message in the job's stream, and what is known."""
    job = await held(session, claim)
    job.remote = asdict(memory)
    session.add(job)
    event = NewEvent(EventType.MESSAGE, {"level": level, "message": message}, attempt=claim.number)
    await log.append(session, job.id, [event], epoch=claim.epoch)


async def withdraw(session: AsyncSession, claim: Claim, memory: Memory, why: str) -> None:
    """The provider will not do what was asked: the wish is gone, and the stream says why."""
    job = await held(session, claim)
    job.requested_action, job.remote = None, asdict(memory)
    session.add(job)
    data = {"level": "warn", "message": why}
    await log.append(
        session,
        job.id,
        [NewEvent(EventType.MESSAGE, data, attempt=claim.number)],
        epoch=claim.epoch,
    )


async def created(session: AsyncSession, claim: Claim, memory: Memory, sighting: Sighting) -> None:
    """The provider has made the job."""
    job = await held(session, claim)
    job.provider_job_id = sighting.id
    job.remote = asdict(replace(memory, looks=0))
    session.add(job)
    name = capabilities(job.provider).name
    data = {"level": "info", "message": f"{name} has taken the job as {sighting.id}."}
    event = NewEvent(EventType.MESSAGE, data, attempt=claim.number)
    await log.append(session, job.id, [event], epoch=claim.epoch)


async def fail(session: AsyncSession, claim: Claim, memory: Memory, error: dict[str, Any]) -> None:
    """The provider will not have the job, or the job cannot be told to it."""
    job = await held(session, claim)
    job.remote = asdict(memory)
    session.add(job)
    await session.flush()
    await progress.end(session, claim, JobStatus.FAILED, outcome="failed", error=error)


async def stop(session: AsyncSession, claim: Claim, memory: Memory, status: JobStatus) -> None:
    """Cancel or pause a job that is at no provider."""
    job = await held(session, claim)
    job.remote = asdict(memory)
    session.add(job)
    await session.flush()
    await progress.end(session, claim, status, outcome=status.value)


async def held(session: AsyncSession, claim: Claim) -> Job:
    return await JobRepository(session, claim.org_id).get(claim.subject_id, lock=True)
