"""API keys: their form, who is let in at each door, and what the others are told."""

import asyncio
import json
import logging
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest
import websockets

from app.accounts import keys
from app.accounts import service as accounts
from app.core.database import Database
from app.core.ids import ALPHABET
from app.core.secrets import api_key_pepper
from app.core.settings import Settings
from tests.populated import Owner
from tests.support import Api, Socket, Tenant, new_tenant

UNKNOWN = "lt_" + "0" * 30 + keys._checksum("0" * 30)
EXPIRE = "UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = $1"
REVOKE = "UPDATE api_keys SET revoked_at = now() WHERE id = $1"
REFUSED = {
    "no key": ("", "API_KEY_MISSING"),
    "nonsense": ("nonsense", "API_KEY_INVALID"),
    "cut short": (UNKNOWN[:-1], "API_KEY_INVALID"),
    "a wrong checksum": (UNKNOWN[:-1] + "z", "API_KEY_INVALID"),
    "unknown": (UNKNOWN, "API_KEY_INVALID"),
    "very long": ("lt_" + "0" * 5000, "API_KEY_INVALID"),
    "not ASCII": ("lt_" + "é" * 36, "API_KEY_INVALID"),
}


def test_a_key_has_a_prefix_much_randomness_and_a_checksum() -> None:
    made = {keys.generate() for _ in range(200)}
    assert len(made) == 200
    for key in made:
        assert key.startswith("lt_")
        assert len(key) == 39
        assert set(key[3:]) <= set(ALPHABET)
        assert keys.plausible(key)


def test_a_key_with_any_character_changed_is_not_plausible() -> None:
    key = keys.generate()
    for place in range(len(key)):
        for other in "0Zz_é\x00":
            if other != key[place]:
                assert not keys.plausible(key[:place] + other + key[place + 1 :])
    assert not keys.plausible("")
    assert not keys.plausible(key[3:])
    assert not keys.plausible(f" {key}")


def test_a_hash_depends_on_the_pepper_and_shows_nothing_of_the_key() -> None:
    key = keys.generate()
    one, other = keys.hashed(key, b"1" * 32), keys.hashed(key, b"2" * 32)
    assert one != other
    assert len(one) == 64
    assert key[3:] not in one


async def refusal(server: str, name: str, value: str) -> set[str]:
    """The code that every HTTP door answers a request with this header with."""
    async with Api(server, None) as api:
        sent = {name.encode(): value.strip().encode()}
        query = {"query": "{ viewer { keyId } }"}
        graphql = await api.http.post("/graphql", json=query, headers=sent)
        files = await api.http.get("/v1/files", headers=sent)
    assert (graphql.status_code, files.status_code) == (401, 401)
    assert "data" not in graphql.json()
    assert files.json()["error"]["type"] == "authentication_error"
    code = str(graphql.json()["errors"][0]["extensions"]["code"])
    return {code, files.json()["error"]["code"].upper()}


async def closing(server: str, payload: Any) -> int:
    """The code that a WebSocket is closed with after this connection_init."""
    url = server.replace("http", "ws", 1) + "/graphql"
    protocols: Any = ["graphql-transport-ws"]
    async with websockets.connect(url, subprotocols=protocols) as raw:
        await raw.send(json.dumps({"type": "connection_init", "payload": payload}))
        with suppress(websockets.ConnectionClosed):
            message = await raw.recv()
            pytest.fail(f"it was answered: {message!r}")
        assert raw.close_code is not None
        return raw.close_code


@pytest.mark.parametrize(("key", "code"), REFUSED.values(), ids=list(REFUSED))
async def test_who_has_no_good_key_is_refused_at_every_door(
    key: str, code: str, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert await refusal(server, "x-api-key", key) == {code}
    assert await refusal(server, "authorization", f"Bearer {key}") == {code}
    for name, value in {"apiKey": key, "authorization": f"Bearer {key}"}.items():
        assert await closing(server, {name: value}) == 4403
    assert [r for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR] == []


async def test_another_scheme_than_bearer_is_no_key(server: str, tenant: Tenant) -> None:
    for value in (f"Basic {tenant.key}", tenant.key, "Bearer", ""):
        assert await refusal(server, "authorization", value) == {"API_KEY_MISSING"}


@pytest.mark.parametrize(
    ("change", "code"), [(EXPIRE, "API_KEY_EXPIRED"), (REVOKE, "API_KEY_REVOKED")]
)
async def test_an_expired_or_revoked_key_says_so(
    change: str,
    code: str,
    server: str,
    tenant: Tenant,
    owner: Owner,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await owner.execute(change, tenant.actor.key_id)
    assert await refusal(server, "x-api-key", tenant.key) == {code}
    assert await closing(server, {"apiKey": tenant.key}) == 4403
    assert [r for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR] == []


async def test_a_key_works_until_it_expires(api: Api) -> None:
    made = await api.execute(
        "mutation ($i: CreateApiKeyInput!) { createApiKey(input: $i) {"
        " secret apiKey { expiresAt } } }",
        i={"name": "long", "scopes": [], "expiresAt": "2999-01-01T00:00:00Z"},
    )
    assert made["createApiKey"]["apiKey"]["expiresAt"].startswith("2999-01-01T00:00:00")
    async with Api(api.url, made["createApiKey"]["secret"]) as other:
        assert (await other.execute("{ viewer { role } }"))["viewer"]["role"] == "OWNER"


@pytest.mark.parametrize("payload", [{}, {"apiKey": 5}, {"apiKey": ["x"]}, {"authorization": None}])
async def test_a_connection_init_without_a_key_is_refused(
    payload: Any, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert await closing(server, payload) == 4403
    assert [r for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("payload", ["text", 5, ["x"]])
async def test_a_connection_init_that_is_no_object_is_refused(payload: Any, server: str) -> None:
    assert await closing(server, payload) == 4400


async def test_a_socket_must_introduce_itself_first_and_in_time(server: str) -> None:
    url = server.replace("http", "ws", 1) + "/graphql"
    protocols: Any = ["graphql-transport-ws"]
    query = {"id": "1", "type": "subscribe", "payload": {"query": "{ viewer { role } }"}}
    for first, code in ((query, 4401), (None, 4408)):
        async with websockets.connect(url, subprotocols=protocols) as raw:
            if first:
                await raw.send(json.dumps(first))
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(raw.recv(), 10)
            assert raw.close_code == code


async def test_a_key_is_taken_in_every_way_it_can_be_sent(server: str, tenant: Tenant) -> None:
    for headers in (
        {"X-API-Key": tenant.key},
        {"Authorization": f"Bearer {tenant.key}"},
        {"Authorization": f"bearer  {tenant.key}"},
    ):
        async with Api(server, None) as api:
            api.http.headers.update(headers)
            viewer = (await api.execute("{ viewer { keyId } }"))["viewer"]
            assert viewer["keyId"] == tenant.actor.key_id
    async with Api(server, tenant.key) as api:
        for params in ({"apiKey": tenant.key}, {"authorization": f"Bearer {tenant.key}"}):
            async with api.socket(**params) as socket:
                assert await _asked(socket) == tenant.actor.key_id


async def test_the_last_use_is_noted_at_most_once_a_minute(
    database: Database, settings: Settings, owner: Owner
) -> None:
    tenant = await new_tenant(database, settings)
    await owner.execute(
        "UPDATE api_keys SET last_used_at = NULL WHERE id = $1", tenant.actor.key_id
    )

    async def used() -> datetime | None:
        # Not through the API, which does not look a key up again within two seconds.
        await accounts.authenticate(database, api_key_pepper(settings), tenant.key, "test")
        found: datetime | None = await owner.fetchval(
            "SELECT last_used_at FROM api_keys WHERE id = $1", tenant.actor.key_id
        )
        return found

    first = await used()
    assert first is not None
    assert await used() == first
    await owner.execute(
        "UPDATE api_keys SET last_used_at = last_used_at - interval '50 s' WHERE id = $1",
        tenant.actor.key_id,
    )
    earlier = await used()
    assert earlier is not None
    assert earlier < first
    await owner.execute(
        "UPDATE api_keys SET last_used_at = last_used_at - interval '11 s' WHERE id = $1",
        tenant.actor.key_id,
    )
    later = await used()
    assert later is not None
    assert later > first


async def test_an_open_socket_loses_its_rights_with_its_key_within_five_seconds(
    server: str, tenant: Tenant, other_tenant: Tenant, owner: Owner
) -> None:
    async def until_refused(whose: Tenant, change: str) -> None:
        async with Api(server, whose.key) as api, api.socket() as socket:
            assert await _asked(socket) == whose.actor.key_id
            await owner.execute(change, whose.actor.key_id)
            with suppress(websockets.ConnectionClosed, KeyError, TypeError):
                async with asyncio.timeout(5):
                    while True:
                        await _asked(socket)
                        await asyncio.sleep(0.2)

    await until_refused(tenant, REVOKE)
    await until_refused(other_tenant, EXPIRE)


async def _asked(socket: Socket) -> str:
    """The key that the socket acts for."""
    await socket.send(id="1", type="subscribe", payload={"query": "{ viewer { keyId } }"})
    message = await socket.receive()
    assert (await socket.receive())["type"] == "complete"
    return str(message["payload"]["data"]["viewer"]["keyId"])
