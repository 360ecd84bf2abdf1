"""Viewers who share executions: each gets everything once and in order, whoever comes and goes."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import asyncpg
import pytest
import websockets

from app.core.actor import Role, Scope
from app.core.database import Database
from app.core.settings import Settings
from app.jobs.states import JobStatus
from tests.api.live import (
    CHANGES,
    EVENTS,
    METRICS,
    Server,
    Story,
    ask,
    drop,
    gather,
    place,
    rest,
    serving,
    watched,
)
from tests.api.streams import MULTIPART, SSE, results
from tests.events.tools import seeded, until
from tests.jobs.rows import Rows
from tests.support import Api, Socket, Tenant, key_with

OTHER = EVENTS.replace("jobEvents(", "other: jobEvents(")
ONLY_MESSAGES = """subscription ($j: ID!, $a: String) {
  jobEvents(jobId: $j, after: $a, types: [MESSAGE, STATUS]) { cursor type } }"""
WRITTEN_IN = """subscription ($j: ID!) {
  jobEvents(jobId: $j, after: "%s") { cursor } }"""


async def _viewer(
    viewer: Api, story: Story, kind: str, over: str, chance: random.Random
) -> list[int]:
    """Joins somewhere in the middle and reconnects again and again, until the stream completes.

    The numbers it got; for metrics those of the points."""
    got: list[int] = []
    cursor = "0" if chance.random() < 0.7 else f"s{chance.randint(1, 9)}"
    await asyncio.sleep(chance.random())
    while True:
        query, variables = EVENTS, {"j": story.id, "a": cursor}
        if kind == "other":
            query = OTHER
        elif kind == "messages":
            query = ONLY_MESSAGES
        elif kind == "metrics":
            query = METRICS
        elif kind == "written in":
            query, variables = WRITTEN_IN % cursor, {"j": story.id}
        source = _SOURCES[over](viewer, chance, query, variables)
        async with aclosing(source) as results:
            async for result in results:
                [found] = result.values()
                cursor = found["cursor"]
                got += [p["step"] for p in found.get("points", [])] or [place(cursor)]
                if chance.random() < 0.02:
                    break
            else:
                return got


async def _of_socket(
    viewer: Api, chance: random.Random, query: str, variables: dict[str, Any]
) -> AsyncGenerator[dict[str, Any], None]:
    async with viewer.socket() as socket:
        await ask(socket, "1", query, variables=variables)
        try:
            async for result in socket.results():
                yield result
        finally:
            if chance.random() < 0.5:
                drop(socket)
            elif chance.random() < 0.5:
                await socket.send(id="1", type="complete")


def _of_events(
    viewer: Api, chance: random.Random, query: str, variables: dict[str, Any]
) -> AsyncGenerator[dict[str, Any], None]:
    """As a browser that reconnects asks: with the old variables, and the last id beside them."""
    headers = SSE | {"last-event-id": variables["a"]} if "a" in variables else SSE
    return results(viewer, headers, query, **variables | ({"a": "0"} if "a" in variables else {}))


def _of_parts(
    viewer: Api, chance: random.Random, query: str, variables: dict[str, Any]
) -> AsyncGenerator[dict[str, Any], None]:
    return results(viewer, MULTIPART, query, **variables)


_SOURCES = {"socket": _of_socket, "events": _of_events, "parts": _of_parts}


async def test_two_hundred_viewers_get_each_event_once_in_order(
    live: Server, viewer: Api, story: Story
) -> None:
    chance = seeded()
    steps = 0
    told = list(range(1, await story.say(10) + 1))

    async def work() -> None:
        nonlocal steps
        for _ in range(60):
            if chance.random() < 0.4:
                count = chance.choice([1, 1, 3])
                await story.measure(range(steps, steps + count))
                steps += count
            else:
                count = chance.choice([1, 1, 2])
                last = await story.say(count)
                told.extend(range(last - count + 1, last + 1))
            await asyncio.sleep(chance.random() * 0.08)
        await story.becomes(JobStatus.SUCCEEDED)

    kinds = ["events"] * 5 + ["other", "messages", "metrics", "metrics", "written in"]
    chosen = [kinds[n % len(kinds)] for n in range(200)]
    over = ["socket", "socket", "socket", "events", "parts"]
    viewers = [
        _viewer(viewer, story, kind, chance.choice(over), random.Random(chance.random()))
        for kind in chosen
    ]
    seen: list[list[int]]
    async with asyncio.timeout(55):
        working = asyncio.create_task(work())
        seen = await asyncio.gather(*viewers)
        await working
    last = await story.say() - 1
    told.append(last)
    for kind, got in zip(chosen, seen, strict=True):
        whole = list(range(1, last + 1))
        if kind in ("metrics", "messages"):
            whole = list(range(steps)) if kind == "metrics" else told
        assert got == [number for number in whole if number >= got[0]], kind
    await until(lambda: not live.engine.connections)


async def test_the_same_question_is_executed_once_whatever_the_transport(
    live: Server, viewer: Api, story: Story
) -> None:
    async with viewer.socket() as one, viewer.socket() as two, viewer.socket() as three:
        for socket, after in ((one, "0"), (two, None), (three, "s3")):
            await ask(socket, "x", EVENTS, variables={"j": story.id, "a": after})
            if socket is one:
                await watched(live)
                await story.say(5)
                assert len(await gather(one.results(), "jobEvents", 5)) == 5
        missed = await gather(three.results(), "jobEvents", 2)
        assert [place(event["cursor"]) for event in missed] == [4, 5]
        asked = {"j": story.id, "a": "s5"}
        by_events, by_parts = (
            asyncio.create_task(gather(results(viewer, headers, EVENTS, **asked), "jobEvents", 1))
            for headers in (SSE, MULTIPART)
        )
        await until(lambda: [len(e.members) for e in live.engine.executions] == [5])
        assert len(live.engine.groups) == 1
        await story.say()
        for socket in (one, two, three):
            [event] = await gather(socket.results(), "jobEvents", 1)
            assert place(event["cursor"]) == 6
        for found in await asyncio.gather(by_events, by_parts):
            assert place(found[0]["cursor"]) == 6


async def test_who_comes_while_the_first_begins_begins_with_it(
    live: Server, viewer: Api, story: Story, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(viewer.socket()) for _ in range(20)]
        async with owner.transaction():
            await owner.execute("LOCK TABLE streams IN ACCESS EXCLUSIVE MODE")
            for socket in sockets:
                await ask(socket, "x", EVENTS, variables={"j": story.id})
            await until(lambda: [len(e.members) for e in live.engine.executions] == [20])
        await watched(live)
        await story.say()
        for socket in sockets:
            assert len(await gather(socket.results(), "jobEvents", 1)) == 1
    await until(lambda: not live.engine.executions)
    assert not live.engine.opening


@pytest.mark.parametrize("query", [EVENTS, METRICS, CHANGES])
async def test_whoever_may_see_something_else_is_of_another_group(
    query: str,
    live: Server,
    database: Database,
    settings: Settings,
    tenant: Tenant,
    other_tenant: Tenant,
    story: Story,
) -> None:
    keys = [
        tenant.key,
        await key_with(database, settings, tenant, Role.MEMBER, Scope.READ),
        await key_with(database, settings, tenant, Role.MEMBER, Scope.READ, Scope.WRITE),
    ]
    variables = {"j": story.id} if "$j" in query else {}
    if not variables:
        keys.append(other_tenant.key)
    sockets: list[Any] = []
    for key in keys:
        api = Api(live.url, key)
        sockets.append(api.socket())
        await ask(await sockets[-1].__aenter__(), "1", query, variables=variables)
    await until(lambda: len(live.engine.groups) == len(keys))
    assert all(len(group.members) == 1 for group in live.engine.groups.values())
    for socket in sockets:
        await socket.__aexit__(None, None, None)
    await until(lambda: not live.engine.groups)


async def test_a_revoked_key_ends_only_its_own_viewers(
    live: Server,
    database: Database,
    settings: Settings,
    tenant: Tenant,
    story: Story,
    owner: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    keys = [await key_with(database, settings, tenant, Role.MEMBER, Scope.READ) for _ in range(2)]
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(Api(live.url, key)) for key in keys]
        ends, stays = [await stack.enter_async_context(api.socket()) for api in apis]
        for socket in (ends, stays):
            await ask(socket, "1", EVENTS, variables={"j": story.id})
            await watched(live)
        [group] = live.engine.groups.values()
        assert len(group.members) == 2
        await owner.execute(
            "UPDATE api_keys SET revoked_at = now() WHERE name = 'test' AND id "
            "= (SELECT id FROM api_keys WHERE org_id = $1 AND name = 'test'"
            " ORDER BY created_at LIMIT 1)",
            tenant.actor.org_id,
        )
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(ends.receive(), 6)
        assert ends.raw.close_code == 4403
        await story.say()
        [event] = await gather(stays.results(), "jobEvents", 1)
        assert place(event["cursor"]) == 1


async def test_progress_reaches_who_joins_a_group_late(
    viewer: Api, rows: Rows, ringer: Database
) -> None:
    story = await Story.begin(rows, ringer)
    await story.show(20)
    async with viewer.subscribe(CHANGES) as first:
        [change] = await gather(first, "jobChanges", 1)
        assert change["progress"]["step"] == 20
        async with viewer.subscribe(CHANGES) as second:
            [change] = await gather(second, "jobChanges", 1)
            assert change["progress"]["step"] == 20
            await asyncio.sleep(0.1)
            await story.becomes(JobStatus.SUCCEEDED)
            for results in (first, second):
                [change] = await gather(results, "jobChanges", 1)
                assert change["statusThen"] == "SUCCEEDED"


@pytest.mark.parametrize("path", ["direct", "asgi"])
async def test_when_the_server_stops_its_clients_come_back_with_their_cursors(
    path: str, settings: Settings, database_url: str, viewer: Api, story: Story
) -> None:
    async with serving(settings, database_url, path) as server:
        api = Api(server.url, viewer.key)
        async with api.socket() as socket:
            await ask(socket, "1", EVENTS, variables={"j": story.id, "a": "0"})
            await story.say(3)
            [*_, last] = await gather(socket.results(), "jobEvents", 3)
            raw = socket.raw
            stopping = asyncio.create_task(_until_closed(socket))
            await asyncio.sleep(0)
            server.stop()
            await stopping
    assert raw.close_code == 1012
    await story.say(2)
    await story.becomes(JobStatus.FAILED)
    async with viewer.subscribe(EVENTS, j=story.id, a=last["cursor"]) as results:
        assert [place(e["cursor"]) for e in await rest(results, "jobEvents")] == [4, 5, 6]


async def _until_closed(socket: Socket) -> None:
    with pytest.raises(websockets.ConnectionClosed):
        await asyncio.wait_for(socket.receive(), 5)
