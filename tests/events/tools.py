"""What the tests of the log share: streams to write to, readers, and connections to cut."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core import ids
from app.core.database import Database
from app.events import log
from app.events.doorbell import Doorbell
from app.events.log import LoggedEvent, NewEvent
from app.events.stream import Streams


def seeded() -> random.Random:
    """A source of chance whose seed is printed; LUTHIER_TEST_SEED repeats a run."""
    seed = int(os.environ.get("LUTHIER_TEST_SEED") or random.randrange(2**32))
    print(f"LUTHIER_TEST_SEED={seed}")  # noqa: T201
    return random.Random(seed)


def notes(values: Sequence[int]) -> list[NewEvent]:
    """One small event per value."""
    return [NewEvent("message", {"n": value}) for value in values]


def numbers(events: Sequence[LoggedEvent]) -> list[int]:
    return [event.seq for event in events]


async def new_stream(database: Database, org_id: str) -> str:
    stream = ids.new("stream")
    async with database.transaction(org_id) as session:
        await log.open_stream(session, org_id, stream)
    return stream


async def append(
    database: Database, org_id: str, stream: str, count: int = 1, *, epoch: int | None = None
) -> int:
    async with database.transaction(org_id) as session:
        return await log.append(session, stream, notes(range(count)), epoch=epoch)


async def execute(database: Database, org_id: str, statement: str, **values: object) -> None:
    """One statement, past every service."""
    async with database.transaction(org_id) as session:
        await (await session.connection()).execute(text(statement), values)


async def everything(database: Database, org_id: str, stream: str) -> list[LoggedEvent]:
    async with database.transaction(org_id) as session:
        return await log.read(session, stream, 0, 1_000_000)


async def head(database: Database, org_id: str, stream: str) -> int:
    async with database.transaction(org_id) as session:
        return await log.position(session, stream)


async def until(
    met: Callable[[], bool] | Callable[[], Awaitable[bool]], within: float = 10
) -> None:
    """Wait for a condition; fails when it is not met in time."""
    async with asyncio.timeout(within):
        while True:
            found = met()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)


class Rings:
    """What a doorbell was heard to ring for."""

    def __init__(self, doorbell: Doorbell) -> None:
        self.gaps = 0
        self.heard: list[str] = []
        self.calls = 0
        doorbell.on_ring(self._hear)

    def _hear(self, streams: frozenset[str] | None) -> None:
        self.calls += 1
        if streams is None:
            self.gaps += 1
        else:
            self.heard.extend(sorted(streams))


@asynccontextmanager
async def ringing(doorbell: Doorbell) -> AsyncIterator[Rings]:
    """The doorbell, started, with a listener that is known to hear."""
    rings = Rings(doorbell)
    await doorbell.start()
    try:
        probe = ids.new("probe")

        def heard() -> bool:
            doorbell.ring(frozenset({probe}))
            return probe in rings.heard

        await until(heard)
        await asyncio.sleep(0.1)
        rings.calls = rings.gaps = 0
        rings.heard.clear()
        yield rings
    finally:
        await doorbell.stop()


@asynccontextmanager
async def served(database_url: str, bell: str | None = None) -> AsyncIterator[Streams]:
    """An API process's streams, on connections of their own. With `memory://` it hears nobody."""
    database = Database(database_url, "luthier_app", 5)
    try:
        async with process(database, Doorbell(bell or database_url)) as streams:
            yield streams
    finally:
        await database.close()


@asynccontextmanager
async def process(database: Database, doorbell: Doorbell) -> AsyncIterator[Streams]:
    """What one API process runs to serve streams. Ends with no tail left."""
    streams = Streams(database, doorbell)
    await doorbell.start()
    await streams.start()
    try:
        yield streams
        assert streams.tails == 0
    finally:
        await streams.stop()
        await doorbell.stop()


async def follow_to(
    streams: Streams, org_id: str, stream: str, after: int | None, last: int
) -> list[int]:
    """The numbers a viewer gets up to the last one."""
    got: list[int] = []
    async with aclosing(streams.follow(org_id, stream, after)) as batches:
        async for batch in batches:
            got += numbers(batch)
            if got[-1] >= last:
                break
    return got


async def driver(session: AsyncSession) -> "asyncpg.Connection[Any]":
    """The bare connection beneath a session."""
    raw = await (await session.connection()).get_raw_connection()
    found: asyncpg.Connection[Any] = raw.driver_connection  # type: ignore[assignment]
    return found


@asynccontextmanager
async def owner(database_url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def backends(
    connection: "asyncpg.Connection[Any]", application: str, query: str = "%"
) -> set[int]:
    """The server processes of an application whose last statement is like this."""
    rows = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND query LIKE $2",
        application,
        query,
    )
    return {row["pid"] for row in rows}


async def cut(connection: "asyncpg.Connection[Any]", pids: Sequence[int] | set[int]) -> None:
    for pid in pids:
        await connection.execute("SELECT pg_terminate_backend($1)", pid)


async def waits_for_a_lock(connection: "asyncpg.Connection[Any]", pid: int) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1", pid
        )
    )


async def write(
    database: Database, org: str, stream: str, total: int, chance: random.Random, pause: float
) -> None:
    while (left := total - await head(database, org, stream)) > 0:
        await append(database, org, stream, min(left, chance.choice([1, 1, 2, 5, 30])))
        await asyncio.sleep(chance.random() * pause)


async def come_and_go(
    streams: list[Streams], org: str, stream: str, last: int, chance: random.Random, pause: float
) -> tuple[int, list[int]]:
    """A viewer that leaves and comes back after its position, each time to either process, and
    takes some of the news without waking up.

    Returns where it began, and every number it got.
    """
    await asyncio.sleep(chance.random() * pause * 10)
    start = position = chance.choice([0, chance.randint(0, last // 4)])
    got: list[int] = []

    def take(events: list[LoggedEvent]) -> Callable[[], int] | None:
        if events[-1].seq >= last or chance.random() < 0.3:
            return None
        part = numbers(events)[: chance.randint(0, len(events))]

        def hand_out() -> int:
            got.extend(part)
            return part[-1] if part else 0

        return hand_out

    while position < last:
        stay = chance.randint(1, 12)
        source = chance.choice(streams).follow(org, stream, position, take=take)
        async with aclosing(source) as batches:
            async for batch in batches:
                got += numbers(batch)
                position = got[-1]
                stay -= 1
                if not stay or position >= last:
                    break
                if chance.random() < 0.2:
                    await asyncio.sleep(chance.random() * pause * 5)
        await asyncio.sleep(chance.random() * pause)
    return start, got
