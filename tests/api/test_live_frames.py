"""RFC 6455, frame by frame: what is broken closes the connection with a code, on both paths."""

import asyncio
import json

import pytest

from tests.api.live import Server
from tests.bench.viewers import _UPGRADE
from tests.support import Tenant


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
        (b"\x01\x81\0\0\0\0{\x81\x81\0\0\0\0}", 1002),  # a message within another
        (b"\x01\x81\0\0\0\0{\x80\xff" + (2**24).to_bytes(8, "big") + b"\0\0\0\0", 1009),
        (b"\x01\x81\0\0\0\0\xc3\x80\x81\0\0\0\0x", 1007),  # a character torn, and spoilt
        (b"\x89\xfe\0\x7e\0\0\0\0" + b"x" * 126, 1002),  # a ping too long
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),  # 1005 is never sent
        (b"\x88\x83\0\0\0\0\x03\xe8\xff", 1007),
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
