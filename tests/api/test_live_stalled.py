"""Viewers who stop reading, and those who vanish: they cost others nothing, and leave nothing."""

import asyncio
import json
import struct
from typing import Any, Self

import pytest

from app.api.graphql.live import wire
from app.api.graphql.live.outbox import Outbox
from app.api.graphql.live.wire import MOST_WAITING
from app.events.log import NewEvent
from app.events.types import EventType
from tests.api.live import EVENTS, Server, Story, ask, place, serving, watched
from tests.bench.viewers import _UPGRADE, frame
from tests.events.tools import until
from tests.support import Api

_BIG = 100_000


def _waiting(connection: Any) -> int:
    """Bytes that the server holds for one connection."""
    wire = connection.wire
    if isinstance(wire, Outbox):
        return wire._bytes
    return int(wire._transport.get_write_buffer_size())


class Raw:
    """A client without a library that would read ahead."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, server: Server, key: str | None, query: str, **variables: Any) -> Self:
        port = int(server.url.rpartition(":")[2])
        raw = cls(*await asyncio.open_connection("127.0.0.1", port, limit=_BIG * 2))
        await raw.subscribe(key or "", {"query": query, "variables": variables})
        return raw

    async def subscribe(self, key: str, payload: dict[str, Any]) -> None:
        raise NotImplementedError

    async def places(self, last: int) -> list[int]:
        """The numbers of the events to come, up to this one."""
        raise NotImplementedError

    def abort(self) -> None:
        self.writer.transport.abort()


class RawSocket(Raw):
    async def subscribe(self, key: str, payload: dict[str, Any]) -> None:
        self.writer.write(_UPGRADE)
        await self.reader.readuntil(b"\r\n\r\n")
        self.say({"type": "connection_init", "payload": {"apiKey": key}})
        assert (await self.hear())["type"] == "connection_ack"
        self.say({"id": "1", "type": "subscribe", "payload": payload})

    def say(self, message: dict[str, Any]) -> None:
        self.writer.write(frame(json.dumps(message).encode()))

    async def hear(self) -> Any:
        while True:
            kind, size = await self.reader.readexactly(2)
            if size == 126:
                [size] = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                [size] = struct.unpack("!Q", await self.reader.readexactly(8))
            text = await self.reader.readexactly(size)
            if kind == 0x81:
                return json.loads(text)

    async def places(self, last: int) -> list[int]:
        got: list[int] = []
        while not got or got[-1] < last:
            got.append(place((await self.hear())["payload"]["data"]["jobEvents"]["cursor"]))
        return got


class RawEvents(Raw):
    async def subscribe(self, key: str, payload: dict[str, Any]) -> None:
        body = json.dumps(payload)
        self.writer.write(
            "POST /graphql HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
            f"Content-Type: application/json\r\nX-API-Key: {key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        await self.reader.readuntil(b":\n\n")

    async def places(self, last: int) -> list[int]:
        got: list[int] = []
        while not got or got[-1] < last:
            line = await self.reader.readline()
            assert line, "the stream ended"
            if line.startswith(b"id: "):
                got.append(place(line[4:].decode()))
        return got


EITHER = pytest.mark.parametrize("raw", [RawSocket, RawEvents], ids=["socket", "events"])


async def _nothing_left(server: Server, before: set[Any]) -> None:
    """No connection, no socket of the server's but those it had before, no tail."""
    await until(lambda: not server.engine.connections)
    await until(lambda: _sockets(server) <= before)
    await until(lambda: server.streams.tails == 0)


def _sockets(server: Server) -> set[Any]:
    return set(server.running.server_state.connections)


async def _shout(story: Story, count: int) -> None:
    for _ in range(count):
        await story.append([NewEvent(EventType.MESSAGE, {"message": "x" * _BIG})])


@EITHER
async def test_one_who_stops_reading_is_a_position_and_comes_back_without_a_hole(
    live: Server, viewer: Api, story: Story, raw: type[Raw]
) -> None:
    before, count = _sockets(live), 150
    slow = await raw.open(live, viewer.key, EVENTS, j=story.id, a="0")
    async with viewer.socket() as quick:
        await ask(quick, "1", EVENTS, variables={"j": story.id, "a": "0"})
        await watched(live)
        shouting = asyncio.create_task(_shout(story, count))
        most = 0
        async with asyncio.timeout(30):
            async for result in quick.results():
                most = max(most, *(_waiting(c) for c in live.engine.connections))
                if place(result["jobEvents"]["cursor"]) == count:
                    break
        await shouting
        # One result may pass the bound before it is noticed, and a replay ends at it too.
        assert most < MOST_WAITING + 3 * _BIG
        assert sum(len(c.stalled) for c in live.engine.connections) == 1
        assert await asyncio.wait_for(slow.places(count), 20) == list(range(1, count + 1))
        await story.say()
        assert await asyncio.wait_for(slow.places(count + 1), 5) == [count + 1]
        await until(lambda: len(live.engine.executions) == 1)  # they share again
    slow.abort()
    await _nothing_left(live, before)


@EITHER
async def test_one_who_never_reads_again_is_cut(
    live: Server, viewer: Api, story: Story, monkeypatch: pytest.MonkeyPatch, raw: type[Raw]
) -> None:
    monkeypatch.setattr(wire, "STALLED", 0.5)
    before = _sockets(live)
    first = await raw.open(live, viewer.key, EVENTS, j=story.id, a="0")
    await watched(live)  # what begins with the first viewer of all has begun
    first.abort()
    await _nothing_left(live, before)
    tasks = len(asyncio.all_tasks())
    stuck = await raw.open(live, viewer.key, EVENTS, j=story.id, a="0")
    await watched(live)
    await _shout(story, 120)
    await _nothing_left(live, before)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    stuck.abort()


@EITHER
async def test_a_thousand_who_vanish_leave_nothing(
    live: Server, viewer: Api, story: Story, raw: type[Raw]
) -> None:
    before = _sockets(live)
    steady = await RawSocket.open(live, viewer.key, EVENTS, j=story.id, a="0")
    await story.say()
    assert await steady.places(1) == [1]
    await asyncio.sleep(0.1)
    tasks = len(asyncio.all_tasks())
    for round in range(10):
        opening = [
            raw.open(live, viewer.key, EVENTS, j=story.id, a="0" if n % 2 else None)
            for n in range(100)
        ]
        found = await asyncio.gather(*opening)
        if round % 2:
            await story.say()
        for one in found:
            one.abort()
    await until(lambda: len(live.engine.connections) == 1)
    await until(lambda: len(_sockets(live) - before) == 1)
    await until(lambda: len(live.engine.executions) == 1)
    [group] = live.engine.groups.values()
    assert len(group.members) == 1
    assert await steady.places(6) == [2, 3, 4, 5, 6]
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    steady.abort()
    await _nothing_left(live, before)


async def test_a_client_that_answers_no_ping_is_cut(
    settings: Any, database_url: str, viewer: Api, story: Story
) -> None:
    async with serving(settings, database_url) as server:
        raw = await RawSocket.open(server, viewer.key, EVENTS, j=story.id)
        await watched(server)
        [connection] = server.engine.connections
        connection.wire.beat()  # type: ignore[attr-defined]
        connection.wire.beat()  # type: ignore[attr-defined]
        await until(lambda: not server.engine.connections)
        raw.abort()
