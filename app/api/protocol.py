"""HTTP and WebSockets as uvicorn speaks them, and what it leaves undone: a client that takes
nothing any more is cut, and what comes right behind a WebSocket's handshake is not lost."""

import asyncio
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.api.graphql.live import wire

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

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
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
