"""One of our scripts under Node."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support import Tenant

Node = tuple[list[str], Path]
"""The command, and the folder with our scripts and the clients they import."""


class Script:
    """It tells each step as a line of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @staticmethod
    @asynccontextmanager
    async def run(
        node: Node, name: str, *arguments: str, **settings: str
    ) -> "AsyncIterator[Script]":
        """Until the end of the block, which it does not outlive."""
        command, folder = node
        process = await asyncio.create_subprocess_exec(
            *command,
            name,
            *arguments,
            cwd=folder,
            env={"PATH": os.environ["PATH"], **settings},  # no proxy: everything is on loopback
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield Script(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def text(self) -> str:
        """The next line; none is left: empty. Raises AssertionError when it fails."""
        assert self._process.stdout
        assert self._process.stderr
        async with asyncio.timeout(40):
            line = (await self._process.stdout.readline()).decode()
            if not line and await self._process.wait():
                raise AssertionError((await self._process.stderr.read()).decode()[-3_000:])
        return line

    async def line(self) -> Any:
        return json.loads(await self.text())

    async def step(self, name: str) -> Any:
        """What it tells of the step that comes next, which must be this one."""
        found = await self.line()
        assert found["step"] == name, found
        return found.get("value")

    async def steps(self, name: str, count: int) -> list[Any]:
        return [await self.step(name) for _ in range(count)]

    async def over(self) -> None:
        """It ends by itself, with nothing more to tell."""
        assert await self.text() == ""

    def go_on(self) -> None:
        """For one that waits for a word."""
        assert self._process.stdin
        self._process.stdin.write(b"\n")


def access(url: str, tenant: Tenant) -> dict[str, str]:
    return {"URL": f"{url}/graphql", "KEY": tenant.key}
