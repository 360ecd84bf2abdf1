"""The processes of a round: its own Postgres, two API processes, the writer, the audience. Each can
be killed without warning, and comes back."""

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

from app.cli import processes
from app.core.postgres import EmbeddedPostgres
from app.core.settings import Settings

LEASE_SECONDS = 4


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

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

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

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


class Stage:
    def __init__(self, folder: Path, postgres: EmbeddedPostgres, key: str) -> None:
        self.folder, self.postgres, self.key = folder, postgres, key
        self.programs: list[Program] = []
        self.apis: list[Program] = []
        self.addresses: list[str] = []
        self.asgi_addresses: list[str] = []

    def program(self, name: str, *arguments: str, **more: str) -> Program:
        """One more process, started."""
        env = {name: value for name, value in os.environ.items() if "LUTHIER" not in name} | {
            "LUTHIER_DATA_DIR": str(self.folder),
            "LUTHIER_DATABASE_URL": self.postgres.url,
            "LUTHIER_DATABASE_POOL": "6",
            "LUTHIER_LEASE_SECONDS": str(LEASE_SECONDS),
            "LUTHIER_LOG_LEVEL": "warning",
        }
        found = Program(name, list(arguments), env | more, self.folder)
        self.programs.append(found)
        found.start()
        return found

    def add_api(self, name: str) -> None:
        port, asgi_port = _free_port(), _free_port()
        self.addresses.append(f"http://127.0.0.1:{port}")
        self.asgi_addresses.append(f"http://127.0.0.1:{asgi_port}")
        self.apis.append(self.program(name, "tests.chaos.serve", str(port), str(asgi_port)))

    async def ready(self) -> None:
        """Once both API processes answer, and so does their database."""
        async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
            for address in [*self.addresses, *self.asgi_addresses]:
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
async def stage(folder: Path) -> AsyncIterator[Stage]:
    postgres = EmbeddedPostgres(folder)
    await asyncio.to_thread(postgres.start)
    try:
        settings = Settings(data_dir=folder, _env_file=None)
        await processes.prepare(settings, postgres.url)
        found = Stage(folder, postgres, (folder / "owner-key").read_text().strip())
        try:
            yield found
        finally:
            for program in found.programs:
                program.kill()
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
