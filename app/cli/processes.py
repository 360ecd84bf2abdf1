"""Composition of the processes: the database they share, the API, the worker, and their keeper."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from app.accounts import service as accounts
from app.api.graphql.live.direct import LiveProtocol
from app.api.server import Server
from app.core import migrations
from app.core.database import Database
from app.core.egress import Egress
from app.core.errors import Unavailable
from app.core.postgres import EmbeddedPostgres
from app.core.secrets import api_key_pepper
from app.core.settings import Settings
from app.main import create_app
from app.worker.loop import Worker

log = logging.getLogger(__name__)

_RESTART_AFTER = 1.0
_GRACE = 90.0
_START_FAILED = 3
_START_WITHIN = 60.0


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


def serve(settings: Settings, url: str) -> None:
    """The API, until it is told to stop."""
    config = uvicorn.Config(
        create_app(settings, url),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws=LiveProtocol,
        ws_max_size=settings.max_body_bytes,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=10,
        access_log=False,
        log_config=None,
        server_header=False,
    )
    server = Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(_START_FAILED)


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
    """Run API and worker for as long as `work(url, key of the owner)` takes; returns its status."""
    url = f"http://{settings.host}:{settings.port}"
    keeper = Keeper()
    keeping = asyncio.create_task(keeper.run())
    try:
        async with asyncio.timeout(_START_WITHIN):
            await _ready(url)
        return await work(url, (settings.data_dir / "owner-key").read_text().strip())
    finally:
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


@dataclass
class _Child:
    name: str
    process: Any = None


class Keeper:
    """Runs the API and the worker as processes of their own, and starts again what dies."""

    def __init__(self, names: tuple[str, ...] = ("serve", "work")) -> None:
        self._children = [_Child(name) for name in names]
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until a signal: then the children are stopped in order, and waited for."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        await asyncio.gather(*(self._keep(child) for child in self._children))

    def stop(self) -> None:
        self._stopping.set()

    async def _keep(self, child: _Child) -> None:
        while not self._stopping.is_set():
            child.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "app.cli.main",
                child.name,
                env=os.environ | {"LUTHIER_KEEPER_PID": str(os.getpid())},
            )
            ended = asyncio.create_task(child.process.wait())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if self._stopping.is_set():
                await self._stop(child, ended)
                return
            log.error("%s ended with status %s; starting it again", child.name, ended.result())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RESTART_AFTER):
                    await self._stopping.wait()

    async def _stop(self, child: _Child, ended: "asyncio.Task[int]") -> None:
        with contextlib.suppress(ProcessLookupError):
            child.process.terminate()
        done, _ = await asyncio.wait({ended}, timeout=_GRACE)
        if not done:
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()
            await ended


def follow_keeper() -> None:
    """End when the keeper does, however it ends. Polls, which works everywhere."""
    keeper = os.environ.get("LUTHIER_KEEPER_PID")
    if keeper is None:
        return

    def watch() -> None:
        while os.getppid() == int(keeper):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="keeper-watch").start()
