"""Python's `gql`, unmodified, over HTTP and over a WebSocket."""

import importlib
from typing import Any

import pytest

from tests.api.live import EVENTS, Server, Story
from tests.clients.conftest import missing
from tests.support import Tenant


@pytest.fixture(scope="module")
def gql() -> Any:
    try:
        importlib.import_module("gql.transport.websockets")
        importlib.import_module("gql.transport.httpx")
        return importlib.import_module("gql")
    except ImportError:
        missing("gql is not installed.")


async def test_gql_asks_over_http(gql: Any, live: Server, story: Story, tenant: Tenant) -> None:
    transport = gql.transport.httpx.HTTPXAsyncTransport(
        url=f"{live.url}/graphql", headers={"x-api-key": tenant.key}, trust_env=False
    )
    async with gql.Client(transport=transport, fetch_schema_from_transport=True) as session:
        query = gql.gql("query ($id: ID!) { job(id: $id) { id status } }")
        query.variable_values = {"id": story.id}
        assert (await session.execute(query))["job"] == {"id": story.id, "status": "RUNNING"}
        with pytest.raises(gql.transport.exceptions.TransportQueryError) as refused:
            await session.execute(gql.gql("{ jobs(first: 1000) { totalCount } }"))
        assert refused.value.errors[0]["extensions"]["code"] == "LIMIT_EXCEEDED"


async def test_gql_watches_and_resumes(
    gql: Any, live: Server, story: Story, tenant: Tenant
) -> None:
    await story.say(3)
    transport = gql.transport.websockets.WebsocketsTransport(
        url=f"{live.url.replace('http', 'ws', 1)}/graphql",
        init_payload={"apiKey": tenant.key},
        subprotocols=["graphql-transport-ws"],
    )
    seen: list[str] = []
    async with gql.Client(transport=transport) as session:
        for _ in range(2):
            query = gql.gql(EVENTS)
            query.variable_values = {"j": story.id, "a": seen[-1] if seen else "0"}
            async for result in session.subscribe(query):
                seen.append(result["jobEvents"]["cursor"])
                if len(seen) in (2, 5):
                    break
            await story.say(2)
    assert seen == ["s1", "s2", "s3", "s4", "s5"]
