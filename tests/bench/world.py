"""A server process on a real database, running jobs, and processes to talk to by lines."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import uvicorn

from app.api.graphql.live.direct import LiveProtocol
from app.api.protocol import HttpProtocol, WebSocketProtocol
from app.api.server import Server
from app.cli import processes
from app.core.database import Database
from app.core.postgres import EmbeddedPostgres
from app.core.settings import Settings
from app.events import log
from app.events.doorbell import Doorbell
from app.events.log import NewEvent
from app.events.types import EventType
from app.main import create_app
from tests.jobs.rows import Rows
from tests.support import Api, Tenant, new_tenant

PORT = 18481
FLOOR_PORT = 18482
QUERY = """subscription Watch($j: ID!, $a: String) {
  jobEvents(jobId: $j, after: $a) { cursor type jobId level message at step data } }"""
_TEXT = "Loss went down a little."


class Child:
    """A Python module as a process, spoken to by lines."""

    def __init__(self, module: str, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | environment,
        )
        self._watched = psutil.Process(self._process.pid)

    @property
    def cpu(self) -> float:
        times = self._watched.cpu_times()
        return times.user + times.system

    @property
    def memory(self) -> int:
        return int(self._watched.memory_info().rss)

    def say(self, value: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        self._process.stdin.flush()

    async def hear(self, within: float = 120) -> bytes:
        assert self._process.stdout is not None
        return await asyncio.wait_for(asyncio.to_thread(self._process.stdout.readline), within)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)


def postgres_cpu(data_dir: Path) -> float:
    """Seconds of CPU that the server used, its ended processes included."""
    pid = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    keeper = psutil.Process(pid)
    own = keeper.cpu_times()
    used = own.user + own.system + own.children_user + own.children_system
    for process in keeper.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system
    return used


@dataclass
class World:
    server: Child
    writer: Database
    tenant: Tenant
    jobs: list[str]
    path: str
    url: str
    data_dir: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of a further process of ours."""
        return {
            "LUTHIER_DATA_DIR": str(self.data_dir),
            "LUTHIER_DATABASE_URL": self.url,
            "LUTHIER_LOG_LEVEL": "warning",
        }

    async def tell(self, jobs: list[str], number: int) -> float:
        """One event in each job's log; the moment when they were committed."""
        async with self.writer.transaction(self.tenant.actor.org_id) as session:
            for job in sorted(jobs):
                event = NewEvent(EventType.MESSAGE, {"message": _TEXT}, step=number)
                await log.append(session, job, [event])
        return time.monotonic()


@asynccontextmanager
async def world(path: str, jobs: int = 100, *, durable: bool = False) -> AsyncIterator[World]:
    """Everything, until the end of the block; `path` is direct or asgi. Live delivery commits
    little: only what measures commits needs them `durable`."""
    with tempfile.TemporaryDirectory() as folder:
        embedded = EmbeddedPostgres(Path(folder), fsync=durable)
        embedded.start()
        try:
            settings = Settings(data_dir=Path(folder), _env_file=None)
            await processes.prepare(settings, embedded.url)
            with Child(
                "tests.bench.world",
                path,
                LUTHIER_DATA_DIR=folder,
                LUTHIER_DATABASE_URL=embedded.url,
                LUTHIER_LOG_LEVEL="warning",
                LUTHIER_MAX_CONNECTIONS_PER_KEY="100000",
                LUTHIER_MAX_SUBSCRIPTIONS_PER_KEY="100000",
            ) as server:
                await _answers()
                async with _writer(embedded.url) as writer:
                    tenant = await new_tenant(writer, settings)
                    async with Api(f"http://127.0.0.1:{PORT}", tenant.key) as api:
                        rows = await Rows.of(api, writer, tenant)
                    made = await rows.add(*({"status": "running"} for _ in range(jobs)))
                    async with writer.transaction(tenant.actor.org_id) as session:
                        for job in made:
                            await log.open_stream(session, job.org_id, job.id)
                    yield World(
                        server,
                        writer,
                        tenant,
                        [job.id for job in made],
                        path,
                        embedded.url,
                        Path(folder),
                    )
        finally:
            embedded.stop()


@asynccontextmanager
async def _writer(url: str) -> AsyncIterator[Database]:
    doorbell, database = Doorbell(url), Database(url, "luthier_app", 4)
    database.after_commit = doorbell.ring
    await doorbell.start()
    try:
        yield database
    finally:
        await doorbell.stop()
        await database.close()


async def _answers() -> None:
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(30):
        while True:
            try:
                await client.get(f"http://127.0.0.1:{PORT}/readyz")
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            else:
                return


def serve(path: str) -> None:
    """As `luthier serve` does."""
    settings = Settings(_env_file=None)
    config = uvicorn.Config(
        create_app(settings, os.environ["LUTHIER_DATABASE_URL"]),
        port=PORT,
        loop="uvloop",
        http=HttpProtocol,
        ws=LiveProtocol if path == "direct" else WebSocketProtocol,
        ws_max_size=settings.max_body_bytes,
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
        server_header=False,
    )
    Server(config).run()


if __name__ == "__main__":
    serve(sys.argv[1])
