"""Leases: kept by renewing, lost by silence, and never in two hands."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.attempts import queue
from app.attempts.tables import Attempt
from app.core import clock
from app.core.database import Database
from app.events.log import Fenced
from tests.attempts.claims import LONG, claim_one, claimed, history, open_attempt, silence
from tests.events.tools import append, owner, until


async def test_a_worker_that_fell_silent_loses_its_attempt_to_a_new_one(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    attempt = await open_attempt(database, org, kind, labels=("gpu",))
    lost = await claim_one(worker_database, kind, ("gpu",))
    assert lost is not None
    assert await claim_one(worker_database, kind, ("gpu",)) is None
    await append(worker_database, org, lost.subject_id, epoch=lost.epoch)
    await silence(worker_database, lost)
    claim = await claim_one(worker_database, kind, ("gpu",))
    assert claim is not None
    assert (claim.subject_id, claim.number) == (attempt.subject_id, 2)
    assert (claim.epoch, claim.lost_number) == (lost.epoch + 1, 1)
    first, second = await history(database, org, attempt.subject_id)
    assert (first.id, first.outcome) == (lost.id, "lost")
    assert first.finished_at is not None
    assert (second.id, second.outcome, second.labels) == (claim.id, None, ["gpu"])
    async with worker_database.transaction(org) as session:
        assert not await queue.renew(session, lost, LONG)
        assert await queue.renew(session, claim, LONG)
    with pytest.raises(Fenced):
        await append(worker_database, org, lost.subject_id, epoch=lost.epoch)
    assert await append(worker_database, org, claim.subject_id, epoch=claim.epoch) == 2


async def test_an_expired_lease_is_taken_over_once(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    attempt = await open_attempt(database, org, kind)
    claim = await claimed(worker_database, kind)
    for turn in range(2, 6):
        await silence(worker_database, claim)
        found = await asyncio.gather(*(claim_one(worker_database, kind) for _ in range(16)))
        [claim] = [taken for taken in found if taken]
        assert (claim.number, claim.epoch, claim.lost_number) == (turn, turn, turn - 1)
    outcomes = [row.outcome for row in await history(database, org, attempt.subject_id)]
    assert outcomes == ["lost"] * 4 + [None]


async def test_a_lease_ends_by_itself_and_renewing_keeps_it(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    await open_attempt(database, org, kind)
    lease = timedelta(seconds=1)
    claim = await claimed(worker_database, kind, lease)
    for _ in range(5):
        await asyncio.sleep(0.3)
        async with worker_database.transaction(org) as session:
            assert await queue.renew(session, claim, lease)
        assert await claim_one(worker_database, kind) is None
    await asyncio.sleep(1.05)
    assert (await claimed(worker_database, kind)).lost_number == 1


async def test_a_late_renewal_counts_when_nobody_took_over(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    """The epoch decides who owns the work, not the clock."""
    await open_attempt(database, org, kind)
    claim = await claimed(worker_database, kind)
    await silence(worker_database, claim)
    async with worker_database.transaction(org) as session:
        assert await queue.renew(session, claim, LONG)
    assert await claim_one(worker_database, kind) is None


async def test_leases_do_not_follow_this_processs_clock(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    await open_attempt(database, org, kind)
    claim = await claimed(worker_database, kind, LONG)
    clock.move(timedelta(hours=1))
    try:
        assert await claim_one(worker_database, kind) is None
        async with worker_database.transaction(org) as session:
            attempt = await queue.current(session, org, claim.subject_id)
            assert attempt is not None
            assert await queue.held(session, attempt)
    finally:
        clock.move(timedelta(hours=-1))


async def test_an_attempt_given_back_is_claimed_again_when_due(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    attempt = await open_attempt(database, org, kind)
    first = await claimed(worker_database, kind)
    async with worker_database.transaction(org) as session:
        due_at = clock.now() + timedelta(seconds=1)
        assert await queue.give_back(session, first, due_at)
        assert not await queue.renew(session, first, LONG)
    assert await claim_one(worker_database, kind) is None
    await asyncio.sleep(1)
    second = await claimed(worker_database, kind)
    assert (second.id, second.number, second.lost_number) == (attempt.id, 1, None)
    assert second.epoch == first.epoch + 1
    async with worker_database.transaction(org) as session:  # the first one comes too late
        assert not await queue.renew(session, first, LONG)
        assert not await queue.give_back(session, first, clock.now())
    assert await claim_one(worker_database, kind) is None


async def test_a_finished_attempt_is_never_claimed(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    attempt = await open_attempt(database, org, kind)
    claim = await claimed(worker_database, kind)
    async with worker_database.transaction(org) as session:
        queue.finish(await session.get_one(Attempt, (org, claim.id)), "succeeded")
    await silence(worker_database, claim)
    assert await claim_one(worker_database, kind) is None
    async with worker_database.transaction(org) as session:
        assert not await queue.renew(session, claim, LONG)
        assert await queue.current(session, org, attempt.subject_id) is None


async def test_a_worker_whose_connection_dies_in_the_claim_leaves_the_attempt_free(
    database: Database, worker_database: Database, database_url: str, org: str, kind: str
) -> None:
    attempt = await open_attempt(database, org, kind)

    async def doomed() -> None:
        async with worker_database.transaction(None) as session:
            assert await queue.claim(session, "worker_1", kind, (), LONG) is not None
            pid = await (await session.connection()).scalar(text("SELECT pg_backend_pid()"))
            async with owner(database_url) as watch:
                await watch.execute("SELECT pg_terminate_backend($1)", pid)

    with pytest.raises(DBAPIError):
        await doomed()

    async def free() -> bool:
        claim = await claim_one(worker_database, kind)
        return claim is not None and (claim.id, claim.epoch) == (attempt.id, 1)

    await until(free)
