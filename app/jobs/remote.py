"""Jobs at providers: what their driver takes up, remembers and writes, always under its claim.

The driver leases an attempt for one step (upload, create, look, cancel …) and gives it back. What
it is about to do is written down first, so that whoever comes next can finish it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import credentials
from app.accounts.tables import ProviderCredential
from app.attempts import queue
from app.attempts.queue import Claim
from app.attempts.tables import Attempt
from app.catalog.offers import offer_of
from app.core import clock, ids
from app.datasets.tables import DatasetVersion
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.files import service as files
from app.files.store import Stored
from app.jobs import evidence, progress
from app.jobs.repository import JobRepository
from app.jobs.states import TERMINAL, Cause, JobStatus, RequestedAction, allowed
from app.jobs.tables import Checkpoint, Job, ProviderItem
from app.jobs.transition import move
from app.models.tables import Model
from app.providers.base import Item, Sighting
from app.providers.errors import Unsupported
from app.providers.registry import LOCAL, capabilities

_STEPS = text("SELECT DISTINCT step FROM events WHERE stream_id = :stream AND type = 'metrics'")

_NO_REASON = {"code": "failed", "message": "The provider gives no reason.", "param": None}


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
    heard = job.evidence_at or job.created_at
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
    job = await _held(session, claim)
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
    job = await _held(session, claim)
    job.remote = asdict(memory)
    session.add(job)
    event = NewEvent(EventType.MESSAGE, {"level": level, "message": message}, attempt=claim.number)
    await log.append(session, job.id, [event], epoch=claim.epoch)


async def withdraw(session: AsyncSession, claim: Claim, memory: Memory, why: str) -> None:
    """The provider will not do what was asked: the wish is gone, and the stream says why."""
    job = await _held(session, claim)
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
    job = await _held(session, claim)
    job.provider_job_id = sighting.id
    job.remote = asdict(replace(memory, looks=0))
    session.add(job)
    name = capabilities(job.provider).name
    data = {"level": "info", "message": f"{name} has taken the job as {sighting.id}."}
    event = NewEvent(EventType.MESSAGE, data, attempt=claim.number)
    await log.append(session, job.id, [event], epoch=claim.epoch)


async def observe(
    session: AsyncSession,
    claim: Claim,
    memory: Memory,
    sighting: Sighting,
    items: Sequence[Item],
    source: str,
    results: Sequence[tuple[Stored, str]] = (),
) -> Job:
    """Take one observation into the ledger: its news, once each, and what follows from it.
    `results` are files in the store, with their names."""
    job = await _held(session, claim)
    now = clock.now()
    memory = replace(memory, trouble=None, troubles=0, missing=None)
    if sighting.raw != job.provider_status or memory.since is None:
        memory = replace(memory, since=now.isoformat())
    warnings = []
    verdict = evidence.judge(JobStatus(job.status), sighting)
    if verdict.warning and sighting.raw != job.provider_status:
        warnings.append(verdict.warning)
    job.evidence_source, job.evidence_at = source, now
    job.provider_status = sighting.raw
    job.resolved = dict(sighting.resolved) if sighting.resolved else job.resolved
    job.updated_at = now
    if sighting.trained_tokens is not None:
        job.trained_tokens = sighting.trained_tokens
    job.cost = _cost(job, sighting)
    fresh = await _unseen(session, job, items)
    if fresh:
        memory = replace(memory, newest=_newest(items))
    job.remote = asdict(memory)
    session.add(job)
    await session.flush()
    events = [_event(item, claim, now) for item in fresh if item.kind != "checkpoint"]
    events += [
        NewEvent(EventType.MESSAGE, {"level": "warn", "message": words}, attempt=claim.number)
        for words in warnings
    ]
    for item in fresh:
        if item.kind == "checkpoint":
            events.append(await _checkpoint(session, claim, job, item))
    if events:
        latest = _latest(claim, sighting, fresh, now)
        await log.append(session, job.id, events, epoch=claim.epoch, latest=latest)
    for status in verdict.steps:
        if status not in TERMINAL:
            await move(session, job, status, epoch=claim.epoch, attempt=claim.number)
        elif status is JobStatus.SUCCEEDED:
            await _succeed(session, claim, job, sighting, results)
        else:
            error = sighting.error or _NO_REASON
            await progress.end(
                session,
                claim,
                status,
                outcome=status.value,
                error=dict(error) if status is JobStatus.FAILED else None,
            )
    carried_out = {RequestedAction.RESUME: (JobStatus.QUEUED, JobStatus.RUNNING)}
    wish = RequestedAction(job.requested_action) if job.requested_action else None
    if wish in carried_out and memory.told == wish and job.status in carried_out[wish]:
        job.requested_action, job.remote = None, asdict(replace(memory, told=None))
        session.add(job)
    return job


async def fail(session: AsyncSession, claim: Claim, memory: Memory, error: dict[str, Any]) -> None:
    """The provider will not have the job, or the job cannot be told to it."""
    job = await _held(session, claim)
    job.remote = asdict(memory)
    session.add(job)
    await session.flush()
    await progress.end(session, claim, JobStatus.FAILED, outcome="failed", error=error)


async def stop(session: AsyncSession, claim: Claim, memory: Memory, status: JobStatus) -> None:
    """Cancel or pause a job that is at no provider."""
    job = await _held(session, claim)
    job.remote = asdict(memory)
    session.add(job)
    await session.flush()
    await progress.end(session, claim, status, outcome=status.value)


async def known_steps(session: AsyncSession, job_id: str) -> set[int]:
    rows = await (await session.connection()).execute(_STEPS, {"stream": job_id})
    return {row.step for row in rows if row.step is not None}


async def _held(session: AsyncSession, claim: Claim) -> Job:
    return await JobRepository(session, claim.org_id).get(claim.subject_id, lock=True)


async def _unseen(session: AsyncSession, job: Job, items: Sequence[Item]) -> list[Item]:
    """Those that are not in the stream yet, from now on held to be."""
    if not items:
        return []
    rows = [{"org_id": job.org_id, "job_id": job.id, "key": item.key[:200]} for item in items]
    statement = (
        insert(ProviderItem).values(rows).on_conflict_do_nothing().returning(col(ProviderItem.key))
    )
    new = set((await (await session.connection()).execute(statement)).scalars())
    fresh: dict[str, Item] = {}
    for item in items:
        if item.key[:200] in new:
            fresh.setdefault(item.key[:200], item)
    return list(fresh.values())


def _newest(items: Sequence[Item]) -> str | None:
    """Where news went on last. Checkpoints are a list of their own."""
    told = [item.key for item in items if item.kind != "checkpoint"]
    return told[-1] if told else None


def _event(item: Item, claim: Claim, now: datetime) -> NewEvent:
    data: dict[str, Any]
    if item.kind == "metrics":
        data = {"epoch": item.epoch, "values": dict(item.values)}
        return NewEvent(EventType.METRICS, data, item.step, claim.number, item.at or now)
    data = {"level": item.level, "message": item.message, "source": "provider"}
    return NewEvent(EventType.MESSAGE, data, item.step, claim.number, item.at or now)


async def _checkpoint(session: AsyncSession, claim: Claim, job: Job, item: Item) -> NewEvent:
    jobs = JobRepository(session, claim.org_id)
    step = item.step or 0
    row = await jobs.checkpoint_at(job.id, step) or Checkpoint(
        org_id=job.org_id,
        id=ids.new(ids.CHECKPOINT),
        job_id=job.id,
        attempt=claim.number,
        step=step,
        path=f"remote/{job.id}/{step}",
        manifest_sha256="",
        created_at=item.at or clock.now(),
    )
    row.metrics, row.provider_model = dict(item.values), item.model
    session.add(row)
    await session.flush()
    data = {"checkpointId": row.id, "model": item.model, "values": dict(item.values)}
    return NewEvent(EventType.CHECKPOINT, data, step, claim.number, item.at)


def _latest(
    claim: Claim, sighting: Sighting, fresh: Sequence[Item], now: datetime
) -> dict[str, Any] | None:
    """The newest point, as the job's progress."""
    points = [item for item in fresh if item.kind == "metrics" and item.step is not None]
    if not points:
        return None
    newest = max(points, key=lambda item: item.step or 0)
    step = newest.step or 0
    total = newest.total_steps or sighting.total_steps or step
    epochs = int((sighting.resolved or {}).get("n_epochs") or 1)
    finish = sighting.estimated_finish
    return {
        "attempt": claim.number,
        "step": step,
        "epoch": newest.epoch,
        "at": (newest.at or now).isoformat(),
        "values": dict(newest.values),
        "nonFinite": [],
        "progress": {
            "step": step,
            "total_steps": max(total, step),
            "epoch": newest.epoch or sighting.epoch or round(epochs * step / max(total, 1), 4),
            "total_epochs": epochs,
            "trained_tokens": sighting.trained_tokens or 0,
            "tokens_per_second": None,
            "remaining_seconds": (finish - now).total_seconds() if finish else None,
        },
    }


def _cost(job: Job, sighting: Sighting) -> float | None:
    """What the provider says; else its price for the tokens trained, once they are known."""
    if sighting.cost is not None:
        return sighting.cost
    if sighting.trained_tokens is None:
        return job.cost
    offer = offer_of(job.provider, job.base_model)
    if offer is None or offer.price is None:
        return job.cost
    return round(sighting.trained_tokens / 1e6 * offer.price.per_million, 4)


async def _succeed(
    session: AsyncSession,
    claim: Claim,
    job: Job,
    sighting: Sighting,
    results: Sequence[tuple[Stored, str]],
) -> None:
    kept = [
        (await files.add_result(session, job.org_id, job.project_id, stored, name)).id
        for stored, name in results
    ]
    job.result_file_ids = kept
    events = [NewEvent(EventType.RESULT, {"fileId": id}, attempt=claim.number) for id in kept]
    if sighting.model:
        saved = await JobRepository(session, job.org_id).newest_checkpoint(job.id)
        same = saved if saved and saved.provider_model == sighting.model else None
        query = select(Model).where(Model.org_id == job.org_id, Model.name == sighting.model)
        model = (await session.exec(query)).first()
        if model is None:
            model = Model(
                org_id=job.org_id,
                id=ids.new(ids.MODEL),
                project_id=job.project_id,
                name=sighting.model,
                provider=job.provider,
                base_model=job.base_model,
                job_id=job.id,
                step=same.step if same else sighting.step,
                checkpoint_id=same.id if same else None,
                kind="provider",
                path=f"remote/{job.id}/model",
                manifest_sha256="",
                created_at=clock.now(),
            )
            session.add(model)
            await session.flush()
        job.model_id = model.id
        made = {"modelId": model.id, "name": model.name, "step": model.step, "score": None}
        events.append(NewEvent(EventType.MODEL, made, attempt=claim.number))
    session.add(job)
    await session.flush()
    if events:
        await log.append(session, job.id, events, epoch=claim.epoch)
    await progress.end(session, claim, JobStatus.SUCCEEDED, outcome="succeeded")
