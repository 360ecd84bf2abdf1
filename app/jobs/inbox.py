"""Webhooks of providers: each is stored once, and makes the job it is about due for a look."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.attempts import queue
from app.core import clock
from app.jobs.states import TERMINAL
from app.jobs.tables import InboxRow, Job


@dataclass(frozen=True)
class Delivery:
    """A webhook whose signature was found good."""

    credential_id: str
    webhook_id: str
    type: str
    provider_job_id: str | None
    body: dict[str, Any]


async def receive(session: AsyncSession, org_id: str, deliveries: Sequence[Delivery]) -> None:
    """Store those that are new, of one organization, and wake the drivers of their jobs."""
    ids = [one.provider_job_id for one in deliveries if one.provider_job_id]
    query = select(Job.provider_job_id, Job.id, Job.status).where(
        Job.org_id == org_id, col(Job.provider_job_id).in_(ids)
    )
    jobs = {row[0]: (row[1], row[2]) for row in await session.exec(query)} if ids else {}
    now, rows, subjects = clock.now(), {}, {}
    for one in deliveries:
        job = jobs.get(one.provider_job_id)
        outcome = "no_job" if one.provider_job_id is None else "unknown_job"
        if job is not None:
            outcome = "over" if job[1] in TERMINAL else "looked_at"
        key = (one.credential_id, one.webhook_id)
        rows[key] = {
            "org_id": org_id,
            "credential_id": one.credential_id,
            "webhook_id": one.webhook_id,
            "type": one.type[:200],
            "provider_job_id": one.provider_job_id,
            "body": one.body,
            "outcome": outcome,
            "received_at": now,
        }
        if outcome == "looked_at" and job is not None:
            subjects[key] = job[0]
    statement = (
        insert(InboxRow)
        .values(list(rows.values()))
        .on_conflict_do_nothing()
        .returning(col(InboxRow.credential_id), col(InboxRow.webhook_id))
    )
    new = (await (await session.connection()).execute(statement)).all()
    fresh = {(row[0], row[1]) for row in new}
    if due := {subject for key, subject in subjects.items() if key in fresh}:
        # In one order everywhere, so that two batches never wait for each other.
        await queue.nudge(session, org_id, sorted(due), "webhook")
