"""Taking jobs that exist at a provider into the ledger: with their events, from their beginning."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import audit
from app.attempts import queue
from app.core import clock, ids
from app.core.actor import Actor, Role, Scope
from app.events import log
from app.jobs import remote
from app.jobs.remote import Memory
from app.jobs.states import Cause, JobStatus
from app.jobs.tables import Job
from app.jobs.transition import announce
from app.providers.base import Sighting

MOST = 200
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:lock, 0))")


async def known(
    session: AsyncSession, actor: Actor, provider: str, provider_job_ids: Sequence[str]
) -> dict[str, Job]:
    """Those that are in the ledger already, by their id at the provider."""
    query = select(Job).where(
        Job.org_id == actor.org_id,
        Job.project_id == actor.project_id,
        Job.provider == provider,
        col(Job.provider_job_id).in_(provider_job_ids),
    )
    return {row.provider_job_id or "": row for row in await session.exec(query)}


async def take_in(
    session: AsyncSession, actor: Actor, provider: str, found: Sequence[Sighting]
) -> tuple[list[Job], list[Job]]:
    """Record those that are new, and queue a look at each, which brings their status, events and
    results. Returns the new ones and those that were here. Importing again changes nothing."""
    actor.require(Scope.WRITE, Role.ADMIN)
    await _alone(session, actor, provider)
    here = await known(session, actor, provider, [one.id for one in found])
    made = []
    for sighting in found:
        if sighting.id in here or await _ours(session, actor, sighting):
            continue
        made.append(await _record(session, actor, provider, sighting))
    return made, list(here.values())


async def _alone(session: AsyncSession, actor: Actor, provider: str) -> None:
    """Two imports at once would both find a job new: the second waits for the first."""
    lock = f"import {actor.org_id} {actor.project_id} {provider}"
    await (await session.connection()).execute(_LOCK, {"lock": lock})


async def _ours(session: AsyncSession, actor: Actor, sighting: Sighting) -> bool:
    """Whether a job of the ledger made it, whose answer is still on its way."""
    if sighting.marker is None:
        return False
    job = await session.get(Job, (actor.org_id, sighting.marker.split(".")[0]))
    return job is not None and remote.may_exist(job)


async def _record(session: AsyncSession, actor: Actor, provider: str, found: Sighting) -> Job:
    now = clock.now()
    id = ids.new(ids.JOB)
    job = Job(
        org_id=actor.org_id,
        id=id,
        project_id=actor.project_id,
        owner_id=actor.member_id,
        name=(found.name or found.suffix or found.base_model or found.id)[:200],
        status=JobStatus.PENDING.value,
        provider=provider,
        provider_job_id=found.id,
        base_model=found.base_model or "unknown",
        method=found.method,
        hyperparameters=dict(found.resolved or {}),
        resolved=dict(found.resolved or {}) or None,
        suffix=found.suffix,
        seed=found.seed or 0,
        remote=asdict(Memory(training=found.training, validation=found.validation, imported=True)),
        created_at=found.created_at or now,
        updated_at=now,
    )
    session.add(job)
    await session.flush()
    await queue.open_attempt(session, actor.org_id, id, remote.labels_of(job))
    await log.open_stream(session, actor.org_id, id)
    after = {"provider": provider, "providerJobId": found.id, "baseModel": job.base_model}
    audit.record(session, actor, "job.imported", id, after=after)
    await announce(session, job, None, Cause.EVIDENCE, message=f"imported from {provider}")
    return job
