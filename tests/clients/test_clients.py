"""The clients that applications use, unmodified, against the real server."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from app.jobs.states import JobStatus
from tests.api.live import Server, Story
from tests.support import Tenant

CLIENTS = (
    "graphql-ws",
    "graphql-sse",
    "apollo-http-multipart",
    "apollo-persisted-get",
    "apollo-ws",
    "urql-post-sse",
    "urql-get-sse",
    "urql-ws",
)


class Script:
    """One of our scripts under Node; it tells each step as a line of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @staticmethod
    async def start(
        node: tuple[list[str], Path], name: str, live: Server, key: str, **more: str
    ) -> "Script":
        command, folder = node
        # No proxy: everything is on loopback.
        environment = {"PATH": os.environ["PATH"], "URL": f"{live.url}/graphql", "KEY": key, **more}
        return Script(
            await asyncio.create_subprocess_exec(
                *command,
                name,
                cwd=folder,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )

    async def line(self) -> Any:
        assert self._process.stdout
        assert self._process.stderr
        async with asyncio.timeout(40):
            line = await self._process.stdout.readline()
            if not line:
                raise AssertionError((await self._process.stderr.read()).decode()[-3_000:])
        return json.loads(line)

    async def step(self, name: str) -> Any:
        """What it tells of the step that comes next, which must be this one."""
        found = await self.line()
        assert found["step"] == name, found
        return found["value"]

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_asks_and_watches_and_resumes(
    node: tuple[list[str], Path], live: Server, story: Story, tenant: Tenant, client: str
) -> None:
    await story.say(4)
    script = await Script.start(node, "drive.mjs", live, tenant.key, JOB=story.id, CLIENT=client)
    try:
        for step in ("query", "again"):
            assert (await script.step(step))["job"]["id"] == story.id
        [refused] = (await script.step("mutation"))["cancelJob"]["userErrors"]
        assert refused["code"] == "JOB_NOT_FOUND"
        assert await script.step("invalid") == ["GRAPHQL_VALIDATION_FAILED"]
        assert await script.step("refused") == ["LIMIT_EXCEEDED"]
        assert await script.step("no such job") == ["JOB_NOT_FOUND"]
        assert await script.step("left") == ["s1", "s2"]
        assert [(await script.step("event"))["cursor"] for _ in range(2)] == ["s3", "s4"]
        await story.say(2)  # while it watches
        assert [(await script.step("event"))["cursor"] for _ in range(2)] == ["s5", "s6"]
        await story.becomes(JobStatus.SUCCEEDED)
        assert (await script.step("event"))["type"] == "STATUS"
        assert await script.step("seen") == [f"s{n}" for n in range(1, 8)]
    finally:
        await script.end()


async def test_the_audit_of_graphql_over_http_passes(
    node: tuple[list[str], Path], live: Server, tenant: Tenant
) -> None:
    script = await Script.start(node, "audit.mjs", live, tenant.key)
    try:
        assert await script.line() == {"total": 61, "failed": []}
    finally:
        await script.end()
