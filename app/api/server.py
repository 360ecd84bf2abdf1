"""The server that carries the API: what uvicorn leaves to whoever runs it."""

import gc
import socket

import uvicorn
from starlette.applications import Starlette

# Young collections at uvicorn's ordinary rate cost a tenth of a page of jobs: most objects of a
# request die by reference counting, and what lives on was there at the start.
_THRESHOLDS = (20_000, 20, 50)


class Server(uvicorn.Server):
    """Ends the streams before it waits for open answers: they would never end by themselves."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        if isinstance(app, Starlette):
            app.state.drain()
        await super().shutdown(sockets)
