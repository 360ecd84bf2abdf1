"""Members, projects and keys are managed within one's own rights, and secrets are shown once."""

import logging
from typing import Any

import pytest

from app.core.actor import Role, Scope
from app.core.database import Database
from app.core.settings import Settings
from tests.populated import Owner, rows_of
from tests.support import Api, Tenant, key_with

CREATE_KEY = """mutation ($i: CreateApiKeyInput!) { createApiKey(input: $i) {
  secret apiKey { id name prefix scopes memberId projectId expiresAt revokedAt lastUsedAt }
  userErrors { __typename code path message } } }"""
REVOKE_KEY = """mutation ($i: RevokeApiKeyInput!) { revokeApiKey(input: $i) {
  apiKey { id name prefix revokedAt } userErrors { __typename code path message } } }"""
SET_MEMBER = """mutation ($i: SetMemberInput!) { setMember(input: $i) {
  member { id name role } userErrors { __typename code path message } } }"""
CREATE_PROJECT = """mutation ($i: CreateProjectInput!) { createProject(input: $i) {
  project { id name } userErrors { __typename code path message } } }"""
EVERYTHING = """{ viewer { keyId member { name } } members { id name } projects { id name }
  apiKeys { id name prefix scopes memberId projectId createdAt lastUsedAt revokedAt }
  auditLog(first: 200) { nodes { id action objectId before after reason requestId } } }"""


async def done(api: Api, query: str, **fields: Any) -> dict[str, Any]:
    """The payload of a mutation that was not refused."""
    [payload] = (await api.execute(query, i=fields)).values()
    assert payload.pop("userErrors") == []
    found: dict[str, Any] = payload
    return found


async def refused(api: Api, query: str, **fields: Any) -> tuple[str, list[str]]:
    """The code and path of the one refusal; nothing was made."""
    [payload] = (await api.execute(query, i=fields)).values()
    [error] = payload.pop("userErrors")
    assert set(payload.values()) == {None}
    assert error["message"].endswith(".")
    return error["code"], error["path"]


async def test_a_new_key_acts_for_its_member_in_its_project_with_its_scopes(api: Api) -> None:
    member = (await done(api, SET_MEMBER, name="Ada", role="ADMIN"))["member"]
    project = (await done(api, CREATE_PROJECT, name=" trials "))["project"]
    assert project["name"] == "trials"
    made = await done(
        api,
        CREATE_KEY,
        name="ci",
        scopes=["FINE_TUNING_READ", "ADMIN"],
        memberId=member["id"],
        projectId=project["id"],
    )
    key, secret = made["apiKey"], made["secret"]
    assert key["prefix"] == secret[:10]
    assert (key["lastUsedAt"], key["revokedAt"], key["expiresAt"]) == (None, None, None)
    async with Api(api.url, secret) as other:
        viewer = await other.execute(
            "{ viewer { keyId role scopes member { id } project { id } organization { id } } }"
        )
        ours = await api.execute("{ viewer { organization { id } } }")
    assert viewer["viewer"] == {
        "keyId": key["id"],
        "role": "ADMIN",
        "scopes": ["ADMIN", "FINE_TUNING_READ"],
        "member": {"id": member["id"]},
        "project": {"id": project["id"]},
        "organization": ours["viewer"]["organization"],
    }


async def test_a_key_for_oneself_needs_only_a_name_and_scopes(api: Api) -> None:
    own = (await api.execute("{ viewer { member { id } project { id } } }"))["viewer"]
    key = (await done(api, CREATE_KEY, name="mine", scopes=["INFERENCE"]))["apiKey"]
    assert (key["memberId"], key["projectId"]) == (own["member"]["id"], own["project"]["id"])


async def test_a_revoked_key_stays_revoked_and_stays_listed(api: Api) -> None:
    made = await done(api, CREATE_KEY, name="old", scopes=[])
    first = (await done(api, REVOKE_KEY, id=made["apiKey"]["id"]))["apiKey"]
    assert first["revokedAt"] is not None
    assert (await done(api, REVOKE_KEY, id=first["id"]))["apiKey"] == first
    async with Api(api.url, made["secret"]) as other:
        answer = await other.http.post("/graphql", json={"query": "{ viewer { role } }"})
    assert answer.status_code == 401
    assert answer.json()["errors"][0]["extensions"]["code"] == "API_KEY_REVOKED"
    listed = (await api.execute("{ apiKeys { id revokedAt } }"))["apiKeys"]
    assert {"id": first["id"], "revokedAt": first["revokedAt"]} in listed


async def test_any_key_may_revoke_itself(
    api: Api, database: Database, settings: Settings, tenant: Tenant
) -> None:
    secret = await key_with(database, settings, tenant, Role.MEMBER)
    async with Api(api.url, secret) as own:
        id = (await own.execute("{ viewer { keyId } }"))["viewer"]["keyId"]
        await done(own, REVOKE_KEY, id=id)
        again = await own.http.post("/graphql", json={"query": "{ viewer { role } }"})
    assert again.status_code == 401


async def test_a_members_role_counts_from_its_next_request(api: Api) -> None:
    member = (await done(api, SET_MEMBER, name="Bo", role="MEMBER"))["member"]
    made = await done(api, CREATE_KEY, name="b", scopes=["ADMIN"], memberId=member["id"])
    async with Api(api.url, made["secret"]) as other:
        assert (await other.execute("{ viewer { role } }"))["viewer"]["role"] == "MEMBER"
        changed = (await done(api, SET_MEMBER, id=member["id"], role="ADMIN"))["member"]
        assert changed == {"id": member["id"], "name": "Bo", "role": "ADMIN"}
        assert (await other.execute("{ viewer { role } }"))["viewer"]["role"] == "ADMIN"
    renamed = (await done(api, SET_MEMBER, id=member["id"], role="ADMIN", name="Bob"))["member"]
    assert renamed["name"] == "Bob"


async def test_what_is_asked_wrongly_is_refused_and_changes_nothing(
    api: Api, tenant: Tenant, owner: Owner
) -> None:
    before = await rows_of(owner, tenant.actor.org_id)
    past = "2020-01-01T00:00:00Z"
    assert await refused(api, CREATE_KEY, name=" ", scopes=[]) == ("INVALID_INPUT", ["name"])
    assert await refused(api, CREATE_KEY, name="x", scopes=[], expiresAt=past) == (
        "INVALID_INPUT",
        ["expiresAt"],
    )
    assert await refused(api, CREATE_KEY, name="x", scopes=[], memberId="member_0") == (
        "MEMBER_NOT_FOUND",
        ["memberId"],
    )
    assert await refused(api, CREATE_KEY, name="x", scopes=[], projectId="proj_0") == (
        "PROJECT_NOT_FOUND",
        ["projectId"],
    )
    assert await refused(api, REVOKE_KEY, id="key_0") == ("API_KEY_NOT_FOUND", ["id"])
    assert await refused(api, SET_MEMBER, role="MEMBER") == ("INVALID_INPUT", ["name"])
    assert await refused(api, SET_MEMBER, id="member_0", role="MEMBER") == (
        "MEMBER_NOT_FOUND",
        ["id"],
    )
    assert await refused(api, CREATE_PROJECT, name="  ") == ("INVALID_INPUT", ["name"])
    assert await rows_of(owner, tenant.actor.org_id) == before


async def test_nobody_gives_more_than_they_have(
    api: Api, database: Database, settings: Settings, tenant: Tenant, owner: Owner
) -> None:
    secret = await key_with(database, settings, tenant, Role.ADMIN, Scope.ADMIN, Scope.READ)
    before = await rows_of(owner, tenant.actor.org_id)
    async with Api(api.url, secret) as admin:
        wide = ["FINE_TUNING_READ", "FINE_TUNING_WRITE"]
        assert await refused(admin, CREATE_KEY, name="x", scopes=wide) == (
            "SCOPE_TOO_WIDE",
            ["scopes"],
        )
        above = tenant.actor.member_id
        assert await refused(admin, CREATE_KEY, name="x", scopes=[], memberId=above) == (
            "SCOPE_TOO_WIDE",
            ["memberId"],
        )
        assert await refused(admin, SET_MEMBER, name="x", role="OWNER") == (
            "INVALID_INPUT",
            ["role"],
        )
        assert await refused(admin, SET_MEMBER, id=above, role="MEMBER") == (
            "INVALID_INPUT",
            ["id"],
        )
        assert await rows_of(owner, tenant.actor.org_id) == before
        made = await done(admin, CREATE_KEY, name="x", scopes=["FINE_TUNING_READ"])
        assert made["apiKey"]["scopes"] == ["FINE_TUNING_READ"]


async def test_a_secret_is_shown_once_and_kept_nowhere(
    api: Api, tenant: Tenant, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = await done(api, CREATE_KEY, name="canary", scopes=["FINE_TUNING_READ"])
    id, secret = made["apiKey"]["id"], made["secret"]
    async with Api(api.url, secret) as other:
        seen = [(await other.http.post("/graphql", json={"query": q})).text for q in (
            "{ viewer { keyId } }", "{ apiKeys { id } }", "{ nothing }", "{"
        )]  # fmt: skip
    seen.append(str(await api.execute(EVERYTHING)))
    seen.append(str(await done(api, REVOKE_KEY, id=id)))
    seen.append(str(await api.execute(EVERYTHING)))
    async with Api(api.url, secret) as other:
        seen.append((await other.http.post("/graphql", json={"query": "{ viewer { role } }"})).text)
    assert "canary" in seen[-2]
    tables = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p')"
    )
    assert len(tables) > 15
    for table in tables:
        rows = await owner.fetch(f"SELECT t::text AS row FROM {table['relname']} t")
        seen.extend(row["row"] for row in rows)
    assert any(id in text for text in seen)
    seen.append(caplog.text)
    for known in (secret, tenant.key):
        for text in seen:
            assert known not in text
            assert known[3:] not in text
