"""What a worker reports of the work it holds. Every write carries the claim's epoch: a worker that
lost its lease gets Fenced and must stop."""

from dataclasses import dataclass
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts.tables import Organization
from app.attempts import queue
from app.attempts.queue import Claim
from app.attempts.tables import Attempt
from app.core import clock, ids
from app.datasets.tables import DatasetVersion
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.jobs import checkpoints, scores
from app.jobs.repository import JobRepository
from app.jobs.retention import Retention
from app.jobs.states import TERMINAL, JobStatus, RequestedAction
from app.jobs.tables import Checkpoint, Job
from app.jobs.transition import move
from app.models import service as models
from app.models.tables import Model

LOST_TOO_OFTEN = 3


@dataclass(frozen=True)
class WorkOrder:
    """All a worker needs to start: the job, its bytes, and where to go on from."""

    job: Job
    training: DatasetVersion
    validation: DatasetVersion | None
    evaluation: DatasetVersion | None
    checkpoint: Checkpoint | None
    labels: list[str]
    repeats: dict[str, Any] | None
    """The manifest of the run to repeat, for a rerun."""
    start: Model | None
    """The model whose weights it starts with; None: the base model's own."""


async def begin(session: AsyncSession, claim: Claim) -> WorkOrder | None:
    """Open the claimed attempt in the log. None: the job needs no work (it is over, or paused).

    After three losses in a row at the same place the job fails instead: it kills its workers.
    """
    job = await JobRepository(session, claim.org_id).get(claim.subject_id, lock=True)
    attempt = await session.get_one(Attempt, (claim.org_id, claim.id))
    if job.status in TERMINAL or job.status == JobStatus.PAUSED:
        queue.finish(attempt, "not_needed")
        return None
    if claim.lost_number is not None:
        await log.append(
            session,
            job.id,
            [
                NewEvent(
                    EventType.ATTEMPT_ENDED,
                    {"outcome": "lost", "message": "The worker fell silent."},
                    attempt=claim.lost_number,
                )
            ],
            epoch=claim.epoch,
        )
    if job.requested_action == RequestedAction.RESUME:
        job.requested_action = None
    elif job.requested_action is not None:  # asked of a worker that is gone
        cancel = job.requested_action == RequestedAction.CANCEL
        status = JobStatus.CANCELLED if cancel else JobStatus.PAUSED
        await end(session, claim, status, outcome=status.value)
        return None
    checkpoint = await JobRepository(session, claim.org_id).newest_checkpoint(job.id)
    from_step = checkpoint.step if checkpoint else 0
    if attempt.from_step is None or claim.lost_number is not None:
        attempt.from_step = from_step
    if await _losses_here(session, job, claim, from_step) >= LOST_TOO_OFTEN:
        await end(
            session,
            claim,
            JobStatus.FAILED,
            outcome="failed",
            error={
                "code": "worker_lost",
                "message": f"The work was lost {LOST_TOO_OFTEN} times at step {from_step}. "
                "The machine may lack memory; see the worker's log.",
                "param": None,
            },
        )
        return None
    await log.append(
        session,
        job.id,
        [
            NewEvent(
                EventType.ATTEMPT_STARTED,
                {"fromStep": from_step, "worker": attempt.worker_id},
                attempt=claim.number,
            )
        ],
        epoch=claim.epoch,
        latest=await _without_pace(session, job.id),
    )

    async def version(id: str | None) -> DatasetVersion | None:
        return await session.get_one(DatasetVersion, (job.org_id, id)) if id else None

    training = await session.get_one(DatasetVersion, (job.org_id, job.training_version_id))
    validation = await version(job.validation_version_id)
    evaluation = await version(job.evaluation_version_id)
    first = await session.get(Job, (job.org_id, job.rerun_of)) if job.rerun_of else None
    repeats = first.manifest if first else None
    start = await session.get(Model, (job.org_id, job.start_id)) if job.start_id else None
    labels = attempt.labels
    return WorkOrder(job, training, validation, evaluation, checkpoint, labels, repeats, start)


async def _without_pace(session: AsyncSession, job_id: str) -> dict[str, Any] | None:
    """What the job last showed, less how fast it went and how long the rest would take: that was
    the session before, perhaps on another machine, perhaps days ago."""
    latest = (await log.heads(session, [job_id]))[job_id].latest
    if latest is None:
        return None
    pace = {"tokens_per_second": None, "remaining_seconds": None}
    return {**latest, "progress": {**latest["progress"], **pace}}


async def reached(
    session: AsyncSession,
    claim: Claim,
    status: JobStatus,
    *,
    manifest: dict[str, Any] | None = None,
) -> None:
    """The work has come to this status; nothing happens if the job is there already."""
    job = await JobRepository(session, claim.org_id).get(claim.subject_id, lock=True)
    if manifest is not None:
        job.manifest, job.resolved = manifest, manifest["hyperparameters"]
    if job.status != status:
        await move(session, job, status, epoch=claim.epoch, attempt=claim.number)


async def report(
    session: AsyncSession,
    claim: Claim,
    events: list[NewEvent],
    latest: dict[str, Any] | None = None,
) -> None:
    """Append a batch of metrics, messages and the like."""
    await log.append(session, claim.subject_id, events, epoch=claim.epoch, latest=latest)


async def reported(session: AsyncSession, claim: Claim, event: NewEvent) -> bool:
    """Whether this very event is in the log: the answer to its commit may have been lost."""
    return await log.contains(session, claim.subject_id, event)


async def wish(session: AsyncSession, claim: Claim) -> RequestedAction | None:
    """What the owner has asked for meanwhile."""
    job = await JobRepository(session, claim.org_id).get(claim.subject_id)
    return RequestedAction(job.requested_action) if job.requested_action else None


async def add_checkpoint(
    session: AsyncSession,
    claim: Claim,
    *,
    step: int,
    path: str,
    manifest_sha256: str,
    size_bytes: int,
    metrics: dict[str, Any],
) -> None:
    """List a checkpoint that is safely on disk. One at the same step replaces the older one."""
    jobs = JobRepository(session, claim.org_id)
    checkpoint = await jobs.checkpoint_at(claim.subject_id, step) or Checkpoint(
        org_id=claim.org_id,
        id=ids.new(ids.CHECKPOINT),
        job_id=claim.subject_id,
        attempt=claim.number,
        step=step,
        path=path,
        manifest_sha256=manifest_sha256,
        created_at=clock.now(),
    )
    checkpoint.attempt = claim.number
    checkpoint.path = path
    checkpoint.manifest_sha256 = manifest_sha256
    checkpoint.size_bytes = size_bytes
    checkpoint.metrics = metrics
    job = await jobs.get(claim.subject_id)
    # With graders of its own it is judged by them alone, in a moment.
    checkpoint.score = None if job.evaluation else metrics.get("validation_reward")
    session.add(checkpoint)
    await session.flush()
    event = NewEvent(
        EventType.CHECKPOINT,
        {"checkpointId": checkpoint.id, "sizeBytes": size_bytes, "values": metrics},
        step=step,
        attempt=claim.number,
    )
    await log.append(session, claim.subject_id, [event], epoch=claim.epoch)


async def succeed(
    session: AsyncSession,
    claim: Claim,
    *,
    step: int,
    kind: str,
    path: str,
    manifest_sha256: str,
    size_bytes: int,
    trained_tokens: int,
    result_file_ids: list[str],
    cost: float,
) -> Model:
    """The model is made: record it and the result files, and end the job.

    Of a job with graders, it is the checkpoint with the best score: not always these weights.
    """
    job = await JobRepository(session, claim.org_id).get(claim.subject_id, lock=True)
    if job.model_id is not None and job.status == JobStatus.SUCCEEDED:
        # said before; the answer was lost
        return await session.get_one(Model, (claim.org_id, job.model_id))
    organization = await session.get_one(Organization, claim.org_id)
    jobs = JobRepository(session, claim.org_id)
    checkpoint = await jobs.checkpoint_at(job.id, step)
    best = await scores.best(session, claim) if job.evaluation else None
    if best is not None and best.step != step:
        checkpoint, step, path = best, best.step, best.path
        manifest_sha256, size_bytes = best.manifest_sha256, best.size_bytes
    model = await models.register(
        session,
        org_id=job.org_id,
        org_slug=organization.slug,
        project_id=job.project_id,
        job_id=job.id,
        base_model=job.base_model,
        suffix=job.suffix,
        step=step,
        checkpoint_id=checkpoint.id if checkpoint else None,
        kind=kind,
        path=path,
        manifest_sha256=manifest_sha256,
        size_bytes=size_bytes,
    )
    job.model_id = model.id
    job.trained_tokens = trained_tokens
    job.result_file_ids = result_file_ids
    job.cost = cost
    await log.append(
        session,
        job.id,
        [
            *(
                NewEvent(EventType.RESULT, {"fileId": id}, attempt=claim.number)
                for id in result_file_ids
            ),
            NewEvent(
                EventType.MODEL,
                {
                    "modelId": model.id,
                    "name": model.name,
                    "step": model.step,
                    "score": best.score if best else None,
                },
                attempt=claim.number,
            ),
        ],
        epoch=claim.epoch,
    )
    await end(session, claim, JobStatus.SUCCEEDED, outcome="succeeded")
    return model


async def end(
    session: AsyncSession,
    claim: Claim,
    status: JobStatus,
    *,
    outcome: str,
    error: dict[str, Any] | None = None,
    message: str | None = None,
) -> None:
    """Close the attempt and move the job. A job asked to resume while it paused is queued again."""
    job = await JobRepository(session, claim.org_id).get(claim.subject_id, lock=True)
    attempt = await session.get_one(Attempt, (claim.org_id, claim.id))
    if attempt.finished_at is not None:
        return  # said before; the answer was lost
    wanted_back = job.requested_action == RequestedAction.RESUME and status is JobStatus.PAUSED
    labels = list(attempt.labels)
    queue.finish(attempt, outcome)
    session.add(attempt)
    await session.flush()
    if wanted_back:
        await queue.open_attempt(session, job.org_id, job.id, labels)
    ended: dict[str, Any] = {"outcome": outcome}
    if message:
        ended["message"] = message
    await log.append(
        session,
        job.id,
        [NewEvent(EventType.ATTEMPT_ENDED, ended, attempt=claim.number)],
        epoch=claim.epoch,
    )
    await move(session, job, status, epoch=claim.epoch, attempt=claim.number, error=error)
    if wanted_back:
        await move(session, job, JobStatus.QUEUED, epoch=claim.epoch)


async def hand_back(session: AsyncSession, claim: Claim, outcome: str, message: str) -> None:
    """End the attempt without an outcome for the job, and queue the next one: "released" when the
    worker leaves in order, "lost" when its training process died."""
    attempt = await session.get_one(Attempt, (claim.org_id, claim.id), with_for_update=True)
    if attempt.finished_at is not None:
        return  # said before; the answer was lost
    queue.finish(attempt, outcome)
    session.add(attempt)
    await session.flush()
    await queue.open_attempt(session, claim.org_id, claim.subject_id, attempt.labels)
    await log.append(
        session,
        claim.subject_id,
        [
            NewEvent(
                EventType.ATTEMPT_ENDED,
                {"outcome": outcome, "message": message},
                attempt=claim.number,
            )
        ],
        epoch=claim.epoch,
    )


async def _losses_here(session: AsyncSession, job: Job, claim: Claim, from_step: int) -> int:
    """How many attempts in a row, up to this one, were lost without getting past this step."""
    losses = 0
    for attempt in reversed(await queue.history(session, job.org_id, job.id)):
        if attempt.number >= claim.number:
            continue
        if attempt.outcome != "lost" or attempt.from_step != from_step:
            break
        losses += 1
    return losses


async def discard(session: AsyncSession, claim: Claim) -> list[str]:
    """Once the job is cancelled without keeping its checkpoints: the folders to remove."""
    job = await JobRepository(session, claim.org_id).get(claim.subject_id)
    return await checkpoints.discard(session, job)


async def prune_checkpoints(session: AsyncSession, claim: Claim, keep: int) -> list[str]:
    """Forget the checkpoints that the job's rule does not keep; returns the folders to remove.
    `keep` is how many of the furthest stay when the job says nothing else."""
    jobs = JobRepository(session, claim.org_id)
    job = await jobs.get(claim.subject_id)
    rule = Retention.model_validate({"last": keep, **(job.retention or {})})
    if job.evaluation and not rule.best_by_score:  # it may become the job's model
        rule = rule.model_copy(update={"best_by_score": 1})
    gone = []
    for checkpoint in rule.superfluous(await jobs.checkpoints(job.id)):
        if not await models.in_use(session, claim.org_id, checkpoint.id):
            await session.delete(checkpoint)
            gone.append(checkpoint.path)
    return gone


async def seconds_worked(session: AsyncSession, claim: Claim) -> float:
    """How long machines were held for the job, all attempts together."""
    now = clock.now()
    return sum(
        ((attempt.finished_at or now) - attempt.started_at).total_seconds()
        for attempt in await queue.history(session, claim.org_id, claim.subject_id)
        if attempt.started_at is not None
    )
