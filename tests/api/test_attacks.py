"""Every attack that is known meets its refusal, at once and in few words."""

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import pytest

from app.core.settings import Settings
from tests.api.attacks import FRAMES, HTTP, Attack, Frame, send, strike
from tests.api.live import Server, serving
from tests.support import Api, Refusal, Tenant

_SECONDS = 0.25  # the benchmark's target is 50 ms, on a machine that does nothing else
_BYTES = 64 * 1024


@pytest.mark.parametrize("attack", HTTP, ids=lambda attack: attack.name)
async def test_an_attack_is_refused_at_once(
    api: Api, attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = [await send(api.http, attack) for _ in range(3)]
    for outcome in outcomes:
        assert outcome.codes == ({attack.code} if attack.code else set()), outcome.text[:500]
        assert outcome.status == attack.status
        assert outcome.size <= _BYTES
        assert "Traceback" not in outcome.text
    assert min(outcome.seconds for outcome in outcomes) < _SECONDS
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.name)
async def test_an_attack_by_messages_is_refused_at_once(
    server: str, tenant: Tenant, frame: Frame, caplog: pytest.LogCaptureFixture
) -> None:
    took, code, heard = await strike(server, tenant.key, frame)
    assert code == frame.close
    if not frame.close:
        assert '"type":"error"' in heard.replace(" ", "")
        assert len(heard) <= _BYTES
    assert took < 5  # most of it is this process's own sending
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


async def test_others_are_answered_while_one_attacks(api: Api, server: str) -> None:
    async def attack() -> None:
        async with Api(server, api.key) as attacker:
            for one in HTTP:
                await send(attacker.http, one)

    attacking = asyncio.create_task(attack())
    while not attacking.done():
        assert (await api.execute("{ viewer { role } }"))["viewer"]["role"] == "OWNER"
    await attacking


@pytest.fixture
async def closed(
    settings: Settings, database_url: str, tenant: Tenant
) -> AsyncIterator[tuple[Server, Api]]:
    """A server that tells nobody what its schema holds."""
    hidden = settings.model_copy(update={"introspection": False, "suggestions": False})
    async with serving(hidden, database_url) as server, Api(server.url, tenant.key) as api:
        yield server, api


INTROSPECT = (
    "{ __schema { types { name } } }",
    '{ __type(name: "Job") { name } }',
    "{ ...A } fragment A on Query { a: __schema { queryType { name } } }",
)
WRONG: tuple[tuple[str, dict[str, object]], ...] = (
    ("{ viewr { role } }", {}),
    ("{ jobs(frist: 1) { totalCount } }", {}),
    ("{ jobs(filter: {serch: 1}) { totalCount } }", {}),
    ("{ jobs(orderBy: NAME_ASK) { totalCount } }", {}),
    ("query ($f: JobFilte) { jobs(filter: $f) { totalCount } }", {}),
    ("query ($f: JobFilter) { jobs(filter: $f) { totalCount } }", {"f": {"serch": "x"}}),
    ("query ($o: JobOrder) { jobs(orderBy: $o) { totalCount } }", {"o": "NAME_ASK"}),
)


@pytest.mark.parametrize("query", INTROSPECT)
async def test_introspection_can_be_turned_off(
    closed: tuple[Server, Api], api: Api, query: str
) -> None:
    assert await api.execute(query)
    with pytest.raises(Refusal) as refused:
        await closed[1].execute(query)
    assert refused.value.code == "INTROSPECTION_OFF"
    named = "{ viewer { __typename role } }"
    assert (await closed[1].execute(named))["viewer"]["__typename"] == "Viewer"


@pytest.mark.parametrize("query", INTROSPECT)
async def test_introspection_needs_a_key(server: str, query: str) -> None:
    async with httpx.AsyncClient(base_url=server, trust_env=False) as anyone:
        response = await anyone.post("/graphql", json={"query": query})
    assert response.status_code == 401
    assert "Query" not in response.text


@pytest.mark.parametrize(("query", "variables"), WRONG)
async def test_suggestions_can_be_turned_off(
    closed: tuple[Server, Api], api: Api, query: str, variables: dict[str, object]
) -> None:
    said = []
    for asker in (api, closed[1]):
        with pytest.raises(Refusal) as refused:
            await asker.execute(query, **variables)
        said.append(refused.value.errors[0]["message"])
    assert "Did you mean" in said[0]
    assert "Did you mean" not in said[1]
    assert said[0].startswith(said[1][:20])


async def test_a_post_that_breaks_off_is_no_fault_of_ours(
    server: str, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = server.removeprefix("http://").split(":")
    for path in ("/graphql", "/v1/chat/completions", "/v1/files"):
        _, writer = await asyncio.open_connection(host, int(port))
        kind = "multipart/form-data; boundary=x" if path == "/v1/files" else "application/json"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {api.key}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: 1000\r\n\r\n"
        )
        writer.write(head.encode() + b'{"query": ')
        await writer.drain()
        await api.execute("{ viewer { role } }")  # the head has been read by now
        writer.transport.abort()
    await api.execute("{ viewer { role } }")
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []
