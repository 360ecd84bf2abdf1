"""The queue: each attempt in one pair of hands, the right one first."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.attempts import queue
from app.attempts.queue import Claim
from app.attempts.tables import Attempt
from app.core import clock
from app.core.database import Database
from tests.attempts.claims import LONG, claim_one, claimed, open_attempt
from tests.events.tools import owner
from tests.support import Tenant


async def test_sixteen_claimers_never_take_the_same_attempt(
    database: Database, worker_database: Database, org: str, other_tenant: Tenant, kind: str
) -> None:
    opened = {
        (await open_attempt(database, tenant, kind)).id
        for tenant in (org, other_tenant.actor.org_id)
        for _ in range(40)
    }
    taken: list[Claim] = []

    async def claimer() -> None:
        while claim := await claim_one(worker_database, kind):
            taken.append(claim)

    await asyncio.gather(*(claimer() for _ in range(16)))
    assert len(taken) == 80
    assert {claim.id for claim in taken} == opened
    assert {claim.org_id for claim in taken} == {org, other_tenant.actor.org_id}
    assert {(claim.number, claim.epoch, claim.lost_number) for claim in taken} == {(1, 1, None)}


async def test_a_single_attempt_goes_to_one_of_sixteen(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    for _ in range(5):
        await open_attempt(database, org, kind)
        found = await asyncio.gather(*(claim_one(worker_database, kind) for _ in range(16)))
        assert len([claim for claim in found if claim]) == 1


async def test_a_claim_passes_by_a_row_that_another_holds_locked(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    first = await open_attempt(database, org, kind, late=10)
    second = await open_attempt(database, org, kind)
    async with worker_database.transaction(None) as session:
        held = await queue.claim(session, "worker_1", kind, (), LONG)
        assert held is not None
        assert held.id == first.id
        other = await asyncio.wait_for(claim_one(worker_database, kind), 2)
        assert other is not None
        assert other.id == second.id
        assert await asyncio.wait_for(claim_one(worker_database, kind), 2) is None
        await session.rollback()
    again = await claimed(worker_database, kind)  # the claim that was rolled back never was
    assert (again.id, again.epoch, again.lost_number) == (first.id, 1, None)


async def test_the_one_due_longest_comes_first(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    opened = [
        (late, await open_attempt(database, org, kind, late=late)) for late in (5, 30, 0, 20, 10)
    ]
    expected = [attempt.id for _, attempt in sorted(opened, key=lambda pair: -pair[0])]
    assert [(await claimed(worker_database, kind)).id for _ in expected] == expected


async def test_an_attempt_is_claimed_by_a_worker_with_all_its_labels(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    await open_attempt(database, org, kind, labels=("gpu", "h200"))
    assert await claim_one(worker_database, kind) is None
    assert await claim_one(worker_database, kind, ("gpu",)) is None
    assert await claim_one(worker_database, kind, ("h100", "gpu")) is None
    assert await claim_one(worker_database, kind, ("fast", "h200", "gpu")) is not None
    await open_attempt(database, org, kind)
    assert await claim_one(worker_database, kind, ("gpu",)) is not None  # asks for none


async def test_nothing_is_claimed_before_it_is_due(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    attempt = await open_attempt(database, org, kind, late=-30)
    assert await claim_one(worker_database, kind) is None
    clock.move(timedelta(seconds=31))
    try:
        assert (await claimed(worker_database, kind)).id == attempt.id
    finally:
        clock.move(timedelta(seconds=-31))


async def test_kinds_are_separate(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    """Also where one kind's name begins like another's."""
    attempt = await open_attempt(database, org, f"{kind}longer")
    assert await claim_one(worker_database, kind) is None
    assert (await claimed(worker_database, f"{kind}longer")).id == attempt.id


async def test_nothing_is_claimed_while_all_are_leased(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    for _ in range(3):
        await open_attempt(database, org, kind)
        await claimed(worker_database, kind)
    assert await claim_one(worker_database, kind) is None


async def test_a_subject_has_at_most_one_open_attempt(
    database: Database, org: str, kind: str
) -> None:
    attempt = await open_attempt(database, org, kind)

    async def another() -> int:
        async with database.transaction(org) as session:
            return (await queue.open_attempt(session, org, attempt.subject_id)).number

    with pytest.raises(IntegrityError, match="attempts_one_open"):
        await another()
    async with database.transaction(org) as session:
        queue.finish(await session.get_one(Attempt, (org, attempt.id)), "released")
    found = await asyncio.gather(*(another() for _ in range(8)), return_exceptions=True)
    assert [number for number in found if isinstance(number, int)] == [2]
    assert len([error for error in found if isinstance(error, IntegrityError)]) == 7


async def test_the_claim_raises_the_epoch_in_the_streams_row_and_only_there(
    database: Database, worker_database: Database, database_url: str, org: str, kind: str
) -> None:
    attempts = [await open_attempt(database, org, kind) for _ in range(2)]
    claim = await claimed(worker_database, kind)
    async with owner(database_url) as watch:
        rows = await watch.fetch(
            "SELECT stream_id, epoch FROM streams WHERE stream_id = ANY($1)",
            [attempt.subject_id for attempt in attempts],
        )
    assert {row["stream_id"]: row["epoch"] for row in rows} == {
        attempt.subject_id: int(attempt.id == claim.id) for attempt in attempts
    }


async def test_the_door_of_the_claim_is_the_workers_alone(
    database: Database, worker_database: Database, org: str, kind: str
) -> None:
    """The API cannot claim, and outside the door a worker sees one tenant's attempts."""
    await open_attempt(database, org, kind)
    with pytest.raises(DBAPIError, match="permission denied"):
        await claim_one(database, kind)
    async with worker_database.transaction(None) as session:
        query = text("SELECT count(*) FROM attempts")
        assert await (await session.connection()).scalar(query) == 0
        assert await queue.claim(session, "worker_1", kind, (), LONG) is not None
        assert await (await session.connection()).scalar(query) == 0
