"""Viewers, while rings are lost and connections die: nothing is lost but time."""

import asyncio
import random
import time
from typing import Any

import asyncpg

from app.core.database import Database
from app.events import stream as stream_module
from app.events.doorbell import Doorbell
from app.events.stream import Streams
from tests.events.tools import (
    append,
    backends,
    come_and_go,
    cut,
    follow_to,
    new_stream,
    owner,
    seeded,
    served,
    until,
    waits_for_a_lock,
    write,
)


async def test_the_same_while_connections_are_cut_at_random(
    database_url: str, worker_database: Database, org: str
) -> None:
    """The API's queries and its doorbell die again and again; viewers only see it as a delay."""
    chance, last = seeded(), 500
    stream = await new_stream(worker_database, org)
    cuts = 0
    async with (
        owner(database_url) as watch,
        served(database_url) as one,
        served(database_url) as two,
    ):

        async def saboteur() -> None:
            nonlocal cuts
            while True:
                await asyncio.sleep(chance.random() * 0.1)
                alive = [
                    *await backends(watch, "luthier_app"),
                    *await backends(watch, "luthier_doorbell"),
                ]
                victims = chance.sample(alive, min(len(alive), 6))
                await cut(watch, victims)
                cuts += len(victims)

        sabotage = asyncio.create_task(saboteur())
        writing = asyncio.create_task(write(worker_database, org, stream, last, chance, 0.1))
        viewers = [
            come_and_go([one, two], org, stream, last, random.Random(chance.random()), 0.02)
            for _ in range(30)
        ]
        async with asyncio.timeout(60):
            results = await asyncio.gather(*viewers)
        sabotage.cancel()
        await writing
    for start, got in results:
        assert got == list(range(start + 1, last + 1))
    assert cuts > 50


async def test_without_any_ring_the_safety_poll_delivers(
    database_url: str, worker_database: Database, org: str
) -> None:
    streams_of = [await new_stream(worker_database, org) for _ in range(3)]
    async with served(database_url, "memory://deaf") as streams:
        viewing = [asyncio.create_task(follow_to(streams, org, s, 0, 700)) for s in streams_of]
        await until(lambda: streams.tails == 3)
        started = time.monotonic()
        for stream in streams_of:
            await append(worker_database, org, stream, 700)
        for got in await asyncio.gather(*viewing):
            assert got == list(range(1, 701))
        assert time.monotonic() - started < 2 * stream_module.SAFETY_POLL + 1


async def test_rings_for_one_stream_do_not_put_off_the_poll_of_another(
    database_url: str, ringer: Database, worker_database: Database, org: str
) -> None:
    """A lost ring costs a second, also while others ring all the time."""
    busy, silent = [await new_stream(ringer, org) for _ in range(2)]
    async with served(database_url) as streams:
        noise = asyncio.create_task(follow_to(streams, org, busy, 0, 10_000))
        viewing = asyncio.create_task(follow_to(streams, org, silent, 0, 1))
        await until(lambda: streams.tails == 2)

        async def keep_ringing() -> None:
            while True:
                await append(ringer, org, busy)
                await asyncio.sleep(0.02)

        ringing = asyncio.create_task(keep_ringing())
        await asyncio.sleep(0.2)
        await append(worker_database, org, silent)  # rings nobody
        got = await asyncio.wait_for(viewing, 2 * stream_module.SAFETY_POLL + 1)
        assert got == [1]
        for task in (ringing, noise):
            task.cancel()
        await asyncio.gather(ringing, noise, return_exceptions=True)


async def _reading(watch: "asyncpg.Connection[Any]") -> set[int]:
    """The API's connections that wait in the middle of a read; there is at least one."""
    found: set[int] = set()

    async def some() -> bool:
        found.clear()
        for pid in await backends(watch, "luthier_app"):
            if await waits_for_a_lock(watch, pid):
                found.add(pid)
        return bool(found)

    await until(some)
    return found


async def test_a_read_whose_connection_dies_in_the_middle_is_only_late(
    database_url: str, ringer: Database, org: str
) -> None:
    """That of a viewer's history, and that of the tail."""
    stream = await new_stream(ringer, org)
    await append(ringer, org, stream, 10)
    async with (
        owner(database_url) as locker,
        owner(database_url) as watch,
        served(database_url) as streams,
    ):
        live = asyncio.create_task(follow_to(streams, org, stream, 10, 20))
        await until(lambda: streams.tails == 1)
        await append(ringer, org, stream, 9)
        async with locker.transaction():
            await locker.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            late = asyncio.create_task(follow_to(streams, org, stream, 0, 20))
            for _ in range(3):
                await cut(watch, await _reading(watch))
        await append(ringer, org, stream)
        assert await asyncio.wait_for(late, 10) == list(range(1, 21))
        assert await asyncio.wait_for(live, 10) == list(range(11, 21))


async def test_a_viewer_that_joins_while_the_connection_dies_is_only_late(
    database_url: str, ringer: Database, org: str
) -> None:
    stream = await new_stream(ringer, org)
    await append(ringer, org, stream, 10)
    async with (
        owner(database_url) as locker,
        owner(database_url) as watch,
        served(database_url) as streams,
    ):
        async with locker.transaction():
            await locker.execute("LOCK TABLE streams IN ACCESS EXCLUSIVE MODE")
            joining = asyncio.create_task(follow_to(streams, org, stream, 0, 10))
            for _ in range(3):
                await cut(watch, await _reading(watch))
        assert await asyncio.wait_for(joining, 10) == list(range(1, 11))


async def test_stopping_does_not_hang_when_it_meets_a_ring(
    database_url: str, worker_database: Database, org: str
) -> None:
    chance = seeded()
    stream = await new_stream(worker_database, org)
    await append(worker_database, org, stream)
    database = Database(database_url, "luthier_app", 2)
    for _ in range(100):
        doorbell = Doorbell("memory://")
        streams = Streams(database, doorbell)
        await doorbell.start()
        await streams.start()
        viewer = streams.follow(org, stream, 0)
        await anext(viewer)
        doorbell.ring(frozenset({stream}))
        for _ in range(chance.randint(0, 8)):
            await asyncio.sleep(0)
        await asyncio.wait_for(streams.stop(), 2)
        await doorbell.stop()
        await viewer.aclose()
    await database.close()
