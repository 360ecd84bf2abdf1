"""Rings while what carries them is killed, hangs, or cannot be reached: late at most, and quiet."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.core import ids
from app.core.database import Database
from app.events import bell, postgres_bell, redis_bell
from app.events.doorbell import BroadcastRefused, Doorbell
from tests.events.exchanges import postgres_exchange
from tests.events.redis_server import PASSWORD, RedisServer
from tests.events.tools import (
    Rings,
    append,
    follow_to,
    new_stream,
    ringing,
    served,
    until,
)


@pytest.fixture
def mortal_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that the test may kill."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def redis_ringer(
    database_url: str, mortal_redis: RedisServer
) -> AsyncIterator[tuple[Database, Doorbell]]:
    """A worker's database, whose commits ring through that Redis."""
    doorbell = Doorbell(mortal_redis.url)
    database = Database(database_url, "luthier_worker", 5)
    database.after_commit = doorbell.ring
    await doorbell.start()
    yield database, doorbell
    await doorbell.stop()
    await database.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-open connections are noticed within half a second instead of ten."""
    for module in (postgres_bell, redis_bell):
        monkeypatch.setattr(module, "PROBE_EVERY", 0.2)
    for module in (bell, postgres_bell, redis_bell):
        monkeypatch.setattr(module, "ANSWER_WITHIN", 0.5)


async def _rung_for(sender: Doorbell, rings: Rings) -> None:
    """Until a ring of the one is heard by the other."""
    stream = ids.new("stream")

    async def heard() -> bool:
        sender.ring(frozenset({stream}))
        await asyncio.sleep(0.05)
        return stream in rings.heard

    await until(heard, within=20)


async def test_redis_dies_and_comes_back_while_viewers_watch(
    database_url: str,
    mortal_redis: RedisServer,
    redis_ringer: tuple[Database, Doorbell],
    org: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Events arrive all the same, by the readers' poll; then both sides join again."""
    database, sender = redis_ringer
    stream = await new_stream(database, org)
    with caplog.at_level(logging.DEBUG):
        async with served(database_url, mortal_redis.url) as streams:
            viewing = asyncio.create_task(follow_to(streams, org, stream, 0, 300))
            await until(lambda: streams.tails == 1)
            for turn in range(30):
                if turn == 10:
                    mortal_redis.kill()
                if turn == 20:
                    mortal_redis.start()
                await append(database, org, stream, 10)
                await asyncio.sleep(0.1)
            assert await asyncio.wait_for(viewing, 10) == list(range(1, 301))
        hearer = Doorbell(mortal_redis.url)
        async with ringing(hearer) as rings:
            await _rung_for(sender, rings)
            mortal_redis.kill()
            sender.ring(frozenset({stream}))
            mortal_redis.start()
            await until(lambda: rings.gaps >= 1, within=20)
            await _rung_for(sender, rings)
    said = caplog.text
    assert "ringing through Redis: trouble" in said
    assert "ringing through Redis: works again" in said
    assert PASSWORD not in said
    warnings = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert len(warnings) < 20, "an outage is told once, not at every try"


async def test_a_process_starts_without_its_redis(
    mortal_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    mortal_redis.kill()
    doorbell = Doorbell(mortal_redis.url)
    rings = Rings(doorbell)
    await doorbell.start()
    doorbell.ring(frozenset({"stream"}))
    await until(lambda: "ringing through Redis: trouble" in caplog.text)
    mortal_redis.start()
    await until(lambda: rings.gaps == 1, within=20)
    await _rung_for(doorbell, rings)
    await doorbell.stop()
    assert PASSWORD not in caplog.text


async def test_a_wrong_password_is_told_but_not_shown(
    mortal_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    doorbell = Doorbell(mortal_redis.url.replace(PASSWORD, "wr0ng-one"))
    await doorbell.start()
    doorbell.ring(frozenset({"stream"}))
    await until(lambda: "hearing rings through Redis: trouble" in caplog.text)
    await until(lambda: "ringing through Redis: trouble" in caplog.text)
    await doorbell.stop()
    assert "wr0ng-one" not in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_a_redis_that_hangs_is_left_and_joined_again(mortal_redis: RedisServer) -> None:
    """Its connections stay open, and nothing comes."""
    doorbell = Doorbell(mortal_redis.url)
    async with ringing(doorbell) as rings:
        mortal_redis.signal(signal.SIGSTOP)
        doorbell.ring(frozenset({"stream"}))  # must not hold up anything for ever
        await asyncio.sleep(1.5)
        assert rings.gaps == 0
        mortal_redis.signal(signal.SIGCONT)
        await until(lambda: rings.gaps >= 1, within=20)
        await _rung_for(doorbell, rings)


@pytest.mark.skipif(
    "LUTHIER_TEST_DATABASE_URL" in os.environ, reason="stops a process of the server's"
)
@pytest.mark.usefixtures("impatient")
async def test_a_postgres_connection_that_hangs_is_left_and_joined_again(
    database_url: str,
) -> None:
    async with postgres_exchange(database_url) as exchange:
        doorbell = Doorbell(database_url)
        async with ringing(doorbell) as rings:
            [listening] = await exchange.listeners()
            os.kill(listening, signal.SIGSTOP)
            try:
                await until(lambda: rings.gaps >= 1, within=20)
            finally:
                os.kill(listening, signal.SIGCONT)
            await _rung_for(doorbell, rings)


@pytest.mark.parametrize(
    "url",
    ["kafka://host", "redis:/host", "host:6379", "redis://:pa#rt@host", "redis://host/?no=such"],
)
def test_a_url_that_cannot_work_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(BroadcastRefused, match="LUTHIER_BROADCAST_URL") as refusal:
        Doorbell(url)
    assert url not in str(refusal.value)
    assert "rt@" not in str(refusal.value)
