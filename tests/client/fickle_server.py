"""A server of graphql-transport-ws that plays a scripted log and breaks in every way it knows."""

import asyncio
import contextlib
import http
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from app.client import Timing

PROTOCOL = Subprotocol("graphql-transport-ws")
KEY = "lut_test"
QUICK = Timing(
    connect=2, first_connect=3, retry_first=0.005, retry_most=0.05, ping_every=0.2, answer=5
)
COMES_BACK = (1000, 1001, 1011, 1012, 1013, 1014, 4408, 4500)


class Goodbye(Exception):
    """This connection is over."""


def log_of(length: int) -> list[dict[str, Any]]:
    """Events 1 … length; like the ledger, some repeat the cursor of the one before."""
    events = []
    seq = 0
    for number in range(1, length + 1):
        seq += number % 7 != 0 or number == 1
        events.append({"cursor": f"s{seq}", "number": number})
    return events


@dataclass
class FickleServer:
    """`trouble(step)` is called before everything it does, and may raise Goodbye."""

    log: list[dict[str, Any]]
    random: random.Random
    troubled: float = 0.0
    connections: int = 0
    asked_after: list[str | None] = field(default_factory=list)
    say: Callable[[ServerConnection], Any] | None = None

    async def answer(self, socket: ServerConnection) -> None:
        self.connections += 1
        with contextlib.suppress(Goodbye, ConnectionClosed):
            init = json.loads(await socket.recv())
            assert init == {"type": "connection_init", "payload": {"apiKey": KEY}}
            await self._trouble(socket)
            await socket.send('{"type":"connection_ack"}')
            ask = json.loads(await socket.recv())
            assert ask["type"] == "subscribe"
            after = ask["payload"]["variables"].get("after")
            self.asked_after.append(after)
            if self.say is not None:
                await self.say(socket)
            await self._play(socket, ask["id"], after)

    async def _play(self, socket: ServerConnection, id: str, after: str | None) -> None:
        await self._trouble(socket)
        for event in self._rest(after):
            if self.random.random() < 0.05:
                await socket.send('{"type":"ping"}')
            await socket.send(next_frame(id, {"stream": event}))
            await self._trouble(socket)
        await socket.send(json.dumps({"id": id, "type": "complete"}))

    def _rest(self, after: str | None) -> list[dict[str, Any]]:
        """What follows the *last* event with that cursor, as a dense log would have it."""
        if after in (None, "0"):
            return self.log
        last = max(i for i, event in enumerate(self.log) if event["cursor"] == after)
        return self.log[last + 1 :]

    async def _trouble(self, socket: ServerConnection) -> None:
        if self.random.random() >= self.troubled:
            return
        way = self.random.choice(("abort", "close", "close", "unavailable"))
        if way == "abort":
            await asyncio.sleep(0.002)  # let some of what was sent go out, in pieces as it may
            socket.transport.abort()
        elif way == "close":
            await socket.close(self.random.choice(COMES_BACK))
        else:
            busy = [{"message": "Try again.", "extensions": {"code": "UNAVAILABLE"}}]
            await socket.send(json.dumps({"id": "1", "type": "error", "payload": busy}))
        raise Goodbye

    def at_door(self, socket: ServerConnection, request: Request) -> Response | None:
        if self.random.random() < self.troubled / 2:
            return socket.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "starting\n")
        return None


def next_frame(id: str, data: dict[str, Any]) -> str:
    return json.dumps({"id": id, "type": "next", "payload": {"data": data}})


@asynccontextmanager
async def running(server: FickleServer, port: int = 0) -> AsyncIterator[str]:
    """Serve until the end of the block; gives the base URL."""
    async with serve(
        server.answer,
        "127.0.0.1",
        port,
        subprotocols=[PROTOCOL],
        process_request=server.at_door,
    ) as listening:
        yield url_of(listening)


def url_of(listening: Server) -> str:
    return f"http://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}"
