"""A verb of `luthier` as a process on a free port, with the processes that it keeps."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import httpx
import psutil


def environment(settings: dict[str, str]) -> dict[str, str]:
    """Ours without any setting but these, which are named as in Settings."""
    env = {name: value for name, value in os.environ.items() if "LUTHIER" not in name}
    return env | {f"LUTHIER_{name.upper()}": value for name, value in settings.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    def __init__(self, *arguments: str, output: Path, **settings: str) -> None:
        self.output = output
        self.port = int(settings.get("port") or free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        with output.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", *arguments],
                stdout=log,
                stderr=log,
                env=environment(settings | {"port": str(self.port)}),
                start_new_session=True,  # as a shell does for what it runs
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        with httpx.Client(trust_env=False, timeout=5, verify=False) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"{self.url}/readyz").status_code == 200:
                        return
                time.sleep(0.1)
        raise TimeoutError(self.output.read_text()[-2000:])

    def said(self) -> str:
        return self.output.read_text()

    def kept(self, verb: str) -> list[psutil.Process]:
        """The processes that it runs a verb in."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                if child.cmdline()[-1] == verb:
                    found.append(child)
        return found

    def family(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]

    def clients_of(self, child: psutil.Process) -> set[int]:
        """The ports of the clients whose connections this process has accepted."""
        found = set()
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in child.net_connections("tcp"):
                if connection.status == "ESTABLISHED" and connection.laddr.port == self.port:
                    found.add(connection.raddr.port)
        return found
