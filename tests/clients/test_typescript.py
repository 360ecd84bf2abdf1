"""The examples of docs/examples: they compile, and they do what they say."""

import asyncio
import json
import random
import re
import time

import pytest
from graphql import GraphQLNonNull, GraphQLObjectType, GraphQLSchema, build_schema, parse, validate
from websockets.asyncio.server import ServerConnection

from app.jobs.states import JobStatus
from tests.api.live import Server, Story
from tests.client.fickle_server import KEY, FickleServer, Goodbye, log_of, running
from tests.clients.conftest import EXAMPLES
from tests.clients.cutting import cutting
from tests.clients.script import Node, Script, access
from tests.support import Api, Tenant

ANY = "subscription ($after: String) { stream(after: $after) { cursor number } }"


def cursors(first: int, last: int) -> list[str]:
    return [f"s{n}" for n in range(first, last + 1)]


def test_the_client_is_short() -> None:
    text = (EXAMPLES / "luthier.ts").read_text()
    assert len(text.splitlines()) < 150
    assert "import" not in text


async def test_the_examples_compile(node: Node) -> None:
    command, folder = node
    readme = (EXAMPLES.parents[1] / "README.md").read_text()
    [example] = re.findall(r"```ts\n(.*?)```", readme, re.S)
    around = (
        "declare const apiKey: string, jobId: string;\ndeclare const draw: typeof console.log;\n"
    )
    (folder.parents[1] / "docs" / "examples" / "readme.ts").write_text(around + example)
    process = await asyncio.create_subprocess_exec(
        *command,
        "../../node_modules/typescript/bin/tsc",
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    assert (process.returncode, told.decode()) == (0, "")


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return build_schema((EXAMPLES.parents[1] / "schema.graphql").read_text())


def test_the_documents_fit_the_schema(schema: GraphQLSchema) -> None:
    found = re.findall(r"\(`(.*?)`\)", (EXAMPLES / "events.ts").read_text(), re.S)
    assert len(found) == 3
    for document in found:
        assert validate(schema, parse(document)) == []


def test_the_types_are_the_schemas(schema: GraphQLSchema) -> None:
    text = (EXAMPLES / "events.ts").read_text()
    kinds = re.findall(r"export interface (\w+) \{\n(.*?)\n\}", text, re.S)
    assert len(kinds) == 5
    for name, body in kinds:
        kind = schema.type_map[name]
        assert isinstance(kind, GraphQLObjectType)
        for field, said in re.findall(r"^  (\w+): ([^;]+);", body, re.M):
            required = isinstance(kind.fields[field].type, GraphQLNonNull)
            assert required == (not said.endswith("| null")), f"{name}.{field}"


async def test_a_stream_outlives_its_connections(
    node: Node, live: Server, story: Story, tenant: Tenant
) -> None:
    await story.say(40)
    async with cutting(live.url, cuts=5) as (url, way):
        settings = access(url, tenant) | {"JOB": story.id, "WAY": "watch"}
        async with Script.run(node, "watch.mjs", **settings) as script:
            seen: list[str] = []
            states: list[str] = []

            async def until(count: int) -> None:
                while len(seen) < count:
                    told = await script.line()
                    (seen if told["step"] == "event" else states).append(told["value"])

            await until(40)
            for _ in range(3):
                way.cut()
                await story.say(4)
                await until(len(seen) + 4)
            await story.becomes(JobStatus.SUCCEEDED)
            await until(53)
            await script.step("complete")
            await script.over()
    assert seen == cursors(1, 53)
    assert way.opened == 9
    assert {"live", "reconnecting"} == set(states)
    assert states[-1] == "live"


async def test_whatever_a_server_does_the_stream_is_whole(node: Node) -> None:
    log = [{"cursor": f"s{n}", "number": n} for n in range(1, 41)]
    server = FickleServer(log, random.Random(2), troubled=0.1)
    async with running(server) as url:
        settings = {"URL": url, "KEY": KEY, "WAY": "any", "DOCUMENT": ANY}
        async with Script.run(node, "watch.mjs", **settings) as script:
            assert await script.step("numbers") == list(range(1, 41))
    assert server.connections > 2


async def test_a_dead_connection_is_left(node: Node) -> None:
    async def say_nothing(socket: ServerConnection) -> None:
        if server.connections == 1:
            assert json.loads(await socket.recv()) == {"type": "ping"}
            await socket.wait_closed()
            raise Goodbye

    server = FickleServer(log_of(1), random.Random(1), say=say_nothing)
    async with running(server) as url:
        settings = {"URL": url, "KEY": KEY, "WAY": "silence", "DOCUMENT": ANY}
        async with Script.run(node, "watch.mjs", **settings) as script:
            assert await script.steps("state", 3) == ["live", "reconnecting", "live"]
            assert await script.step("number") == 1
            await script.over()


async def test_who_spent_too_much_comes_back_when_told(node: Node) -> None:
    limited = {"code": "RATE_LIMITED", "retryAfter": 1}
    began = time.monotonic()

    async def refuse_once(socket: ServerConnection) -> None:
        if server.connections == 1:
            errors = [{"message": "Too much.", "extensions": limited}]
            await socket.send(json.dumps({"id": "1", "type": "error", "payload": errors}))
            raise Goodbye

    server = FickleServer(log_of(3), random.Random(1), say=refuse_once)
    async with running(server) as url:
        settings = {"URL": url, "KEY": KEY, "WAY": "any", "DOCUMENT": ANY}
        async with Script.run(node, "watch.mjs", **settings) as script:
            assert await script.step("numbers") == [1, 2, 3]
    assert server.connections == 2
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("code", [1008, 4400, 4401, 4403, 4406, 4409, 4429])
async def test_a_refusal_is_not_asked_again(node: Node, code: int) -> None:
    async def refuse(socket: ServerConnection) -> None:
        await socket.close(code, "API_KEY_REVOKED")
        raise Goodbye

    server = FickleServer([], random.Random(1), say=refuse)
    async with running(server) as url:
        settings = {"URL": url, "KEY": KEY, "WAY": "any", "DOCUMENT": ANY}
        async with Script.run(node, "watch.mjs", **settings) as script:
            error = await script.step("error")
            assert error["code"] == ("API_KEY_REVOKED" if code == 4403 else "BAD_REQUEST")
            assert str(code) in error["message"]
            await script.over()
    assert server.connections == 1


async def test_a_revoked_key_ends_the_stream(
    node: Node, live: Server, story: Story, tenant: Tenant, viewer: Api
) -> None:
    async with cutting(live.url) as (url, way):
        settings = access(url, tenant) | {"JOB": story.id, "WAY": "watch"}
        async with Script.run(node, "watch.mjs", **settings) as script:
            assert await script.step("state") == "live"
            await viewer.execute(
                "mutation ($id: ID!) { revokeApiKey(input: {id: $id}) { userErrors { code } } }",
                id=tenant.actor.key_id,
            )
            assert (await script.step("error"))["code"] == "API_KEY_REVOKED"
            await script.over()
    assert way.opened == 1


async def test_a_viewer_leaves_by_a_signal_or_a_break(
    node: Node, live: Server, story: Story, tenant: Tenant
) -> None:
    await story.say(2)
    settings = access(live.url, tenant) | {"JOB": story.id, "WAY": "leave"}
    async with Script.run(node, "watch.mjs", **settings) as script:
        assert await script.steps("event", 2) == ["s1", "s2"]
        await script.step("left")
        assert await script.step("event") == "s1"
        await script.over()  # no socket and no timer keeps the program alive


async def test_a_slow_viewer_lets_go_and_resumes(
    node: Node, live: Server, story: Story, tenant: Tenant
) -> None:
    await story.say(2_500)
    async with cutting(live.url) as (url, way):
        settings = access(url, tenant) | {"JOB": story.id, "WAY": "slow"}
        async with Script.run(node, "watch.mjs", **settings) as script:
            await script.step("first")
            async with asyncio.timeout(20):
                await way.left.wait()
            script.go_on()
            await story.becomes(JobStatus.SUCCEEDED)
            assert await script.step("seen") == cursors(1, 2_501)
    assert way.opened > 1


async def test_questions_are_answered_or_refused_with_a_code(
    node: Node, live: Server, story: Story, tenant: Tenant
) -> None:
    settings = access(live.url, tenant) | {"JOB": story.id, "WAY": "ask"}
    async with Script.run(node, "watch.mjs", **settings) as script:
        assert await script.step("answer") == {"job": {"id": story.id}}
        error = await script.step("error")
        assert error["code"] == "LIMIT_EXCEEDED"
        assert error["requestId"]
    async with Script.run(node, "watch.mjs", **settings | {"KEY": "wrong"}) as script:
        assert (await script.step("error"))["code"] == "API_KEY_INVALID"


async def test_what_cannot_resume_is_told_at_once(
    node: Node, live: Server, story: Story, tenant: Tenant
) -> None:
    await story.say(1)
    settings = access(live.url, tenant) | {"JOB": story.id, "WAY": "mistakes"}
    async with Script.run(node, "watch.mjs", **settings) as script:
        assert "after: $after" in await script.step("mistake")
        assert "cursor" in await script.step("mistake")


@pytest.mark.parametrize("client", ["apollo", "urql", "relay"])
async def test_other_clients_resume_by_it(
    node: Node, live: Server, story: Story, tenant: Tenant, client: str
) -> None:
    await story.say(20)
    async with cutting(live.url) as (url, way):
        settings = access(url, tenant) | {"JOB": story.id, "CLIENT": client}
        async with Script.run(node, "adapt.mjs", **settings) as script:
            assert await script.step("query") == story.id
            assert await script.steps("event", 20) == cursors(1, 20)
            way.cut()
            await story.becomes(JobStatus.SUCCEEDED)
            assert await script.step("event") == "s21"
            if client != "urql":  # its sources tell nobody that they are over
                await script.step("complete")
    assert way.opened > 1


async def test_the_newest_job_is_watched_from_a_terminal(
    node: Node, live: Server, story: Story, tenant: Tenant
) -> None:
    await story.say(1)
    await story.becomes(JobStatus.SUCCEEDED)
    settings = {"LUTHIER_URL": live.url, "LUTHIER_API_KEY": tenant.key}
    async with Script.run(node, "../../docs/examples/watch-job.ts", **settings) as script:
        assert (await script.text()).split() == ["s1", "MESSAGE", "…"]
        assert (await script.text()).split()[:2] == ["s2", "STATUS"]
        await script.over()
