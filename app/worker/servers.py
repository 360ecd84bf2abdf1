"""Server processes that hold deployed models: one per base model with any number of its adapters,
one per fully tuned model. Both engines speak vLLM's interface."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson

from app.core.egress import Egress
from app.core.errors import Unavailable
from app.core.secrets import serving_token
from app.core.settings import Settings
from app.serving import launch
from app.worker.process import bare_environment

log = logging.getLogger(__name__)

_HEALTHY_WITHIN = 300.0
_LONGEST = 4096  # context of a server: bounds the memory that its key-value cache may take


class ServerBroken(Exception):
    """The server process did not come up, ended, or refused a model; the message says which."""


class Server:
    """One process, and who uses it."""

    def __init__(self, endpoint: str, token: str, process: asyncio.subprocess.Process) -> None:
        self.endpoint, self.token, self.process = endpoint, token, process
        self.users: set[str] = set()

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Servers:
    """The server processes of this worker, by the folder of the weights they hold."""

    def __init__(self, settings: Settings, master_key: bytes, egress: Egress) -> None:
        self._settings, self._master_key, self._egress = settings, master_key, egress
        self._running: dict[str, Server] = {}
        self._starting: dict[str, asyncio.Lock] = {}

    async def adapter(self, base: Path, base_name: str, name: str, path: Path) -> Server:
        """A server that holds the base model and this adapter. Raises ServerBroken."""
        server = await self._server(base, base_name)
        server.users.add(name)
        body = orjson.dumps({"lora_name": name, "lora_path": str(path)})
        url = f"{server.endpoint}/v1/load_lora_adapter"
        try:
            status, said = await self._egress.post_json(url, body, server.token)
        except Unavailable as trouble:
            raise ServerBroken(trouble.message) from trouble
        if status != 200 and b"already" not in said.lower():
            server.users.discard(name)
            raise ServerBroken(f"The server refused the adapter: {said[:300].decode()}")
        return server

    async def whole(self, folder: Path, name: str) -> Server:
        """A server that holds a fully tuned model. Raises ServerBroken."""
        server = await self._server(folder, name)
        server.users.add(name)
        return server

    async def answers(self, server: Server, name: str) -> bool:
        """Whether the model really answers: one token of it."""
        body = orjson.dumps(
            {
                "model": name,
                "messages": [{"role": "user", "content": "Hello"}],
                "max_tokens": 1,
            }
        )
        url = f"{server.endpoint}/v1/chat/completions"
        try:
            status, _ = await self._egress.post_json(url, body, server.token)
        except Unavailable:
            return False
        return status == 200

    async def leave(self, server: Server, name: str) -> None:
        """Take a model off its server; the last one ends the process."""
        server.users.discard(name)
        if server.users:
            body = orjson.dumps({"lora_name": name})
            with contextlib.suppress(Unavailable):
                url = f"{server.endpoint}/v1/unload_lora_adapter"
                await self._egress.post_json(url, body, server.token)
            return
        for key, running in list(self._running.items()):
            if running is server:
                del self._running[key]
        server.kill()
        await server.process.wait()

    async def _server(self, folder: Path, name: str) -> Server:
        key = str(folder)
        async with self._starting.setdefault(key, asyncio.Lock()):
            server = self._running.get(key)
            if server is None or not server.alive:
                server = self._running[key] = await self._start(folder, name)
            return server

    async def _start(self, folder: Path, name: str) -> Server:
        port = _free_port()
        endpoint = f"http://127.0.0.1:{port}"
        token = serving_token(self._master_key, endpoint)
        threads = self._settings.threads or launch.default_threads()
        logs = self._settings.data_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"serving-{folder.name}.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *self._command(folder, name, port, threads),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=bare_environment()
                | launch.environment(threads)
                | {launch.API_KEY: token, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "true"},
            )
        server = Server(endpoint, token, process)
        try:
            await self._wait_until(server, self._healthy)
        except BaseException:
            server.kill()
            raise
        return server

    async def _healthy(self, server: Server) -> bool:
        status, _ = await self._egress.get_json(f"{server.endpoint}/health", server.token)
        return status == 200

    async def _wait_until(
        self, server: Server, condition: Callable[[Server], Awaitable[bool]]
    ) -> None:
        deadline = asyncio.get_running_loop().time() + _HEALTHY_WITHIN
        while asyncio.get_running_loop().time() < deadline:
            if not server.alive:
                raise ServerBroken(
                    f"The server process ended with status {server.process.returncode}."
                )
            with contextlib.suppress(Unavailable):
                if await condition(server):
                    return
            await asyncio.sleep(0.2)
        raise ServerBroken(f"The server process was not healthy after {_HEALTHY_WITHIN:.0f} s.")

    def _command(self, folder: Path, name: str, port: int, threads: int) -> list[str]:
        if self._settings.serving_engine == "vllm":
            return [
                sys.executable, "-m", "vllm.entrypoints.openai.api_server",
                "--model", str(folder), "--served-model-name", name,
                "--host", "127.0.0.1", "--port", str(port),
                "--enable-lora", "--max-lora-rank", "256",
            ]  # fmt: skip
        return launch.command(
            str(folder),
            name,
            port,
            threads=threads,
            max_model_len=_LONGEST,
            parent_pid=os.getpid(),
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
