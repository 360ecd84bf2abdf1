"""Viewers who stop reading, and those who vanish: they cost others nothing, and leave nothing."""

import asyncio
import gc
import json
import struct
from typing import Any

import pytest

from app.api.graphql.live import connection as connection_module
from app.api.graphql.live.wire import MOST_WAITING
from app.events.log import NewEvent
from app.events.types import EventType
from tests.api.live import EVENTS, Server, Story, ask, place, serving, watched
from tests.bench.viewers import _UPGRADE, frame
from tests.events.tools import until
from tests.support import Api, Tenant

_BIG = 100_000


def _waiting(connection: Any) -> int:
    """Bytes that the server holds for one connection."""
    wire = connection.wire
    if hasattr(wire, "_transport"):
        return int(wire._transport.get_write_buffer_size())
    return int(wire._bytes)


class Raw:
    """A client without a library that would read ahead."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @staticmethod
    async def open(server: Server, key: str | None, query: str, **variables: Any) -> "Raw":
        port = int(server.url.rpartition(":")[2])
        raw = Raw(*await asyncio.open_connection("127.0.0.1", port, limit=_BIG * 2))
        raw.writer.write(_UPGRADE)
        await raw.reader.readuntil(b"\r\n\r\n")
        raw.say({"type": "connection_init", "payload": {"apiKey": key}})
        assert (await raw.hear())["type"] == "connection_ack"
        payload = {"query": query, "variables": variables}
        raw.say({"id": "1", "type": "subscribe", "payload": payload})
        return raw

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

    def abort(self) -> None:
        self.writer.transport.abort()


async def _shout(story: Story, count: int) -> None:
    for _ in range(count):
        await story.append([NewEvent(EventType.MESSAGE, {"message": "x" * _BIG})])


async def test_one_who_stops_reading_is_a_position_and_comes_back_without_a_hole(
    live: Server, viewer: Api, story: Story
) -> None:
    count = 150
    slow = await Raw.open(live, viewer.key, EVENTS, j=story.id, a="0")
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
    await until(lambda: not live.engine.connections)


async def test_one_who_never_reads_again_is_cut(
    live: Server, viewer: Api, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "STALLED", 0.5)
    stuck = await Raw.open(live, viewer.key, EVENTS, j=story.id, a="0")
    await watched(live)
    await _shout(story, 120)
    await until(lambda: not live.engine.connections)
    await until(lambda: live.streams.tails == 0)
    stuck.abort()


async def test_a_thousand_who_vanish_leave_nothing(live: Server, viewer: Api, story: Story) -> None:
    steady = await Raw.open(live, viewer.key, EVENTS, j=story.id, a="0")
    await story.say()
    assert await steady.places(1) == [1]
    await asyncio.sleep(0.1)
    tasks = len(asyncio.all_tasks())
    for round in range(10):
        opening = [
            Raw.open(live, viewer.key, EVENTS, j=story.id, a="0" if n % 2 else None)
            for n in range(100)
        ]
        found = await asyncio.gather(*opening)
        if round % 2:
            await story.say()
        for raw in found:
            raw.abort()
    await until(lambda: len(live.engine.connections) == 1)
    await until(lambda: len(live.engine.executions) == 1)
    [group] = live.engine.groups.values()
    assert len(group.members) == 1
    assert await steady.places(6) == [2, 3, 4, 5, 6]
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    steady.abort()
    await until(lambda: live.streams.tails == 0)
    gc.collect()


@pytest.mark.parametrize(
    ("bytes_sent", "code"),
    [
        (b"\x81\x02{}", 1002),  # no mask
        (b"\xc1\x82\0\0\0\0{}", 1002),  # an extension nobody agreed on
        (b"\x83\x82\0\0\0\0{}", 1002),  # an unknown kind
        (b"\x09\x80\0\0\0\0", 1002),  # a ping in parts
        (b"\x80\x82\0\0\0\0{}", 1002),  # the rest of nothing
        (b"\x81\xff" + (10**9).to_bytes(8, "big") + b"\0\0\0\0", 1009),
        (b"\x81\x82\0\0\0\0\xff\xff", 1007),  # not UTF-8
        (b"\x82\x82\0\0\0\0{}", 4400),  # binary
        (b"\x81\x82\0\0\0\0{]", 4400),
        (b"\x88\x81\0\0\0\0x", 1002),  # half a code
        (b"\x88\x82\0\0\0\0\x03\xe8", 1000),
        (b"\x88\x80\0\0\0\0", None),
    ],
)
async def test_broken_frames_close_the_connection_with_a_code(
    live: Server, bytes_sent: bytes, code: int | None
) -> None:
    port = int(live.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(bytes_sent)
    async with asyncio.timeout(5):
        head = await reader.readexactly(2)
        assert head[0] == 0x88
        words = await reader.readexactly(head[1])
    assert (int.from_bytes(words[:2], "big") if words else None) == code
    writer.transport.abort()


async def test_messages_in_parts_and_pings_between_them(live: Server, tenant: Tenant) -> None:
    port = int(live.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    hello = json.dumps({"type": "connection_init", "payload": {"apiKey": tenant.key}}).encode()
    first, second = hello[:20], hello[20:]
    whole = b"\x01" + bytes((0x80 | len(first),)) + b"\0\0\0\0" + first
    whole += b"\x89\x82\x01\x02\x03\x04" + bytes((ord("h") ^ 1, ord("i") ^ 2))
    whole += b"\x80" + bytes((0x80 | len(second),)) + b"\0\0\0\0" + second
    for at in range(len(whole)):  # byte by byte
        writer.write(whole[at : at + 1])
        if not at % 10:
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert await reader.readexactly(4) == b"\x8a\x02hi"
        kind, size = await reader.readexactly(2)
        assert kind == 0x81
        assert json.loads(await reader.readexactly(size)) == {"type": "connection_ack"}
    writer.transport.abort()


async def test_a_client_that_answers_no_ping_is_cut(
    settings: Any, database_url: str, viewer: Api, story: Story
) -> None:
    async with serving(settings, database_url) as server:
        raw = await Raw.open(server, viewer.key, EVENTS, j=story.id)
        await watched(server)
        [connection] = server.engine.connections
        connection.wire.beat()  # type: ignore[attr-defined]
        connection.wire.beat()  # type: ignore[attr-defined]
        await until(lambda: not server.engine.connections)
        raw.abort()
