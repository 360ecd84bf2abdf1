"""Opening and claiming attempts."""

from datetime import timedelta

from app.attempts import queue
from app.attempts.queue import Claim
from app.attempts.tables import Attempt
from app.core import ids
from app.core.database import Database
from app.events import log
from tests.events.tools import execute

LONG = timedelta(seconds=60)


async def open_attempt(
    database: Database, org: str, kind: str, *, labels: tuple[str, ...] = (), late: float = 0
) -> Attempt:
    """A new subject's first attempt, due so many seconds ago."""
    async with database.transaction(org) as session:
        subject = ids.new(kind)
        await log.open_stream(session, org, subject)
        attempt = await queue.open_attempt(session, org, subject, labels)
        attempt.due_at -= timedelta(seconds=late)
    return attempt


async def claim_one(
    database: Database, kind: str, labels: tuple[str, ...] = (), lease: timedelta = LONG
) -> Claim | None:
    async with database.transaction(None) as session:
        return await queue.claim(session, ids.new(ids.WORKER), kind, labels, lease)


async def claimed(database: Database, kind: str, lease: timedelta = LONG) -> Claim:
    claim = await claim_one(database, kind, lease=lease)
    assert claim is not None
    return claim


async def history(database: Database, org: str, subject: str) -> list[Attempt]:
    async with database.transaction(org) as session:
        return await queue.history(session, org, subject)


async def silence(database: Database, claim: Claim) -> None:
    """As if the claimer had not been heard of until its lease ran out."""
    ended = "UPDATE attempts SET lease_until = clock_timestamp() - interval '1 ms' WHERE id = :id"
    await execute(database, claim.org_id, ended, id=claim.id)
