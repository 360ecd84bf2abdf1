"""The clients that applications use, unmodified, against the real server."""

import pytest

from app.jobs.states import JobStatus
from tests.api.live import Server, Story
from tests.clients.script import Node, Script, access
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


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_asks_and_watches_and_resumes(
    node: Node, live: Server, story: Story, tenant: Tenant, client: str
) -> None:
    await story.say(4)
    settings = access(live.url, tenant) | {"JOB": story.id, "CLIENT": client}
    async with Script.run(node, "drive.mjs", **settings) as script:
        for step in ("query", "again"):
            assert (await script.step(step))["job"]["id"] == story.id
        [refused] = (await script.step("mutation"))["cancelJob"]["userErrors"]
        assert refused["code"] == "JOB_NOT_FOUND"
        assert await script.step("invalid") == ["GRAPHQL_VALIDATION_FAILED"]
        assert await script.step("refused") == ["LIMIT_EXCEEDED"]
        assert await script.step("no such job") == ["JOB_NOT_FOUND"]
        assert await script.step("left") == ["s1", "s2"]
        assert [event["cursor"] for event in await script.steps("event", 2)] == ["s3", "s4"]
        await story.say(2)  # while it watches
        assert [event["cursor"] for event in await script.steps("event", 2)] == ["s5", "s6"]
        await story.becomes(JobStatus.SUCCEEDED)
        assert (await script.step("event"))["type"] == "STATUS"
        assert await script.step("seen") == [f"s{n}" for n in range(1, 8)]


async def test_the_audit_of_graphql_over_http_passes(
    node: Node, live: Server, tenant: Tenant
) -> None:
    async with Script.run(node, "audit.mjs", **access(live.url, tenant)) as script:
        assert await script.line() == {"total": 61, "failed": []}
