"""The real program on a real port."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.serving.launch import API_KEY, command, environment

ROOT = Path(__file__).parents[2]
KEY = "test-key"
BASE = "tiny"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {KEY}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, verify=False)

    def stop(self) -> float:
        """The seconds that SIGTERM took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=10)
        return time.monotonic() - began


@contextmanager
def serve(model: Path, *extra: str, adapters: dict[str, str] | None = None) -> Iterator[Server]:
    port = free_port()
    words = command(str(model), BASE, port, adapters=adapters, threads=1, parent_pid=os.getpid())
    env = {**os.environ, **environment(1), API_KEY: KEY}
    process = subprocess.Popen([*words, *extra], cwd=ROOT, env=env)
    server = Server(process, port)
    try:
        wait_healthy(server)
        yield server
    finally:
        process.kill()
        process.wait()


def wait_healthy(server: Server) -> None:
    deadline = time.monotonic() + 60
    with httpx.Client(verify=False) as client:
        while time.monotonic() < deadline:
            code = server.process.poll()
            assert code is None, f"the server left with {code}"
            with contextlib.suppress(httpx.TransportError):
                if client.get(f"{server.url}/health").status_code == 200:
                    return
            time.sleep(0.1)
    raise AssertionError("the server did not become healthy")


def run_refused(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.serving", *words],
        cwd=ROOT, env={**os.environ, **environment(1), **(env or {})},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def readable(pipe: int, seconds: float) -> bool:
    return bool(select.select([pipe], [], [], seconds)[0])
