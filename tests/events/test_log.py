"""Numbering, reading and what a batch may hold."""

import asyncio
import math

import pytest

from app.core import ids
from app.core.database import Database
from app.events import log
from app.events.log import Fenced, NewEvent
from tests.events.tools import (
    append,
    driver,
    everything,
    head,
    new_stream,
    notes,
    numbers,
    seeded,
    until,
)
from tests.support import Tenant


async def test_many_concurrent_writers_get_one_dense_sequence(database: Database, org: str) -> None:
    chance = seeded()
    streams = [await new_stream(database, org) for _ in range(4)]
    written: dict[str, list[tuple[int, list[str]]]] = {stream: [] for stream in streams}

    async def writer(name: int) -> None:
        for turn in range(12):
            stream = chance.choice(streams)
            words = [f"{name}/{turn}/{n}" for n in range(chance.randint(1, 40))]
            events = [NewEvent("message", {"word": word}) for word in words]
            async with database.transaction(org) as session:
                last = await log.append(session, stream, events)
            written[stream].append((last, words))

    await asyncio.gather(*(writer(name) for name in range(16)))
    for stream in streams:
        found = await everything(database, org, stream)
        assert numbers(found) == list(range(1, len(found) + 1))
        assert len(found) == sum(len(words) for _, words in written[stream])
        for last, words in written[stream]:  # each batch is together, and in its order
            batch = found[last - len(words) : last]
            assert [event.data["word"] for event in batch] == words
        assert await head(database, org, stream) == len(found)


async def test_an_empty_batch_is_a_mistake_of_the_caller(database: Database, org: str) -> None:
    """Not Fenced, which would make a worker stop."""
    stream = await new_stream(database, org)
    async with database.transaction(org) as session:
        with pytest.raises(ValueError, match="at least one"):
            await log.append(session, stream, [], epoch=0)
    assert await head(database, org, stream) == 0


async def test_a_rolled_back_batch_leaves_no_hole(database: Database, org: str) -> None:
    stream = await new_stream(database, org)

    class Changed(Exception):
        pass

    async def doomed() -> None:
        async with database.transaction(org) as session:
            await log.append(session, stream, notes(range(5)))
            await asyncio.sleep(0.01)
            raise Changed

    for turn in range(5):
        results = await asyncio.gather(
            doomed(), append(database, org, stream, 3), doomed(), return_exceptions=True
        )
        assert [type(result) for result in results] == [Changed, int, Changed]
        assert results[1] == 3 * (turn + 1)
    assert numbers(await everything(database, org, stream)) == list(range(1, 16))


async def test_a_reader_during_slow_commits_never_misses_an_event(
    database: Database, worker_database: Database, org: str
) -> None:
    chance = seeded()
    stream = await new_stream(database, org)
    writing = True
    seen: list[int] = []

    async def writer() -> None:
        for _ in range(6):
            async with worker_database.transaction(org) as session:
                await asyncio.sleep(chance.random() * 0.01)
                await log.append(session, stream, notes(range(chance.randint(1, 4))))
                await asyncio.sleep(chance.random() * 0.02)  # numbered, but not committed yet

    async def reader() -> None:
        while True:
            over = not writing
            async with database.transaction(org) as session:
                found = await log.read(session, stream, seen[-1] if seen else 0, 7)
            seen.extend(numbers(found))
            if over and not found:
                return

    reading = asyncio.create_task(reader())
    await asyncio.gather(*(writer() for _ in range(10)))
    writing = False
    await reading
    assert seen == list(range(1, await head(database, org, stream) + 1))


async def test_nothing_uncommitted_is_read(database: Database, org: str) -> None:
    stream = await new_stream(database, org)
    async with database.transaction(org) as session:
        assert await log.append(session, stream, notes([1])) == 1
        assert await everything(database, org, stream) == []
        assert await head(database, org, stream) == 0
    assert await head(database, org, stream) == 1


async def test_numbers_that_are_none_become_null(database: Database, org: str) -> None:
    stream = await new_stream(database, org)
    data = {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}, 4: "key"}
    latest = {"loss": math.nan}
    async with database.transaction(org) as session:
        await log.append(session, stream, [NewEvent("metrics", data)], latest=latest)  # type: ignore[arg-type]
    assert (await everything(database, org, stream))[0].data == {
        "a": None,
        "b": [None, 1.5],
        "c": {"d": None},
        "4": "key",
    }
    async with database.transaction(org) as session:
        assert (await log.heads(session, [stream]))[stream].latest == {"loss": None}


async def test_text_of_every_kind_comes_back_as_it_went_in(database: Database, org: str) -> None:
    stream = await new_stream(database, org)
    text = 'ё 😀 \\u "quotes" :colon {braces} %s $1 \t\n' + "x" * 100_000
    async with database.transaction(org) as session:
        await log.append(session, stream, [NewEvent("message", {"message": text})])
    assert (await everything(database, org, stream))[0].data == {"message": text}


async def test_a_nul_in_a_text_does_not_stop_the_log(database: Database, org: str) -> None:
    stream = await new_stream(database, org)
    async with database.transaction(org) as session:
        message = "a\0b \\u0000 \\\0 \0\0"
        await log.append(session, stream, [NewEvent("message", {"message": message})])
    found = (await everything(database, org, stream))[0].data["message"]
    assert found == message.replace("\0", "\ufffd")


async def test_a_missing_stream_takes_nothing(database: Database, org: str) -> None:
    missing = ids.new("stream")
    with pytest.raises(Fenced):
        await append(database, org, missing)
    assert await everything(database, org, missing) == []


async def test_another_tenants_stream_takes_nothing(
    database: Database, org: str, other_tenant: Tenant
) -> None:
    theirs = await new_stream(database, other_tenant.actor.org_id)
    with pytest.raises(Fenced):
        await append(database, org, theirs)
    assert await head(database, other_tenant.actor.org_id, theirs) == 0
    assert await everything(database, org, theirs) == []


async def test_latest_is_the_newest_given_and_stays_when_none_is(
    database: Database, org: str
) -> None:
    stream = await new_stream(database, org)
    for given, expected in [(None, None), ({"n": 1}, {"n": 1}), (None, {"n": 1}), ({}, {})]:
        async with database.transaction(org) as session:
            await log.append(session, stream, notes([0]), latest=given)
        async with database.transaction(org) as session:
            assert (await log.heads(session, [stream]))[stream].latest == expected


async def test_read_many_reads_each_stream_after_its_own_position(
    database: Database, org: str, other_tenant: Tenant
) -> None:
    theirs = await new_stream(database, other_tenant.actor.org_id)
    await append(database, other_tenant.actor.org_id, theirs, 4)
    streams = [await new_stream(database, org) for _ in range(3)]
    for stream, count in zip(streams, (10, 0, 5), strict=True):
        if count:
            await append(database, org, stream, count)
    missing = ids.new("stream")
    after = {streams[0]: 3, streams[1]: 0, streams[2]: 5, theirs: 1, missing: 0}
    async with database.transaction(None) as session:
        found = await log.read_many(await driver(session), after, 5)
    assert {stream: numbers(events) for stream, events in found.items()} == {
        streams[0]: [4, 5, 6, 7, 8],
        streams[1]: [],
        streams[2]: [],
        theirs: [2, 3, 4],
        missing: [],
    }
    assert {event.stream_id for event in found[theirs]} == {theirs}


async def test_the_streams_named_at_the_door_do_not_stay_open(database: Database, org: str) -> None:
    stream = await new_stream(database, org)
    await append(database, org, stream)
    async with database.transaction(None) as session:
        assert await log.read(session, stream, 0, 5) == []
        found = await log.read_many(await driver(session), {stream: 0}, 5)
        assert numbers(found[stream]) == [1]
        assert await log.read(session, stream, 0, 5) == []  # the same transaction, not by the door


async def test_pages_of_a_read_join_without_seam(database: Database, org: str) -> None:
    stream = await new_stream(database, org)
    await append(database, org, stream, 1_203)
    got: list[int] = []

    async def page() -> bool:
        async with database.transaction(org) as session:
            found = await log.read(session, stream, len(got), 100)
        got.extend(numbers(found))
        return not found

    await until(page)
    assert got == list(range(1, 1_204))
