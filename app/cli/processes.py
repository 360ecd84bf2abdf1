"""Composition of the processes: the database they share, the API, the worker, and their keeper."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn

from app.accounts import service as accounts
from app.api.graphql.live.direct import LiveProtocol
from app.api.protocol import HttpProtocol
from app.api.server import Server
from app.cli.keeper import Keeper, Part
from app.core import migrations
from app.core.database import Database
from app.core.egress import Egress
from app.core.errors import StartRefused, Unavailable
from app.core.postgres import EmbeddedPostgres
from app.core.secrets import api_key_pepper
from app.core.settings import Settings
from app.events.doorbell import BroadcastRefused, Doorbell, is_memory
from app.main import create_app
from app.worker.loop import Worker

log = logging.getLogger(__name__)

_API_GRACE = 8  # a service manager's usual patience is 10 s
_START_FAILED = 3
_START_WITHIN = 60.0
_INTERRUPTED = 130


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """The owner's URL. Without one in the settings: the embedded Postgres, started if it does not
    run, attached to if another process of ours runs it."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    embedded = EmbeddedPostgres(settings.data_dir, binaries=settings.pg_bin)
    embedded.start()
    try:
        yield embedded.url
    finally:
        embedded.stop()


async def prepare(settings: Settings, url: str) -> bool:
    """Bring the schema up to date; True when this was the first start."""
    await migrations.upgrade(url)
    database = Database(url, "luthier_app", 2)
    try:
        return await accounts.first_start(
            database, api_key_pepper(settings), settings.data_dir / "owner-key"
        )
    finally:
        await database.close()


def check_broadcast(settings: Settings, *, several: bool) -> None:
    """Refuse rings that would reach nobody, before anything is started. Raises BroadcastRefused.

    `several`: this very start makes more than one process.
    """
    if settings.broadcast_url is None:
        return
    url = settings.broadcast_url.get_secret_value()
    Doorbell(url)
    if not is_memory(url):
        return
    if several:
        raise BroadcastRefused(
            "LUTHIER_BROADCAST_URL=memory:// wakes one process only, and several would be started. "
            "Leave it unset to use the database, or name a Redis."
        )
    log.warning("memory:// wakes this process only: what others write is seen a second later")


def listen(settings: Settings) -> socket.socket:
    """A bound socket, which begins to listen when a server does: until one is ready, clients are
    refused. Raises StartRefused.

    Several servers share this one and whoever is free accepts. Of 500 WebSockets at once two got
    241 and 259, of 200 one after another 80 and 120; with a socket each (SO_REUSEPORT) it was 223
    and 277, 92 and 108. But when one dies, its sibling accepts what is waiting, which the kernel
    would reset; one that is busy is given less; and a second `luthier` on the port is refused.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise StartRefused(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror or error}. "
            "Choose another LUTHIER_HOST or LUTHIER_PORT."
        ) from error
    return listener


def serve(settings: Settings, url: str, listener: socket.socket | None = None) -> None:
    """The API in this process, until it is told to stop."""
    config = uvicorn.Config(
        create_app(settings, url),
        loop="uvloop",
        http=HttpProtocol,
        ws=LiveProtocol,
        ws_max_size=settings.max_body_bytes,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=_API_GRACE,
        access_log=False,
        log_config=None,
        server_header=False,
    )
    server = Server(config)
    # uvicorn drains and then raises the signal again: end as one who has done what it was told.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        server.run([listener or listen(settings)])
    if not server.started:
        sys.exit(_START_FAILED)


def keep(settings: Settings, *, worker: bool) -> Keeper:
    """The processes of this machine, not yet running: the API's on one port, and a worker.

    Raises StartRefused.
    """
    check_broadcast(settings, several=worker or settings.processes > 1)
    listener = listen(settings)
    parts = [Part("serve", listener)] * settings.processes
    if worker:
        parts.append(Part("work"))
    return Keeper(parts, grace(settings))


def grace(settings: Settings) -> float:
    """Seconds within which each process of ours has ended by itself once it was told to."""
    return max(_API_GRACE, settings.stop_grace_seconds) + 30


def work(settings: Settings, url: str) -> None:
    """The worker, until it is told to stop: then what runs is saved and handed back."""

    async def main() -> None:
        worker = Worker(settings, url)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.drain)
        await worker.run()

    asyncio.run(main())


async def beside(settings: Settings, work: Callable[[str, str], Awaitable[int]]) -> int:
    """Run API and worker for as long as `work(url, key of the owner)` takes; returns its status,
    or that of a Ctrl-C, which ends the work too."""
    url = f"http://{settings.host}:{settings.port}"
    keeper = keep(settings, worker=True)
    keeping = asyncio.create_task(keeper.run())

    async def once_ready() -> int:
        async with asyncio.timeout(_START_WITHIN):
            await _ready(url)
        return await work(url, (settings.data_dir / "owner-key").read_text().strip())

    working = asyncio.create_task(once_ready())
    try:
        await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else _INTERRUPTED
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        keeper.stop()
        await keeping


async def _ready(url: str) -> None:
    egress = Egress()
    try:
        while True:
            with contextlib.suppress(Unavailable):
                status, _ = await egress.get_json(f"{url}/readyz")
                if status == 200:
                    return
            await asyncio.sleep(0.1)
    finally:
        await egress.close()
