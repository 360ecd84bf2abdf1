"""A job is read in two steps, its row and its stream: what is shown is of one moment."""

import asyncio
import json
from typing import Any

import asyncpg

from app.core.database import Database
from app.events import log
from tests.jobs.rows import Rows
from tests.support import Api, Tenant

LATEST = {
    "attempt": 1,
    "step": 3,
    "epoch": 1.0,
    "at": "2026-03-01T00:00:00+00:00",
    "values": {},
    "progress": {
        "step": 3,
        "total_steps": 3,
        "epoch": 1.0,
        "total_epochs": 1,
        "trained_tokens": 9,
    },
}
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass"


async def test_a_job_that_moves_while_it_is_read(
    api: Api, database: Database, tenant: Tenant, owner: "asyncpg.Connection[Any]"
) -> None:
    [job] = await (await Rows.of(api, database, tenant)).add({"status": "queued"})
    async with database.transaction(job.org_id) as session:
        await log.open_stream(session, job.org_id, job.id)
    async with owner.transaction():
        await owner.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        query = "query ($j: ID!) { job(id: $j) { status cursor progress { step } } }"
        asked = asyncio.create_task(api.execute(query, j=job.id))
        async with asyncio.timeout(20):
            while not await owner.fetchval(WAITING):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)
        await owner.execute("UPDATE jobs SET status = 'running' WHERE id = $1", job.id)
        await owner.execute(
            "UPDATE streams SET last_seq = 3, latest = $2 WHERE stream_id = $1",
            job.id,
            json.dumps(LATEST),
        )
    before = {"status": "QUEUED", "cursor": "0", "progress": None}
    after = {"status": "RUNNING", "cursor": "s3", "progress": {"step": 3}}
    assert (await asked)["job"] in (before, after)
    assert (await api.execute(query, j=job.id))["job"] == after
