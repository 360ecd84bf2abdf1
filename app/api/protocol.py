"""HTTP and WebSockets as uvicorn speaks them, and what it leaves undone: a client that takes
nothing any more is cut, and what comes right behind a WebSocket's handshake is not lost."""

import asyncio
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from app.api.graphql.live import wire

_MOST_HEAD = 64 * 1024
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)

if TYPE_CHECKING:
    _Protocol = HttpToolsProtocol
else:
    _Protocol = object


class _Impatient(_Protocol):
    """Closing a connection waits until all was taken, for ever if need be; aborting does not."""

    _stalling: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        loop = asyncio.get_running_loop()
        self._stalling = loop.call_later(wire.STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        self._take_time()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_time()
        super().connection_lost(exc)

    def _take_time(self) -> None:
        if self._stalling:
            self._stalling.cancel()
            self._stalling = None


class HttpProtocol(_Impatient, HttpToolsProtocol):
    """For uvicorn's setting `http`."""

    _head = 0  # bytes of a head that has not ended yet

    def on_headers_complete(self) -> None:
        self._head = -1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head = 0
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._head >= 0:
            self._head += len(data)
            if self._head > _MOST_HEAD and b"\r\n\r\n" not in data[:_MOST_HEAD]:
                _refuse_head(self.transport)
                return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._should_upgrade():
                self._unsupported_upgrade_warning()
                return
            self.handle_websocket_upgrade()
            [length] = upgrade.args
            if rest := data[length:]:
                self.transport.get_protocol().data_received(rest)  # type: ignore[attr-defined]
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")


class WebSocketProtocol(_Impatient, WebSocketsSansIOProtocol):  # type: ignore[misc]
    """For uvicorn's setting `ws`, where `live.direct` is not wanted."""

    def handle_connect(self, event: Request) -> None:
        if event.headers.get_all("Sec-WebSocket-Version") == ["13"]:
            super().handle_connect(event)
            return
        refusal = self.conn.reject(426, "This server speaks version 13.")
        refusal.headers["Sec-WebSocket-Version"] = "13"
        self.conn.send_response(refusal)
        self.close_sent = self.handshake_complete = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def handle_parser_exception(self) -> None:
        if self.handshake_initiated:
            super().handle_parser_exception()
            return
        self.close_sent = self.handshake_complete = True
        _refuse_head(self.transport)  # what comes here is sound but for the size of a header


def _refuse_head(transport: asyncio.Transport) -> None:
    transport.write(_HEAD_TOO_LARGE)
    transport.close()
