"""Streams over plain HTTP: what is on the wire, how one goes on after a break, how one ends."""

import asyncio
import gc
import re
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import uvicorn

from app.api.graphql.transports import Events, Parts
from app.api.server import Server
from app.core.settings import Settings
from app.jobs.states import JobStatus
from app.main import create_app
from tests.api import live as servers
from tests.api.live import EVENTS, METRICS, Story, watched
from tests.api.streams import MULTIPART, SSE, Event, events, stream
from tests.events.tools import until
from tests.support import Api, Tenant

PLAIN = 'subscription { jobEvents(jobId: "%s"%s) { type } }'


async def some(source: AsyncIterator[Event], count: int) -> list[Event]:
    async with asyncio.timeout(10):
        return [await anext(source) for _ in range(count)]


def parts(body: str) -> list[Any]:
    """The parts of a whole multipart answer, read as strictly as RFC 2046 lets one."""
    assert body.startswith("--graphql\r\n")
    assert body.endswith("\r\n--graphql--\r\n")
    found = []
    for part in ("\r\n" + body).removesuffix("--\r\n").split("\r\n--graphql")[1:-1]:
        head, _, content = part.removeprefix("\r\n").partition("\r\n\r\n")
        assert head == "content-type: application/json"
        found.append(orjson.loads(content))
    return found


async def test_events_on_the_wire(viewer: Api, story: Story) -> None:
    await story.say(2)
    await story.becomes(JobStatus.SUCCEEDED)
    async with stream(viewer, SSE, EVENTS, j=story.id, a="0") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-request-id"]
        body = (await response.aread()).decode()
    assert "\r" not in body
    frames = body.split("\n\n")
    assert frames[0] == ":"
    assert frames[-2:] == ["event: complete\ndata: ", ""]
    assert all(re.match(r"event: next\nid: s\d+\ndata: \{.*\}$", frame) for frame in frames[1:-2])
    assert len(frames) == 6


async def test_a_browser_that_reconnects_misses_and_repeats_nothing(
    viewer: Api, story: Story
) -> None:
    """EventSource sends the same request again, with the last id it saw."""
    seen: list[str | None] = []
    for _ in range(4):
        await story.say(3)
        headers = SSE | ({"last-event-id": seen[-1]} if seen and seen[-1] else {})
        async with stream(viewer, headers, EVENTS, j=story.id, a="0") as response:
            seen += [event.id for event in await some(events(response), 3)]
    assert seen == [f"s{n}" for n in range(1, 13)]


@pytest.mark.parametrize("given", ["", ', after: "0"', ", types: [MESSAGE]"])
async def test_a_document_without_cursor_or_variable_resumes_too(
    viewer: Api, story: Story, given: str
) -> None:
    await story.say(5)
    headers = SSE | {"last-event-id": "s3"}
    async with stream(viewer, headers, PLAIN % (story.id, given)) as response:
        found = await some(events(response), 2)
    assert [event.id for event in found] == ["s4", "s5"]
    assert [event.data["data"]["jobEvents"] for event in found] == [{"type": "MESSAGE"}] * 2


async def test_a_last_event_id_that_is_no_cursor_is_told(viewer: Api, story: Story) -> None:
    headers = SSE | {"last-event-id": "rubbish"}
    async with stream(viewer, headers, EVENTS, j=story.id) as response:
        [event] = await some(events(response), 1)
    assert event.data["errors"][0]["extensions"]["code"] == "INVALID_INPUT"


async def test_metrics_carry_the_last_points_cursor(viewer: Api, story: Story) -> None:
    await story.measure([1, 2])
    async with stream(viewer, SSE, METRICS, j=story.id, a="0") as response:
        [event] = await some(events(response), 1)
    assert event.id == event.data["data"]["jobMetrics"]["cursor"] == "s2"


async def test_queries_and_mutations_stream_one_result(viewer: Api) -> None:
    mutation = 'mutation { cancelJob(input: {id: "x"}) { userErrors { code } } }'
    for query in ("{ viewer { role } }", mutation):
        async with stream(viewer, SSE, query) as response:
            found = [event async for event in events(response)]
        assert [event.kind for event in found] == ["next", "complete"]
        assert "errors" not in found[0].data


@pytest.mark.parametrize("query", ["{ nothing }", "{", "subscription { nothing { x } }"])
async def test_a_document_that_cannot_be_run_is_an_event(viewer: Api, query: str) -> None:
    async with stream(viewer, SSE, query) as response:
        found = [event async for event in events(response)]
    assert [event.kind for event in found] == ["next", "complete"]
    assert found[0].data["errors"][0]["extensions"]["code"].startswith("GRAPHQL_")
    assert "data" not in found[0].data


async def test_get_streams_as_well(viewer: Api, story: Story) -> None:
    await story.say()
    await story.becomes(JobStatus.FAILED)
    query = PLAIN % (story.id, ', after: "0"')
    response = await viewer.http.get("/graphql", params={"query": query}, headers=SSE)
    assert response.text.count("event: next") == 2


async def test_parts_on_the_wire(viewer: Api, story: Story) -> None:
    await story.say(2)
    await story.becomes(JobStatus.SUCCEEDED)
    async with stream(viewer, MULTIPART, EVENTS, j=story.id, a="0") as response:
        kind = response.headers["content-type"]
        body = (await response.aread()).decode()
    assert kind == 'multipart/mixed; boundary="graphql"; subscriptionSpec="1.0"'
    [heartbeat, *found] = parts(body)
    assert heartbeat == {}
    assert [part["payload"]["data"]["jobEvents"]["cursor"] for part in found] == ["s1", "s2", "s3"]


async def test_errors_in_parts_are_payloads(viewer: Api) -> None:
    async with stream(viewer, MULTIPART, EVENTS, j="nowhere") as response:
        [_, found] = parts((await response.aread()).decode())
    assert found["payload"]["errors"][0]["extensions"]["code"] == "JOB_NOT_FOUND"


@pytest.mark.parametrize("headers", [SSE, MULTIPART], ids=["events", "parts"])
async def test_a_part_is_whole_as_soon_as_it_is_sent(
    viewer: Api, live: servers.Server, story: Story, headers: dict[str, str]
) -> None:
    async with stream(viewer, headers, EVENTS, j=story.id) as response:
        chunks = response.aiter_text()
        await watched(live)
        await story.say()
        text = ""
        async with asyncio.timeout(5):
            while '"s1"' not in text:
                text += await anext(chunks)
    assert text.endswith("\n\n" if headers is SSE else "}\r\n--graphql")


@pytest.mark.parametrize("headers", [SSE, MULTIPART], ids=["events", "parts"])
async def test_an_idle_stream_shows_signs_of_life(
    viewer: Api, story: Story, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Events if headers is SSE else Parts, "heartbeat_every", 0.1)
    async with stream(viewer, headers, EVENTS, j=story.id) as response:
        text = ""
        async with asyncio.timeout(5):
            async for chunk in response.aiter_text():
                text += chunk
                if text.count(":\n\n") >= 4 or text.count("{}") >= 4:
                    break


@pytest.mark.parametrize("headers", [SSE, MULTIPART], ids=["events", "parts"])
async def test_a_client_that_leaves_leaves_nothing(
    viewer: Api, live: servers.Server, story: Story, headers: dict[str, str]
) -> None:
    async with stream(viewer, headers, EVENTS, j=story.id):
        await watched(live)
    await asyncio.wait_for(until(lambda: live.streams.tails == 0), 2)


@pytest.mark.parametrize("headers", [SSE, MULTIPART], ids=["events", "parts"])
async def test_a_revoked_key_ends_the_stream_with_its_reason(
    viewer: Api, live: servers.Server, story: Story, headers: dict[str, str]
) -> None:
    made = await viewer.execute(
        'mutation { createApiKey(input: {name: "x", scopes: [FINE_TUNING_READ]})'
        " { secret apiKey { id } } }"
    )
    key = made["createApiKey"]
    async with (
        Api(live.url, key["secret"]) as short,
        stream(short, headers, EVENTS, j=story.id) as response,
    ):
        await watched(live)
        await viewer.execute(
            "mutation ($i: ID!) { revokeApiKey(input: {id: $i}) { userErrors { code } } }",
            i=key["apiKey"]["id"],
        )
        body = (await asyncio.wait_for(response.aread(), 6)).decode()
    if headers is SSE:
        assert body.endswith("event: complete\ndata: \n\n")
        last = orjson.loads(body.split("data: ")[1].split("\n")[0])
    else:
        last = parts(body)[-1]
        assert last["payload"] is None
    assert last["errors"][0]["extensions"]["code"] == "API_KEY_REVOKED"


async def test_a_stopping_server_lets_its_streams_go_without_a_last_word(
    settings: Settings, database_url: str, story: Story, tenant: Tenant
) -> None:
    """So that the client connects again, elsewhere, and resumes; and the server really stops."""
    thresholds = gc.get_threshold()
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(settings, database_url), log_config=None, timeout_graceful_shutdown=20
    )
    running = Server(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    try:
        await until(lambda: running.started)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with (
            Api(url, tenant.key) as api,
            stream(api, SSE, EVENTS, j=story.id) as events_open,
            stream(api, MULTIPART, EVENTS, j=story.id) as parts_open,
        ):
            running.should_exit = True
            ends = [await asyncio.wait_for(one.aread(), 3) for one in (events_open, parts_open)]
        assert b"complete" not in ends[0]
        assert not ends[1].endswith(b"--\r\n")
        await asyncio.wait_for(task, 3)
    finally:
        running.should_exit = True
        await task
        gc.unfreeze()
        gc.set_threshold(*thresholds)
