"""One writer per stream: the token lies in the row that numbers, so nobody slips in behind it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.database import Database
from app.events import log
from app.events.log import Fenced
from tests.events.tools import (
    append,
    everything,
    execute,
    head,
    new_stream,
    notes,
    numbers,
    owner,
    seeded,
    until,
    waits_for_a_lock,
)
from tests.support import Tenant


async def _pid(session: AsyncSession) -> int:
    return int(await (await session.connection()).scalar(text("SELECT pg_backend_pid()")) or 0)


async def _epoch(database: Database, org: str, stream: str) -> int:
    async with database.transaction(org) as session:
        query = text("SELECT epoch FROM streams WHERE stream_id = :s")
        return int(await (await session.connection()).scalar(query, {"s": stream}) or 0)


@asynccontextmanager
async def _stuck(
    database: Database, database_url: str, org: str, stream: str, epoch: int
) -> AsyncIterator[asyncio.Task[int]]:
    """A writer with this token that waits for the stream's row lock."""
    pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def write() -> int:
        async with database.transaction(org) as session:
            pid.set_result(await _pid(session))
            return await log.append(session, stream, notes([1, 2]), epoch=epoch)

    writing = asyncio.create_task(write())
    async with owner(database_url) as watch:
        waiting = await pid
        await until(lambda: waits_for_a_lock(watch, waiting))
    yield writing


async def test_an_old_token_is_refused(worker_database: Database, org: str) -> None:
    stream = await new_stream(worker_database, org)
    assert await append(worker_database, org, stream, 2, epoch=0) == 2
    async with worker_database.transaction(org) as session:
        await log.fence(session, stream)
    with pytest.raises(Fenced):
        await append(worker_database, org, stream, 2, epoch=0)
    with pytest.raises(Fenced):  # nor one from the future
        await append(worker_database, org, stream, 2, epoch=2)
    assert await append(worker_database, org, stream, 1, epoch=1) == 3
    assert numbers(await everything(worker_database, org, stream)) == [1, 2, 3]


async def test_a_writer_that_waits_behind_the_claim_writes_nothing(
    worker_database: Database, database_url: str, org: str
) -> None:
    stream = await new_stream(worker_database, org)
    async with worker_database.transaction(org) as claim:
        await log.fence(claim, stream)
        async with _stuck(worker_database, database_url, org, stream, 0) as old:
            assert not old.done()
            await claim.commit()
            with pytest.raises(Fenced):
                await old
    assert await everything(worker_database, org, stream) == []
    assert await append(worker_database, org, stream, epoch=1) == 1


async def test_a_writer_and_a_claim_that_wait_together_never_write_in_the_wrong_order(
    worker_database: Database, database_url: str, org: str
) -> None:
    """At the lock: a writer that holds it, then the claim, then a second old writer. Postgres may
    let either of the two waiting go first; what the claim saw is the old token's last word."""
    for _ in range(10):
        stream = await new_stream(worker_database, org)
        claimer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def claim(stream: str, started: asyncio.Future[int]) -> int:
            async with worker_database.transaction(org) as session:
                started.set_result(await _pid(session))
                await log.fence(session, stream)
                return await log.position(session, stream)

        async with owner(database_url) as watch, worker_database.transaction(org) as first:
            assert await log.append(first, stream, notes([0]), epoch=0) == 1
            claiming = asyncio.create_task(claim(stream, claimer))
            pid = await claimer
            await until(partial(waits_for_a_lock, watch, pid))
            async with _stuck(worker_database, database_url, org, stream, 0) as second:
                await first.commit()
                seen, written = await asyncio.gather(claiming, second, return_exceptions=True)
        last = await head(worker_database, org, stream)
        assert (seen, type(written), last) in ((1, Fenced, 1), (3, int, 3))
        assert await _epoch(worker_database, org, stream) == 1


async def test_a_writer_that_waits_behind_a_claim_rolled_back_goes_on(
    worker_database: Database, database_url: str, org: str
) -> None:
    stream = await new_stream(worker_database, org)
    async with worker_database.transaction(org) as claim:
        await log.fence(claim, stream)
        async with _stuck(worker_database, database_url, org, stream, 0) as writer:
            await claim.rollback()
            assert await writer == 2


async def test_a_crowd_of_writers_and_claims_never_mixes_tokens(
    worker_database: Database, org: str
) -> None:
    """Whoever wins, each token's events are together in the log, the older token's first."""
    chance = seeded()
    stream = await new_stream(worker_database, org)
    refused = 0

    async def worker(turns: int) -> None:
        nonlocal refused
        for _ in range(turns):
            async with worker_database.transaction(org) as session:
                await log.fence(session, stream)
                query = text("SELECT epoch FROM streams WHERE stream_id = :s")
                epoch = await (await session.connection()).scalar(query, {"s": stream})
            try:
                while chance.random() < 0.8:
                    async with worker_database.transaction(org) as session:
                        events = [log.NewEvent("message", {"epoch": epoch})] * chance.randint(1, 3)
                        await log.append(session, stream, events, epoch=epoch)
                        await asyncio.sleep(chance.random() * 0.003)
            except Fenced:
                refused += 1

    await asyncio.gather(*(worker(8) for _ in range(8)))
    found = await everything(worker_database, org, stream)
    epochs = [event.data["epoch"] for event in found]
    assert numbers(found) == list(range(1, len(found) + 1))
    assert epochs == sorted(epochs)
    assert refused > 0
    assert await _epoch(worker_database, org, stream) == 64


async def test_fence_and_append_of_one_transaction_fall_together(
    worker_database: Database, org: str, other_tenant: Tenant
) -> None:
    stream, second = [await new_stream(worker_database, org) for _ in range(2)]
    await append(worker_database, org, stream)

    async def takeover() -> None:
        async with worker_database.transaction(org) as session:
            await log.fence(session, stream)
            assert await log.append(session, stream, notes([1, 2]), epoch=1) == 3
            await log.append(session, second, notes([1]), latest={"n": 1})
            await log.append(session, second, notes([1]), epoch=7)

    with pytest.raises(Fenced):
        await takeover()
    assert await _epoch(worker_database, org, stream) == 0
    assert await head(worker_database, org, stream) == 1
    assert await everything(worker_database, org, second) == []
    async with worker_database.transaction(org) as session:
        assert (await log.heads(session, [second]))[second] == log.Head(0, None)


@pytest.mark.parametrize("column", ["epoch", "last_seq"])
@pytest.mark.parametrize("role", ["app", "worker"])
async def test_a_stream_never_goes_back(
    database: Database, worker_database: Database, org: str, column: str, role: str
) -> None:
    pool = database if role == "app" else worker_database
    stream = await new_stream(pool, org)
    await append(pool, org, stream, 3)
    async with pool.transaction(org) as session:
        await log.fence(session, stream)
    with pytest.raises(DBAPIError, match="a stream never goes back"):
        await execute(
            pool, org, f"UPDATE streams SET {column} = {column} - 1 WHERE stream_id = :s", s=stream
        )
    assert await _epoch(pool, org, stream) == 1
    assert await head(pool, org, stream) == 3


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET data = '{}' WHERE stream_id = :s",
        "DELETE FROM events WHERE stream_id = :s",
        "DELETE FROM streams WHERE stream_id = :s",
        "TRUNCATE events",
    ],
)
async def test_nobody_can_rewrite_the_log(
    database: Database, worker_database: Database, org: str, change: str
) -> None:
    stream = await new_stream(database, org)
    await append(database, org, stream, 2)
    for pool in (database, worker_database):
        with pytest.raises(DBAPIError, match="permission denied"):
            await execute(pool, org, change, **({"s": stream} if ":s" in change else {}))
    assert numbers(await everything(database, org, stream)) == [1, 2]
