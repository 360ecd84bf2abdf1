"""The processes of a round: its own Postgres, `luthier serve` with two API processes on one port,
one more on the plain ASGI path, the writer, the audience. Each can be killed, and comes back."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

from app.cli import processes
from app.core.postgres import EmbeddedPostgres
from app.core.settings import Settings

_LEASE_SECONDS = 4


class Program:
    """A module of this package as a process, kept running until it ends well or is stopped."""

    def __init__(self, name: str, arguments: list[str], env: dict[str, str], folder: Path) -> None:
        self.name = name
        self._command = [sys.executable, "-m", *arguments]
        self._env, self._log = env, folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.broke: list[int] = []  # statuses it ended with that nobody made it end with

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env
            )

    def kill(self) -> None:
        """As a crash of the machine would: no chance to say goodbye."""
        if self._process is not None:
            self._note()
            self._process.kill()
            self._process.wait()
            self._process = None

    async def ended(self, within: float) -> bool:
        """Whether it has ended by itself in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.runs:  # noqa: ASYNC110 - a process that is not asyncio's own
                    await asyncio.sleep(0.1)
        self._note()
        return not self.runs

    def _note(self) -> None:
        if self._process is not None and (status := self._process.poll()):
            self.broke.append(status)


class Stage:
    def __init__(
        self, folder: Path, postgres: EmbeddedPostgres, key: str, env: dict[str, str]
    ) -> None:
        self.folder, self.postgres, self.key, self._env = folder, postgres, key, env
        self.programs: list[Program] = []
        port, asgi_port = _free_port(), _free_port()
        self.address, self.asgi_address = (f"http://127.0.0.1:{n}" for n in (port, asgi_port))
        serve = ("app.cli.main", "serve", "--processes", "2")
        self._keeper = self.program("luthier", *serve, LUTHIER_PORT=str(port))
        self.asgi = self.program("asgi", "tests.chaos.serve", str(asgi_port))

    def program(self, name: str, *arguments: str, **more: str) -> Program:
        """One more process, started."""
        env = {name: value for name, value in os.environ.items() if "LUTHIER" not in name} | {
            "LUTHIER_DATA_DIR": str(self.folder),
            "LUTHIER_DATABASE_URL": self.postgres.url,
            "LUTHIER_DATABASE_POOL": "6",
            "LUTHIER_LEASE_SECONDS": str(_LEASE_SECONDS),
            "LUTHIER_LOG_LEVEL": "warning",
        }
        found = Program(name, list(arguments), env | self._env | more, self.folder)
        self.programs.append(found)
        found.start()
        return found

    def kept(self) -> list[psutil.Process]:
        """The two API processes that share a port, as far as they live."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._keeper.pid).children()
        return []

    def end(self) -> None:
        kept = self.kept()
        for program in self.programs:
            program.kill()
        for process in kept:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    async def ready(self) -> None:
        """Once the APIs answer, and so does their database."""
        async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
            for address in (self.address, self.asgi_address):
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        if (await client.get(f"{address}/readyz")).status_code == 200:
                            break
                    await asyncio.sleep(0.1)

    def kill_postgres(self) -> None:
        """Its owner, this process, starts it again by itself."""
        pid = (self.folder / "postgres" / "postmaster.pid").read_text().split()[0]
        os.kill(int(pid), signal.SIGKILL)


@asynccontextmanager
async def stage(folder: Path, **env: str) -> AsyncIterator[Stage]:
    """`env`: settings of all processes."""
    postgres = EmbeddedPostgres(folder)
    await asyncio.to_thread(postgres.start)
    try:
        await processes.prepare(Settings(data_dir=folder, _env_file=None), postgres.url)
        found = Stage(folder, postgres, (folder / "owner-key").read_text().strip(), env)
        try:
            await found.ready()
            yield found
        finally:
            found.end()
    finally:
        await asyncio.to_thread(postgres.stop)


def _free_port() -> int:
    """Below the range from which clients' own ports are taken: it must stay free while its server
    is dead."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
