"""graphql-transport-ws, message by message: refusals have codes, and nothing said breaks it."""

import asyncio
import hashlib
import json
from contextlib import suppress
from typing import Any

import pytest
import websockets

from app.core.settings import Settings
from app.jobs.states import JobStatus
from tests.api.live import CHANGES, EVENTS, METRICS, Server, Story, ask, drop, serving
from tests.events.tools import until
from tests.support import Api, Socket

VIEWER = "{ viewer { role } }"


async def _closed(socket: Socket) -> websockets.ConnectionClosed:
    """How the server closed the connection."""

    async def listen() -> None:
        async with asyncio.timeout(5):
            while True:
                await socket.raw.recv()

    with pytest.raises(websockets.ConnectionClosed) as closed:
        await listen()
    return closed.value


async def _code(socket: Socket) -> int:
    received = (await _closed(socket)).rcvd
    return received.code if received else 1006


async def _works(socket: Socket) -> None:
    await ask(socket, "still there", VIEWER)
    assert (await socket.receive())["payload"]["data"] == {"viewer": {"role": "OWNER"}}
    assert await socket.receive() == {"id": "still there", "type": "complete"}


async def test_messages_are_text(viewer: Api) -> None:
    """A browser hands binary ones to its client as blobs, which no client parses."""
    async with viewer.socket() as socket:
        await ask(socket, "1", VIEWER)
        assert isinstance(await socket.raw.recv(), str)
        assert isinstance(await socket.raw.recv(), str)
        await socket.send(type="ping")
        assert await socket.raw.recv() == '{"type":"pong"}'


@pytest.mark.parametrize(
    ("query", "payload", "code"),
    [
        ("subscription { ", {}, "GRAPHQL_PARSE_FAILED"),
        ("", {}, "BAD_REQUEST"),
        ("subscription { " + "é" * 500, {}, "GRAPHQL_PARSE_FAILED"),
        ("subscription { nothing }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { jobEvents { type } }", {}, "GRAPHQL_VALIDATION_FAILED"),
        (EVENTS, {}, "INVALID_INPUT"),
        (EVENTS, {"variables": {"j": "x", "a": 5.5}}, "INVALID_INPUT"),
        ("query a " + VIEWER, {"operationName": "b" * 500}, "BAD_REQUEST"),
        ("fragment f on Viewer { role }", {}, "BAD_REQUEST"),
        ("{ " + "a: viewer { role } " * 300 + "}", {}, "QUERY_TOO_LARGE"),
    ],
)
async def test_a_document_that_cannot_run_is_an_error_with_a_code(
    viewer: Api, query: str, payload: dict[str, Any], code: str
) -> None:
    async with viewer.socket() as socket:
        await ask(socket, "1", query, **payload)
        message = await socket.receive()
        assert (message["id"], message["type"]) == ("1", "error")
        assert {error["extensions"]["code"] for error in message["payload"]} == {code}
        assert all(error["extensions"]["requestId"] for error in message["payload"])
        await _works(socket)  # the other operations of this connection go on


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        '"text"',
        "7",
        "null",
        "[" * 100_000,
        '{"a":' * 30_000,
        "{}",
        '{"type": 1}',
        '{"type": null}',
        '{"type": "' + "é" * 500 + '"}',
        '{"type": "subscribe"}',
        '{"type": "subscribe", "id": "1"}',
        '{"type": "subscribe", "id": 1, "payload": {"query": "{ viewer { role } }"}}',
        '{"type": "subscribe", "id": ["1"], "payload": {"query": "{ viewer { role } }"}}',
        '{"type": "subscribe", "id": "1", "payload": null}',
        '{"type": "subscribe", "id": "1", "payload": "{ viewer { role } }"}',
        '{"type": "subscribe", "id": "1", "payload": {"query": null}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{x}", "variables": [1]}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{x}", "operationName": {}}}',
        '{"type": "complete"}',
        '{"type": "complete", "id": {}}',
        b'{"type": "ping"}',
    ],
    ids=lambda message: repr(message[:60]),
)
async def test_what_is_no_message_closes_the_connection_with_a_code(
    viewer: Api, message: str | bytes
) -> None:
    async with viewer.socket() as socket:
        await socket.raw.send(message)
        assert await _code(socket) == 4400


async def test_the_protocols_own_refusals_have_their_codes(live: Server, viewer: Api) -> None:
    async with viewer.socket() as socket:
        await socket.send(type="connection_init", payload={})
        assert await _code(socket) == 4429
    long = "é" * 300
    async with viewer.socket() as socket:
        for _ in "12":
            await ask(socket, long, CHANGES)
        assert await _code(socket) == 4409
    address = live.url.replace("http", "ws") + "/graphql"
    for protocol, hello, code in [
        ("graphql-transport-ws", {"type": "connection_init", "payload": {"apiKey": "x"}}, 4403),
        ("graphql-transport-ws", {"type": "connection_init"}, 4403),
        ("graphql-transport-ws", {"type": "connection_init", "payload": [1]}, 4400),
        (
            "graphql-transport-ws",
            {"type": "subscribe", "id": "1", "payload": {"query": VIEWER}},
            4401,
        ),
        ("graphql-ws", {"type": "connection_init"}, 4406),
    ]:
        async with websockets.connect(address, subprotocols=[protocol]) as raw:  # type: ignore[list-item]
            with suppress(websockets.ConnectionClosed):
                await raw.send(json.dumps(hello))
            assert await _code(Socket(raw)) == code, hello


@pytest.mark.parametrize("path", ["direct", "asgi"])
async def test_a_connection_that_says_nothing_is_closed_in_time(
    settings: Settings, database_url: str, path: str
) -> None:
    impatient = settings.model_copy(update={"connection_init_seconds": 0.5})
    async with serving(impatient, database_url, path) as server:
        address = server.url.replace("http", "ws") + "/graphql"
        async with websockets.connect(address, subprotocols=["graphql-transport-ws"]) as raw:  # type: ignore[list-item]
            async with asyncio.timeout(2):
                assert await _code(Socket(raw)) == 4408


@pytest.mark.parametrize("path", ["direct", "asgi"])
async def test_more_operations_than_allowed_are_refused_and_the_others_go_on(
    settings: Settings, database_url: str, viewer: Api, story: Story, path: str
) -> None:
    strict = settings.model_copy(update={"max_subscriptions_per_connection": 3})
    async with serving(strict, database_url, path) as server, Api(server.url, viewer.key) as api:
        async with api.socket() as socket:
            for id in "1234":
                await ask(socket, id, EVENTS, variables={"j": story.id, "a": "0"})
            refused = await socket.receive()
            assert (refused["id"], refused["type"]) == ("4", "error")
            assert refused["payload"][0]["extensions"]["code"] == "LIMIT_EXCEEDED"
            assert refused["payload"][0]["extensions"]["limit"] == 3
            await until(lambda: server.streams.tails == 1)
            await story.say()
            assert {(await socket.receive())["id"] for _ in range(3)} == {"1", "2", "3"}
            await socket.send(id="2", type="complete")
            await until(lambda: server.streams.tails == 1)
            await _works(socket)  # there is room again
        await until(lambda: server.streams.tails == 0)


@pytest.mark.parametrize("path", ["direct", "asgi"])
async def test_one_key_holds_only_so_much(
    settings: Settings, database_url: str, viewer: Api, story: Story, path: str
) -> None:
    """Whoever is refused comes back later, and finds room when others have left."""
    strict = settings.model_copy(
        update={
            "max_connections_per_key": 2,
            "max_subscriptions_per_key": 2,
            "max_unacknowledged_connections": 1,
        }
    )
    variables = {"j": story.id}
    async with serving(strict, database_url, path) as server, Api(server.url, viewer.key) as api:
        address = server.url.replace("http", "ws") + "/graphql"
        protocols: Any = ["graphql-transport-ws"]
        async with (
            websockets.connect(address, subprotocols=protocols),
            websockets.connect(address, subprotocols=protocols) as crowd,
        ):
            assert await _code(Socket(crowd)) == 1013
        async with api.socket() as one, api.socket() as two:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                async with api.socket():
                    pass
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1013
            body = {"query": EVENTS, "variables": variables}
            headers = {"accept": "text/event-stream"}
            refused = await api.http.post("/graphql", json=body, headers=headers)
            assert refused.status_code == 429
            for socket, id in ((one, "1"), (one, "2"), (two, "3")):
                await ask(socket, id, EVENTS, variables=variables)
            error = await two.receive()
            assert (error["id"], error["type"]) == ("3", "error")
            assert error["payload"][0]["extensions"]["code"] == "LIMIT_EXCEEDED"
            await one.send(id="1", type="complete")
            await _works(one)
        await until(lambda: not server.engine.connections)
        assert len(server.engine.limits.connections) == 0
        assert len(server.engine.limits.subscriptions) == 0
        assert server.engine.strangers == 0
        async with api.socket() as socket:
            await _works(socket)


def _hashed(query: str) -> dict[str, Any]:
    digest = hashlib.sha256(query.encode()).hexdigest()
    return {"persistedQuery": {"version": 1, "sha256Hash": digest}}


async def test_a_persisted_document_is_known_by_its_hash(viewer: Api, story: Story) -> None:
    await story.say()
    query, variables = f"# {story.id}\n{EVENTS}", {"j": story.id, "a": "0"}
    async with viewer.socket() as socket:
        for payload, code in [
            ({"extensions": _hashed(query)}, "PERSISTED_QUERY_NOT_FOUND"),
            ({"query": VIEWER, "extensions": _hashed(query)}, "PERSISTED_QUERY_HASH_MISMATCH"),
            ({"extensions": {"persistedQuery": {}}}, "PERSISTED_QUERY_NOT_SUPPORTED"),
        ]:
            await socket.send(id="1", type="subscribe", payload=payload)
            message = await socket.receive()
            assert (message["id"], message["type"]) == ("1", "error")
            assert message["payload"][0]["extensions"]["code"] == code
        for payload in (
            {"query": query, "extensions": _hashed(query)},
            {"extensions": _hashed(query)},
        ):
            await socket.send(id="1", type="subscribe", payload={**payload, "variables": variables})
            message = await socket.receive()
            assert message["payload"]["data"]["jobEvents"]["cursor"] == "s1"
            await socket.send(id="1", type="complete")
        await _works(socket)


async def test_a_hundred_viewers_that_vanish_leave_nothing_behind(
    live: Server, viewer: Api, story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """Some before their first event, some amid many, some with several subscriptions."""
    async with viewer.socket() as socket:
        await _works(socket)
    await until(lambda: live.streams.tails == 0)
    tasks = len(asyncio.all_tasks())
    await story.measure(range(40))
    writing = True

    async def keep_writing() -> None:
        while writing:
            await story.measure(range(2))
            await asyncio.sleep(0.03)

    async def vanish(number: int) -> None:
        async with viewer.socket() as socket:
            for id, query in enumerate([EVENTS, METRICS, CHANGES][: 1 + number % 3]):
                variables = {"a": "0"} | ({"j": story.id} if "$j" in query else {})
                await ask(socket, str(id), query, variables=variables)
            for _ in range(number % 7 * 5):
                await socket.receive()
            drop(socket)

    writer = asyncio.create_task(keep_writing())
    for start in range(0, 100, 20):
        await asyncio.gather(*(vanish(number) for number in range(start, start + 20)))
    writing = False
    await writer
    await until(lambda: live.streams.tails == 0)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    async with viewer.socket() as socket:
        await _works(socket)


async def test_ending_one_operation_leaves_the_others_and_frees_its_id(
    live: Server, viewer: Api, story: Story
) -> None:
    async with viewer.socket() as socket:
        for id in ("a", "b"):
            await ask(socket, id, EVENTS, variables={"j": story.id, "a": "0"})
        await story.say()
        assert {(await socket.receive())["id"] for _ in range(2)} == {"a", "b"}
        await socket.send(id="a", type="complete")
        await socket.send(id="never begun", type="complete")
        await story.say()
        assert (await socket.receive())["id"] == "b"
        await ask(socket, "a", EVENTS, variables={"j": story.id, "a": "s1"})
        again = await socket.receive()
        assert (again["id"], again["payload"]["data"]["jobEvents"]["cursor"]) == ("a", "s2")
        await story.becomes(JobStatus.SUCCEEDED)
        messages = [await socket.receive() for _ in range(4)]
        assert sorted((m["id"], m["type"]) for m in messages) == [
            ("a", "complete"),
            ("a", "next"),
            ("b", "complete"),
            ("b", "next"),
        ]
        await until(lambda: live.streams.tails == 0)
