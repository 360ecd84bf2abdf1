"""Webhooks of providers: each is stored once, and makes the job it is about due for a look."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.attempts import queue
from app.core import clock
from app.core.database import json_text
from app.jobs.states import TERMINAL

# One statement of a fixed form, whatever the size of the batch: others are compiled each time.
_STORE = text(
    """
    WITH jobs_meant AS (
        SELECT provider_job_id, min(id) AS id, bool_and(status = ANY(CAST(:over AS text[]))) AS over
          FROM jobs WHERE org_id = :org AND provider_job_id = ANY(CAST(:jobs AS text[]))
         GROUP BY provider_job_id),
    added AS (
        INSERT INTO webhook_inbox (org_id, credential_id, webhook_id, type, provider_job_id, body,
                                   outcome, received_at)
        SELECT :org, new.credential, new.webhook, new.type, new.job, new.body,
               CASE WHEN new.job IS NULL THEN 'no_job' WHEN meant.id IS NULL THEN 'unknown_job'
                    WHEN meant.over THEN 'over' ELSE 'looked_at' END, :now
          FROM unnest(CAST(:credentials AS text[]), CAST(:webhooks AS text[]),
                      CAST(:types AS text[]), CAST(:jobs AS text[]), CAST(:bodies AS jsonb[]))
               AS new(credential, webhook, type, job, body)
          LEFT JOIN jobs_meant AS meant ON meant.provider_job_id = new.job
            ON CONFLICT DO NOTHING
        RETURNING provider_job_id, outcome)
    SELECT DISTINCT meant.id FROM added JOIN jobs_meant AS meant USING (provider_job_id)
     WHERE added.outcome = 'looked_at'
    """
)


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
    rows = await (await session.connection()).execute(
        _STORE,
        {
            "org": org_id,
            "now": clock.now(),
            "over": [status.value for status in TERMINAL],
            "credentials": [one.credential_id for one in deliveries],
            "webhooks": [one.webhook_id for one in deliveries],
            "types": [one.type[:200] for one in deliveries],
            "jobs": [one.provider_job_id for one in deliveries],
            "bodies": [json_text(one.body) for one in deliveries],
        },
    )
    if due := sorted(row.id for row in rows):
        # In one order everywhere, so that two batches never wait for each other.
        await queue.nudge(session, org_id, due, "webhook")
