"""The server that carries the API: what uvicorn leaves to whoever runs it."""

import gc
import logging
import socket

import uvicorn
from starlette.applications import Starlette

log = logging.getLogger(__name__)

# What a request makes dies by reference counting, and what lives on was there at the start. With
# Python's own thresholds a page of jobs costs 5 % more.
_THRESHOLDS = (50_000, 20, 100)

_STALLED_MS = 30_000


class Server(uvicorn.Server):
    """Ends the streams before it waits for open answers: they would never end by themselves."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                _give_up_on_the_stalled(listener)
                log.info("ready on %s", listener.getsockname()[:2])
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        if isinstance(app, Starlette):
            app.state.drain()
        await super().shutdown(sockets)


def _give_up_on_the_stalled(listener: socket.socket) -> None:
    """Connections inherit it: one whose peer acknowledges nothing is dropped in time."""
    if hasattr(socket, "TCP_USER_TIMEOUT") and listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MS)
