"""The wire through ASGI: works on every server, at the price of two tasks per connection."""

import asyncio
from collections import deque

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from app.api.graphql.live.connection import Connection
from app.api.graphql.live.engine import Live
from app.api.graphql.live.origin import origin_allowed
from app.api.graphql.live.wire import FEW_WAITING, MOST_REASON, MOST_WAITING, PROTOCOL


class AsgiWire:
    """A bounded queue that one task empties, because `send` has to be awaited."""

    def __init__(self) -> None:
        self.full = False
        self.room = asyncio.Event()
        self.room.set()
        self.connection: Connection | None = None
        self.work = asyncio.current_task()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._closing: tuple[int, str] | None = None

    def publish(self, prefix: bytes, payload: bytes) -> bool:
        if self.full:
            return False
        self.send(b"%b%b}" % (prefix, payload))
        return True

    def send(self, message: bytes) -> None:
        if self._closing:
            return
        self._waiting.append(message)
        self._bytes += len(message)
        self._news.set()
        if self._bytes > MOST_WAITING and not self.full:
            self.full = True
            self.room.clear()
            if self.connection:
                self.connection.filled()

    def close(self, code: int, reason: str = "") -> None:
        self._closing = (code, reason.encode()[:MOST_REASON].decode(errors="ignore"))
        self.room.set()
        self._news.set()

    def abort(self) -> None:
        if self.work:
            self.work.cancel()

    async def pump(self, send: Send) -> None:
        """Until closed. The connection hears that it has drained while the rest is being sent."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                message = self._waiting.popleft()
                await send({"type": "websocket.send", "text": message.decode()})
                self._bytes -= len(message)
                if self.full and self._bytes < FEW_WAITING:
                    self.full = False
                    self.room.set()
                    if self.connection and not self._closing:
                        self.connection.drained()
            if self._closing:
                code, reason = self._closing
                await send({"type": "websocket.close", "code": code, "reason": reason})
                return


async def serve(live: Live, scope: Scope, receive: Receive, send: Send) -> None:
    """One WebSocket, from its handshake to its end."""
    await receive()
    headers = Headers(scope=scope)
    if not origin_allowed(headers.get("origin"), headers, live.origins):
        await send({"type": "websocket.close", "code": 1008})
        return
    if PROTOCOL not in scope["subprotocols"]:
        await send({"type": "websocket.accept"})
        await send(
            {"type": "websocket.close", "code": 4406, "reason": "Subprotocol not acceptable"}
        )
        return
    await send({"type": "websocket.accept", "subprotocol": PROTOCOL})
    wire = AsgiWire()
    connection = wire.connection = Connection(live, wire)
    pump = asyncio.create_task(wire.pump(send), name="live-pump")
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            if text is None:
                connection.close(4400, "WebSocket message type must be text")
            else:
                connection.receive(text)
            await wire.room.wait()  # one who does not listen is not heard
    except asyncio.CancelledError:
        pass  # aborted: the server drops what is left
    finally:
        connection.lost()
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
