"""Taking an observation of a job at its provider into the ledger, and what follows from it."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.attempts.queue import Claim
from app.catalog.offers import offer_of
from app.core import clock, ids
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.files import service as files
from app.files.store import Stored
from app.jobs import evidence, progress, remote
from app.jobs.remote import Memory
from app.jobs.repository import JobRepository
from app.jobs.states import TERMINAL, JobStatus, RequestedAction
from app.jobs.tables import Checkpoint, Job
from app.jobs.transition import move
from app.models.tables import Model
from app.providers.base import Item, Sighting, Status

_STEPS = text("SELECT DISTINCT step FROM events WHERE stream_id = :stream AND type = 'metrics'")
_NEW = text(
    "INSERT INTO provider_items (org_id, job_id, key)"
    " SELECT :org, :job, key FROM unnest(CAST(:keys AS text[])) AS key"
    " ON CONFLICT DO NOTHING RETURNING key"
)
_NO_REASON = {"code": "failed", "message": "The provider gives no reason.", "param": None}


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
    job = await remote.held(session, claim)
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


async def known_steps(session: AsyncSession, job_id: str) -> set[int]:
    rows = await (await session.connection()).execute(_STEPS, {"stream": job_id})
    return {row.step for row in rows if row.step is not None}


async def _unseen(session: AsyncSession, job: Job, items: Sequence[Item]) -> list[Item]:
    """Those that are not in the stream yet, from now on held to be."""
    if not items:
        return []
    keys = list(dict.fromkeys(item.key[:200] for item in items))
    rows = await (await session.connection()).execute(
        _NEW, {"org": job.org_id, "job": job.id, "keys": keys}
    )
    new = set(rows.scalars())
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
    total = newest.total_steps or sighting.total_steps
    if sighting.status is Status.SUCCEEDED:
        total = step
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
            "total_steps": None if total is None else max(total, step),
            "percent": sighting.percent,
            "epoch": newest.epoch or sighting.epoch or _epoch(epochs, step, total),
            "total_epochs": epochs,
            "trained_tokens": sighting.trained_tokens or 0,
            "tokens_per_second": None,
            "remaining_seconds": (finish - now).total_seconds() if finish else None,
        },
    }


def _epoch(epochs: int, step: int, total: int | None) -> float:
    """By the steps, where it is known how many there are."""
    return round(epochs * step / max(total, 1), 4) if total else 0.0


async def _completed(session: AsyncSession, job: Job) -> dict[str, Any] | None:
    """What the job last showed, now that its last step is known to have been the last."""
    latest = (await log.heads(session, [job.id]))[job.id].latest
    if latest is None or latest["progress"]["total_steps"] is not None:
        return None
    progress = {**latest["progress"], "total_steps": latest["progress"]["step"]}
    return {**latest, "progress": progress}


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
    latest = await _completed(session, job)
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
        await log.append(session, job.id, events, epoch=claim.epoch, latest=latest)
    await progress.end(session, claim, JobStatus.SUCCEEDED, outcome="succeeded")
