"""Rings: after the commit, few, and heard again after every loss."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.core import ids
from app.core.database import Database
from app.events import log
from app.events.doorbell import Doorbell
from tests.events.exchanges import Exchange, postgres_exchange, redis_exchange
from tests.events.tools import Rings, append, head, new_stream, notes, ringing, until


@pytest.fixture(params=["postgres", "redis"])
async def exchange(request: pytest.FixtureRequest) -> AsyncIterator[Exchange]:
    """What carries the rings of several processes."""
    opened = (
        redis_exchange(request.getfixturevalue("redis_server"))
        if request.param == "redis"
        else postgres_exchange(request.getfixturevalue("database_url"))
    )
    async with opened as found:
        yield found


@pytest.fixture(params=["postgres", "redis", "unix", "memory"])
async def ringing_database(
    request: pytest.FixtureRequest, database_url: str
) -> AsyncIterator[tuple[Database, Rings]]:
    """A database whose commits ring a doorbell, and what that one was heard to say."""
    url = {"postgres": database_url, "memory": "memory://"}.get(request.param)
    if url is None:
        server = request.getfixturevalue("redis_server")
        url = server.url if request.param == "redis" else server.unix_url
    doorbell = Doorbell(url)
    database = Database(database_url, "luthier_app", 5)
    database.after_commit = doorbell.ring
    async with ringing(doorbell) as rings:
        yield database, rings
    await database.close()


@asynccontextmanager
async def _pair(url: str) -> AsyncIterator[tuple[Doorbell, Doorbell, Rings]]:
    """A process that rings, another one that hears."""
    sender, hearer = Doorbell(url), Doorbell(url)
    async with ringing(sender), ringing(hearer) as rings:
        yield sender, hearer, rings


async def _silence() -> None:
    await asyncio.sleep(0.25)


async def test_a_commit_rings_for_what_it_appended_to(
    ringing_database: tuple[Database, Rings], org: str
) -> None:
    database, rings = ringing_database
    first, second, untouched = [await new_stream(database, org) for _ in range(3)]
    async with database.transaction(org) as session:
        await log.append(session, first, notes([1]))
        await log.append(session, second, notes([1]))
        await log.append(session, first, notes([2]))
    await until(lambda: {first, second} <= set(rings.heard))
    await _silence()
    assert sorted(rings.heard) == sorted([first, second])
    assert untouched not in rings.heard
    assert rings.gaps == 0


async def test_the_ring_comes_after_the_commit(
    ringing_database: tuple[Database, Rings], database: Database, org: str
) -> None:
    """Whoever reads on hearing it finds the event."""
    ringer, rings = ringing_database
    stream = await new_stream(database, org)
    for turn in range(1, 11):
        async with ringer.transaction(org) as session:
            await log.append(session, stream, notes([turn]))
            await asyncio.sleep(0.03)
            assert len(rings.heard) == turn - 1
        await until(lambda turn=turn: len(rings.heard) >= turn)
        assert await head(database, org, stream) == turn


async def test_a_rollback_rings_nothing(ringing_database: tuple[Database, Rings], org: str) -> None:
    database, rings = ringing_database
    stream = await new_stream(database, org)

    async def doomed() -> None:
        async with database.transaction(org) as session:
            await log.append(session, stream, notes([1]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await doomed()
    async with database.transaction(org) as session:  # nor does reading
        await log.read(session, stream, 0, 1)
    await _silence()
    assert rings.heard == []


async def test_a_burst_of_commits_makes_few_rings(
    ringing_database: tuple[Database, Rings], org: str
) -> None:
    database, rings = ringing_database
    streams = [await new_stream(database, org) for _ in range(5)]
    started = time.monotonic()
    for turn in range(200):
        await append(database, org, streams[turn % 5])
    took = time.monotonic() - started
    await until(lambda: set(rings.heard) == set(streams))
    await _silence()
    assert rings.calls <= took / 0.02 + 2


async def test_one_process_hears_what_another_commits(exchange: Exchange) -> None:
    async with _pair(exchange.url) as (sender, _, rings):
        sent = {ids.new("stream") for _ in range(10)}
        sender.ring(frozenset(sent))
        await until(lambda: set(rings.heard) == sent)


async def test_more_streams_than_one_message_holds_are_all_rung_for(exchange: Exchange) -> None:
    async with _pair(exchange.url) as (sender, _, rings):
        sent = {ids.new("stream") for _ in range(2_000)}  # some 57,000 bytes
        sender.ring(frozenset(sent))
        await until(lambda: len(rings.heard) >= 2_000)
        assert set(rings.heard) == sent
        assert 8 <= rings.calls <= 10


async def test_a_listener_that_was_cut_off_comes_back_and_says_gap(exchange: Exchange) -> None:
    doorbell = Doorbell(exchange.url)
    async with ringing(doorbell) as rings:
        for turn in range(1, 4):
            listening = await exchange.listeners()
            assert len(listening) == 1
            await exchange.cut(listening)
            await until(lambda turn=turn: rings.gaps >= turn)
            stream = ids.new("stream")
            doorbell.ring(frozenset({stream}))
            await until(lambda stream=stream: stream in rings.heard)
        assert rings.gaps == 3


async def test_a_listener_that_is_cut_off_while_it_rings_misses_nothing_unsaid(
    exchange: Exchange,
) -> None:
    """Every stream rung for is heard, or a gap is said after it: so a reader looks in any case."""
    async with _pair(exchange.url) as (sender, _, rings):
        listening = await exchange.listeners()
        unheard: set[str] = set()
        for turn in range(60):
            stream = ids.new("stream")
            unheard.add(stream)
            sender.ring(frozenset({stream}))
            if turn == 20:
                await exchange.cut(listening)  # both processes' listeners
            await asyncio.sleep(0.025)
        missed = unheard - set(rings.heard)
        await until(lambda: rings.gaps == 1)
        assert len(missed) < 40  # it did come back


async def test_a_publisher_that_was_cut_off_rings_again(exchange: Exchange) -> None:
    async with _pair(exchange.url) as (sender, _, rings):
        publishing = await exchange.senders()
        assert publishing
        await exchange.cut(publishing)

        stream = ids.new("stream")

        async def heard() -> bool:  # the first ring may be lost with the connection
            sender.ring(frozenset({stream}))
            await asyncio.sleep(0.05)
            return stream in rings.heard

        await until(heard, within=3)
        assert rings.gaps == 0


async def test_a_message_from_elsewhere_on_the_channel_does_no_harm(exchange: Exchange) -> None:
    doorbell = Doorbell(exchange.url)
    async with ringing(doorbell) as rings:
        for message in ("", ",,,", "ё" * 2_000, "*"):
            await exchange.say(message)
        stream = ids.new("stream")
        doorbell.ring(frozenset({stream}))
        await until(lambda: stream in rings.heard)
        assert rings.gaps == 1


async def test_stopping_leaves_no_connection_behind(exchange: Exchange) -> None:
    async with ringing(Doorbell(exchange.url)):
        assert len(await exchange.listeners()) == 1
        assert len(await exchange.senders()) == 1

    async def gone() -> bool:
        return not (await exchange.listeners() | await exchange.senders())

    await until(gone)
