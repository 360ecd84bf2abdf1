"""The load: raw sockets that subscribe and count frames, in a process of their own.

Reads one line of JSON that says whom to connect (`Load`), answers `ready`; at each further line it
reports what came since the last one, as JSON.
"""

import asyncio
import json
import resource
import sys
import time
from typing import Any

import uvloop

_AT_ONCE = 64
_SAMPLED = 40  # viewers whose frames are looked into
_PING, _PONG = 0x89, b"\x8a\x80\0\0\0\0"
_UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)


def frame(text: bytes) -> bytes:
    """Masked with zeros."""
    size = len(text)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + text


class Viewer(asyncio.Protocol):
    """`messages` are sent one after the other, each when the server has answered the one before."""

    def __init__(self, messages: list[bytes], sampled: bool) -> None:
        self.messages = messages
        self.frames = 0
        self.seen: list[tuple[int, float]] | None = [] if sampled else None
        self.lost = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._say()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the server refused"))

    def _say(self) -> None:
        if self.messages:
            self.transport.write(self.messages.pop(0))
        if not self.messages and not self.ready.done():
            self.ready.set_result(None)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 101"):
            _, _, data = data.partition(b"\r\n\r\n")
            self._say()
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, start = data[at + 2] << 8 | data[at + 3], at + 4
            if start + size > end:
                break
            kind, at = data[at], start + size
            if kind == _PING:
                self.transport.write(_PONG)
                continue
            if self.messages:  # the acknowledgement
                self._say()
                continue
            self.frames += 1
            if self.seen is not None and (place := data.find(b'"step":', start, at)) >= 0:
                number = int(data[place + 7 : data.index(b",", place)])
                self.seen.append((number, time.monotonic()))
        self._rest = data[at:]


def messages(load: dict[str, Any], number: int) -> list[bytes]:
    if load["bare"]:
        return [b"x"]
    variables = load["variables"][number % len(load["variables"])]
    query = load["query"]
    if load["different"]:
        query = query.replace("jobEvents", f"e{number}: jobEvents", 1)
    asked = {"query": query, "variables": variables}
    id = f"{number:08x}-8c6b-4c1e-9c55-2a2f3b7f1d10"
    init = {"type": "connection_init", "payload": {"apiKey": load["key"]}}
    subscribe = {"id": id, "type": "subscribe", "payload": asked}
    return [_UPGRADE, frame(json.dumps(init).encode()), frame(json.dumps(subscribe).encode())]


async def main() -> None:
    loop = asyncio.get_running_loop()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    load = json.loads(await lines.readline())
    found: list[Viewer] = []
    gate = asyncio.Semaphore(_AT_ONCE)

    async def connect(number: int) -> None:
        async with gate:
            viewer = Viewer(messages(load, number), number < _SAMPLED)
            await loop.create_connection(lambda: viewer, "127.0.0.1", load["port"])
            await viewer.ready
            found.append(viewer)

    await asyncio.gather(*(connect(number) for number in range(load["count"])))
    print("ready", flush=True)  # noqa: T201
    while await lines.readline():
        counts = [viewer.frames for viewer in found]
        seen = [one for viewer in found for one in viewer.seen or []]
        lost = sum(viewer.lost for viewer in found)
        report = {
            "frames": sum(counts),
            "fewest": min(counts),
            "most": max(counts),
            "lost": lost,
            "seen": seen,
        }
        for viewer in found:
            viewer.frames = 0
            if viewer.seen:
                viewer.seen.clear()
        print(json.dumps(report), flush=True)  # noqa: T201


if __name__ == "__main__":
    uvloop.run(main())
