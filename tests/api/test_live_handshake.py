"""The opening handshake, byte by byte, on both paths: they open and refuse alike."""

import asyncio
import json
from contextlib import suppress

import pytest

from app.core.settings import Settings
from tests.api.live import Server, serving
from tests.bench.viewers import frame
from tests.support import Tenant

HELLO = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "graphql-transport-ws",
}
PROOF = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # of this key, as in RFC 6455
PING = frame(b'{"type":"ping"}')


def request(path: str = "/graphql", more: str = "", **changed: str | None) -> bytes:
    """A handshake; headers are named with `_` for `-`, and None leaves one out."""
    headers = HELLO | {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [f"{name}: {value}\r\n" for name, value in headers.items() if value is not None]
    return f"GET {path} HTTP/1.1\r\n{''.join(lines)}{more}\r\n".encode()


class Answer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = 0
        self.headers: dict[bytes, bytes] = {}

    async def read(self) -> "Answer":
        head = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        self.status = int(head[0].split()[1])
        for line in filter(None, head[1:]):
            name, _, value = line.partition(b":")
            self.headers[name.lower()] = value.strip()
        return self

    async def frame(self) -> tuple[int, bytes]:
        kind, size = await self.reader.readexactly(2)
        return kind, await self.reader.readexactly(size)


async def ask(server: Server, *pieces: bytes) -> Answer:
    port = int(server.url.rpartition(":")[2])
    async with asyncio.timeout(10):
        answer = Answer(*await asyncio.open_connection("127.0.0.1", port))
        for piece in pieces:
            with suppress(ConnectionError):
                answer.writer.write(piece)
                await answer.writer.drain()
            await asyncio.sleep(0)
        return await answer.read()


async def test_a_handshake_opens_the_connection(live: Server) -> None:
    answer = await ask(live, request())
    assert answer.status == 101
    assert answer.headers[b"sec-websocket-accept"] == PROOF
    assert answer.headers[b"sec-websocket-protocol"] == b"graphql-transport-ws"
    assert b"sec-websocket-extensions" not in answer.headers
    answer.writer.write(PING)
    assert await answer.frame() == (0x81, b'{"type":"pong"}')
    answer.writer.close()


async def test_it_may_come_in_any_pieces(live: Server) -> None:
    whole = request()
    for pieces in (
        [bytes([byte]) for byte in whole],
        [whole[:-1], whole[-1:]],
        [whole[:-3], whole[-3:]],
        [whole[:20], whole[20:]],
    ):
        answer = await ask(live, *pieces)
        assert answer.status == 101
        answer.writer.close()


@pytest.mark.parametrize("cut", [0, 1, 3, 40, -1])
async def test_what_comes_right_behind_it_is_heard(live: Server, tenant: Tenant, cut: int) -> None:
    init = json.dumps({"type": "connection_init", "payload": {"apiKey": tenant.key}}).encode()
    whole = request() + frame(init) + PING
    at = len(request()) + cut if cut >= 0 else len(whole)
    answer = await ask(live, whole[:at], whole[at:])
    assert answer.status == 101
    heard = [await asyncio.wait_for(answer.frame(), 5) for _ in range(2)]
    assert [json.loads(text)["type"] for _, text in heard] == ["connection_ack", "pong"]
    answer.writer.close()


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (request(Sec_WebSocket_Key=None), 400),
        (request(Sec_WebSocket_Key="c2hvcnQ="), 400),
        (request(Sec_WebSocket_Key="not base64, not at all!!"), 400),
        (request(more="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400),
        (request(Sec_WebSocket_Version=None), 426),
        (request(Sec_WebSocket_Version="8"), 426),
        (request(more="Sec-WebSocket-Version: 13\r\n"), 426),
        (request(more="x-long: " + "x" * 100_000 + "\r\n"), 431),
        (request(more="".join(f"x-{n}: y\r\n" for n in range(20_000))), 431),
        (request(path="/nowhere"), 403),
        (b"GET /graphql HTTP/banana\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", 400),  # TLS
    ],
    ids=lambda value: repr(value[-70:]) if isinstance(value, bytes) else None,
)
async def test_what_is_no_handshake_is_refused_and_closed(
    live: Server, wrong: bytes, status: int
) -> None:
    answer = await ask(live, wrong)
    assert answer.status == status
    if status == 426:
        assert answer.headers[b"sec-websocket-version"] == b"13"
    with suppress(ConnectionError):  # what was not read any more makes a reset of the close
        await asyncio.wait_for(answer.reader.read(), 5)
    answer.writer.close()


@pytest.mark.parametrize(
    ("offered", "code"),
    [
        ("graphql-ws,graphql-transport-ws", None),
        ("graphql-transport-ws , other", None),
        (["other", "graphql-transport-ws"], None),
        ("graphql-ws", 4406),
        ("Graphql-Transport-WS", 4406),
        (None, 4406),
    ],
)
async def test_sub_protocols(live: Server, offered: str | list[str] | None, code: int) -> None:
    if isinstance(offered, list):
        lines = "".join(f"Sec-WebSocket-Protocol: {one}\r\n" for one in offered)
        answer = await ask(live, request(more=lines, Sec_WebSocket_Protocol=None))
    else:
        answer = await ask(live, request(Sec_WebSocket_Protocol=offered))
    assert answer.status == 101
    if code is None:
        assert answer.headers[b"sec-websocket-protocol"] == b"graphql-transport-ws"
    else:
        kind, words = await answer.frame()
        assert (kind, int.from_bytes(words[:2], "big")) == (0x88, code)
    answer.writer.close()


@pytest.mark.parametrize("path", ["direct", "asgi"])
async def test_which_pages_may_open_one(settings: Settings, database_url: str, path: str) -> None:
    friendly = settings.model_copy(update={"allowed_origins": ["https://friend.example"]})
    async with serving(friendly, database_url, path) as server:
        for headers, status in (
            ({}, 101),
            ({"Origin": "http://localhost"}, 101),
            ({"Origin": "https://friend.example"}, 101),
            ({"Origin": "HTTPS://Friend.Example:443"}, 101),
            ({"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "same-origin"}, 101),
            ({"Origin": "https://elsewhere.example"}, 403),
            ({"Origin": "https://friend.example.elsewhere.example"}, 403),
            ({"Origin": "null"}, 403),
        ):
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            answer = await ask(server, request(more=lines))
            assert answer.status == status, headers
            answer.writer.close()
