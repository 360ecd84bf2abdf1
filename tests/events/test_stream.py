"""Viewers: from history to live without gap or repeat."""

import asyncio
import random
import time
from contextlib import aclosing
from typing import Any

import pytest
from sqlalchemy import event

from app.core.database import Database
from app.events import stream as stream_module
from app.events.doorbell import Doorbell
from app.events.stream import BUFFER
from tests.events.tools import (
    append,
    come_and_go,
    follow_to,
    head,
    new_stream,
    numbers,
    process,
    seeded,
    served,
    until,
    write,
)


@pytest.mark.parametrize(("after", "first"), [(0, 1), (37, 38), (60, 61), (None, 61)])
async def test_a_viewer_gets_what_comes_after_its_position(
    database_url: str, ringer: Database, org: str, after: int | None, first: int
) -> None:
    stream = await new_stream(ringer, org)
    await append(ringer, org, stream, 60)
    async with served(database_url) as streams:
        viewing = asyncio.create_task(follow_to(streams, org, stream, after, 70))
        await until(lambda: streams.tails == 1)
        await asyncio.sleep(0.05)
        for _ in range(10):
            await append(ringer, org, stream)
        assert await viewing == list(range(first, 71))


async def test_an_event_reaches_its_viewers_at_once(
    database_url: str, ringer: Database, org: str
) -> None:
    stream = await new_stream(ringer, org)
    async with served(database_url) as streams:
        took = []
        async with aclosing(streams.follow(org, stream, 0)) as batches:
            for _ in range(10):
                await append(ringer, org, stream)
                started = time.monotonic()
                await anext(batches)
                took.append(time.monotonic() - started)
                await asyncio.sleep(0.03)
    assert sorted(took)[5] < stream_module.SAFETY_POLL / 4  # by the ring, not by the poll


async def test_viewers_that_come_and_go_while_events_are_written_get_each_exactly_once(
    database_url: str, ringer: Database, org: str
) -> None:
    chance, last = seeded(), 600
    stream = await new_stream(ringer, org)
    async with served(database_url) as one, served(database_url) as two:
        writing = asyncio.create_task(write(ringer, org, stream, last, chance, 0.02))
        viewers = [
            come_and_go([one, two], org, stream, last, random.Random(chance.random()), 0.01)
            for _ in range(50)
        ]
        for start, got in await asyncio.gather(*viewers):
            assert got == list(range(start + 1, last + 1))
        await writing


async def test_a_viewer_slower_than_the_buffer_is_served_from_the_log(
    database_url: str, ringer: Database, org: str
) -> None:
    total = BUFFER * 2 + 345
    stream = await new_stream(ringer, org)
    async with served(database_url) as streams:
        quick = asyncio.create_task(follow_to(streams, org, stream, 0, total))
        got: list[int] = []
        async with aclosing(streams.follow(org, stream, 0)) as batches:
            await append(ringer, org, stream)
            got += numbers(await anext(batches))
            while (left := total - await head(ringer, org, stream)) > 0:
                await append(ringer, org, stream, min(left, 128))
            await asyncio.wait_for(quick, 10)  # the slow one holds nobody up
            async for batch in batches:
                assert len(batch) <= stream_module.BATCH
                got += numbers(batch)
                if got[-1] == total:
                    break
        assert got == list(range(1, total + 1)) == quick.result()


async def test_a_burst_larger_than_the_buffer_arrives_whole(
    database_url: str, ringer: Database, org: str
) -> None:
    total = BUFFER * 2 + 1
    stream = await new_stream(ringer, org)
    async with served(database_url) as streams:
        viewers = [asyncio.create_task(follow_to(streams, org, stream, 0, total)) for _ in "123"]
        await until(lambda: streams.tails == 1)
        await append(ringer, org, stream, total)
        for got in await asyncio.gather(*viewers):
            assert got == list(range(1, total + 1))


async def test_no_tail_outlives_its_last_viewer(
    database_url: str, ringer: Database, org: str
) -> None:
    stream = await new_stream(ringer, org)
    await append(ringer, org, stream, 5)
    async with served(database_url) as streams:
        left = streams.follow(org, stream, 0)
        await anext(left)
        cancelled = [asyncio.create_task(follow_to(streams, org, stream, 0, 99)) for _ in range(9)]
        await asyncio.sleep(0.1)
        assert streams.tails == 1
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
        assert streams.tails == 1
        await left.aclose()
        assert streams.tails == 0
        never_begun = streams.follow(org, stream, 0)
        await never_begun.aclose()
        assert streams.tails == 0


async def test_a_thousand_viewers_cost_one_query_per_ring(
    database_url: str, ringer: Database, org: str
) -> None:
    stream = await new_stream(ringer, org)
    database = Database(database_url, "luthier_app", 5)
    statements: list[str] = []

    @event.listens_for(database.engine.sync_engine, "connect")
    def listen(connection: Any, _: object) -> None:
        connection.driver_connection.add_query_logger(lambda said: statements.append(said.query))

    async with process(database, Doorbell(database_url)) as streams:
        first = streams.follow(org, stream, 0)
        await append(ringer, org, stream)
        assert numbers(await anext(first)) == [1]
        viewing = [
            asyncio.create_task(follow_to(streams, org, stream, 1, 21)) for _ in range(1_000)
        ]
        await asyncio.sleep(0.2)
        statements.clear()
        for _ in range(20):
            await append(ringer, org, stream)
            await asyncio.sleep(0.03)
        for got in await asyncio.gather(*viewing):
            assert got == list(range(2, 22))
        assert 1 <= len(statements) <= 25
        asked = [statement for statement in statements if "read_streams" not in statement]
        assert len(asked) <= 2  # the driver's own, about types
        await first.aclose()
    await database.close()
