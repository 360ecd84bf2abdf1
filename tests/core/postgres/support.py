"""What the tests of the embedded Postgres share."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from app.core.postgres import (
    EmbeddedPostgres,
)

ROOT = Path(__file__).parents[3]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
OWNER = """
import sys
from pathlib import Path
from app.core.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), fsync=False)
print(server.start(), flush=True)
sys.stdin.read()
server.stop()
"""


def ask(server: EmbeddedPostgres, sql: str) -> Any:
    """The first value of the answer."""

    async def run() -> Any:
        connection = await asyncpg.connect(server.url, timeout=5)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(run())


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def servers(data_dir: Path) -> list[psutil.Process]:
    """The live Postgres processes of a data folder, the postmaster first."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and process.cwd() == str(data_dir / "postgres"):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return sorted(found, key=lambda process: process.create_time())


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


class Owner:
    """Another process that starts the Postgres of a folder and holds on to it."""

    def __init__(self, data_dir: Path, python: str = sys.executable, **popen: Any) -> None:
        path = os.pathsep.join([str(ROOT), *sys.path])
        environment = {**os.environ, "PYTHONPATH": path, **popen.pop("env", {})}
        self.process = subprocess.Popen(
            [python, "-c", OWNER, str(data_dir)],
            cwd=popen.pop("cwd", ROOT),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )

    def answer(self) -> str:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        said: str = self.process.stdout.readline().strip() or self.process.stderr.read()
        return said

    def leave(self) -> None:
        self.process.communicate(timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)


def scratch() -> str:
    """A short path (sockets), in memory where there is enough of it: a cluster is 46 MB."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > 2**30:
        return str(memory)
    return "/tmp"
