"""A WebSocket protocol for uvicorn that writes results straight to the socket.

It serves `/graphql` for clients that speak graphql-transport-ws, without an ASGI task, queue or
`await` per connection; every other WebSocket goes to uvicorn's own class and takes the ASGI path.
No other file writes to a socket past ASGI.
"""

import asyncio
import logging
from typing import Any, cast

from uvicorn import Config
from uvicorn.server import ServerState

from app.api.graphql.live import frames
from app.api.graphql.live.engine import Live
from app.api.graphql.live.frames import Broken, Reader
from app.api.graphql.live.handshake import accepted
from app.api.graphql.live.socket import Socket
from app.api.graphql.live.wire import FEW_WAITING, MOST_REASON, MOST_WAITING, Result
from app.api.protocol import WebSocketProtocol

log = logging.getLogger(__name__)

_CLOSES_WITHIN = 5.0  # how long a client may take to answer a close frame


class LiveProtocol(asyncio.Protocol):
    """For uvicorn's setting `ws`. It is also the Wire of its connection."""

    __slots__ = (
        "_closing",
        "_heard",
        "_live",
        "_long",
        "_made_for",
        "_reader",
        "_share",
        "_siblings",
        "_socket",
        "_timer",
        "_transport",
        "full",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._made_for: tuple[Any, ...] | None = (config, server_state, app_state)
        self._siblings: set[Any] = server_state.connections
        self._live: Live | None = app_state.get("live")
        self._long: WebSocketProtocol | None = None
        self._socket: Socket | None = None
        self._reader: Reader | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._share = 0
        self._heard = True
        self._closing = False
        self.full = False

    # What uvicorn and the transport say

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            self._shake_hands(data)
            return
        self._heard = True
        for opcode, payload in self._reader.feed(data):
            self._hear(opcode, payload)
        if broken := self._reader.broken:
            self._break(broken)

    def eof_received(self) -> None:
        if self._long:
            self._long.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._long:
            self._long.connection_lost(exc)
        if self._timer:
            self._timer.cancel()
        self._siblings.discard(self)
        if self._socket:
            self._socket.lost()
            if self._live:
                self._live.pulse.remove(self, self._share)

    def pause_writing(self) -> None:
        if self._long:
            self._long.pause_writing()
        self.full = True
        if self._socket and not self._closing:
            self._transport.pause_reading()  # one who does not listen is not heard
            self._socket.filled()

    def resume_writing(self) -> None:
        if self._long:
            self._long.resume_writing()
        self.full = False
        if self._socket and not self._closing:
            self._transport.resume_reading()
            self._socket.drained()

    def shutdown(self) -> None:
        """The server stops. Clients come back, with their cursors, to whoever follows it."""
        if self._socket and not self._closing:
            self._socket.close(1012, "Service Restart")
        self._transport.close()

    def beat(self) -> None:
        """Time for a ping; whoever has not answered the last one is gone."""
        if self._closing or self.full:
            return
        if not self._heard:
            self.abort()
            return
        self._heard = False
        self._transport.write(frames.head(frames.PING, 0))

    # What the connection says

    def publish(self, prefix: bytes, result: Result) -> bool:
        if self.full:
            return False
        size = len(prefix)
        head = result.forms.get(size)
        if head is None:
            head = result.forms[size] = frames.head(frames.TEXT, size + len(result.ending))
        self._transport.write(head + prefix + result.ending)
        return True

    def send(self, message: bytes) -> None:
        if not self._closing:
            self._write(frames.TEXT, message)

    def close(self, code: int, reason: str = "") -> None:
        if self._closing:
            return
        words = reason.encode()[:MOST_REASON].decode(errors="ignore").encode()
        self._write(frames.CLOSE, code.to_bytes(2, "big") + words)
        self._end()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    # Inside

    def _shake_hands(self, request: bytes) -> None:
        if self._long:  # until the transport knows
            self._long.data_received(request)
            return
        assert self._made_for is not None  # noqa: S101 - as made
        config, state, app_state = self._made_for
        answer = accepted(request, self._live.origins) if self._live else None
        if answer is None or self._live is None:
            self._long = WebSocketProtocol(config, state, app_state)
            self._long.connection_made(self._transport)
            self._long.data_received(request)
            # uvicorn sets this protocol right after this call: give way to the other one then.
            asyncio.get_running_loop().call_soon(self._transport.set_protocol, self._long)
            return
        self._made_for = None
        self._reader = Reader(config.ws_max_size)
        self._siblings.add(self)
        self._transport.set_write_buffer_limits(MOST_WAITING, FEW_WAITING)
        self._transport.write(answer)
        self._socket = Socket(self._live, self)
        self._share = self._live.pulse.add(self)
        self._socket.opened()

    def _hear(self, opcode: int, payload: bytes) -> None:
        if opcode == frames.CLOSE:
            self._hear_close(payload)
        elif self._closing or self._socket is None:
            return
        elif opcode == frames.TEXT:
            try:
                self._socket.receive(payload)
            except UnicodeDecodeError:
                self._socket.close(1007, "not UTF-8")
        elif opcode == frames.PING:
            if self._socket.hears():
                self._write(frames.PONG, payload)
        elif opcode == frames.BINARY:
            self._socket.close(4400, "WebSocket message type must be text")

    def _hear_close(self, payload: bytes) -> None:
        if not self._closing:
            try:
                code = frames.closing(payload)
            except Broken as broken:
                self._break(broken)
                return
            if self._socket:
                self._socket.lost()
            self._write(frames.CLOSE, b"" if code == 1005 else payload[:2])
            self._end()
        self._transport.close()

    def _break(self, broken: Broken) -> None:
        if self._socket and not self._closing:
            self._socket.close(broken.code, broken.reason)
        self._transport.close()

    def _write(self, opcode: int, payload: bytes) -> None:
        self._transport.write(frames.head(opcode, len(payload)) + payload)

    def _end(self) -> None:
        """The close frame is on its way; what follows it is the client's answer, or nothing. One
        who does not take it is not waited for."""
        self._closing = True
        self._transport.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(_CLOSES_WITHIN, self._transport.abort)
