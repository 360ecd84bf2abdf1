"""A way to the server that breaks: after some bytes each connection is reset, wherever that is."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_SOME = (1_500, 200, 900)  # bytes; 200 end within the handshakes


class Cutter:
    """Cuts the first `cuts` connections, and lets the others be."""

    def __init__(self, target: str, cuts: int) -> None:
        self._host, self._port = urlsplit(target).hostname, urlsplit(target).port
        self.cuts, self._random = cuts, random.Random(7)
        self.opened = 0
        self.left = asyncio.Event()
        """A client has ended a connection by itself."""
        self._open: set[asyncio.WriteTransport] = set()

    def cut(self) -> None:
        """All connections there are, now."""
        for transport in self._open:
            transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.opened = self.opened, self.opened + 1
        there, back = await asyncio.open_connection(self._host, self._port)
        most = int(_SOME[number % len(_SOME)] * self._random.uniform(0.5, 1)) + 1
        up = asyncio.create_task(_pass(reader, back))
        up.add_done_callback(lambda _: self.left.set())
        down = asyncio.create_task(_pass(there, writer, most if number < self.cuts else None))
        self._open.add(writer.transport)
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        self._open.remove(writer.transport)
        if number < self.cuts and down.done():
            writer.transport.abort()
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        for one in (writer, back):
            one.close()


async def _pass(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, most: int | None = None
) -> None:
    """Until there is no more, or so many bytes have passed."""
    with suppress(ConnectionError):
        while (most is None or most > 0) and (data := await source.read(65_536)):
            sink.write(data[:most])
            await sink.drain()
            if most is not None:
                most -= len(data)


@asynccontextmanager
async def cutting(target: str, cuts: int = 0) -> AsyncIterator[tuple[str, Cutter]]:
    """The URL to use instead, and what happens there."""
    cutter = Cutter(target, cuts)
    server = await asyncio.start_server(cutter.carry, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", cutter
    finally:
        server.close()
