"""The scopes and the role each operation needs. Whoever lacks one is refused, and nothing changes.

A new operation in the schema fails the first test until it has its row in the tables.
"""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from graphql import GraphQLSchema

from app.core.actor import Role, Scope
from app.core.database import Database
from app.core.settings import Settings
from tests.api.documents import document, root_fields
from tests.populated import Owner, Populated, rows_of
from tests.support import Api, chat_lines, key_with

READ, WRITE, INFERENCE, ADMIN = Scope.READ, Scope.WRITE, Scope.INFERENCE, Scope.ADMIN
GRADE = "def grade(sample, item): return 1"
LABEL = {
    "name": "g",
    "model": "m",
    "input": [{"role": "USER", "content": [{"text": "?"}]}],
    "labels": ["a"],
    "passingLabels": ["a"],
}
JSONL = {"jsonl": chat_lines(3, "new")}


@dataclass(frozen=True)
class Needs:
    """What an operation needs, and arguments to call it with (`$kind`: an id of the tenant)."""

    scopes: set[Scope]
    role: Role
    arguments: dict[str, Any] = field(default_factory=dict)

    def allow(self, role: Role, scopes: frozenset[Scope]) -> bool:
        return self.scopes <= scopes and role.rank >= self.role.rank


def _any_key(**arguments: Any) -> Needs:
    return Needs(set(), Role.MEMBER, arguments)


def _reading(**arguments: Any) -> Needs:
    return Needs({READ}, Role.MEMBER, arguments)


def _managing(**arguments: Any) -> Needs:
    return Needs({ADMIN}, Role.ADMIN, arguments)


def _given(scopes: set[Scope], role: Role, /, **fields: Any) -> Needs:
    return Needs(scopes, role, {"input": fields})


QUERIES = {
    "viewer": _any_key(),
    "projects": _reading(),
    "members": _reading(),
    "job": _reading(id="$job"),
    "jobs": _reading(),
    "stats": _reading(),
    "estimateCost": _reading(
        input={"baseModel": "smollm2-135m-instruct", "trainingData": "$version"}
    ),
    "compareJobs": _reading(ids=["$job"]),
    "models": _reading(),
    "model": _reading(id="$model"),
    "deployments": _reading(),
    "baseModels": _reading(),
    "hardware": _reading(),
    "providers": _reading(),
    "providerCredentials": _reading(),
    "datasets": _reading(),
    "dataset": _reading(id="$dataset"),
    "datasetVersion": _reading(id="$version"),
    "files": _reading(),
    "node": _reading(id="$deployment"),
    "nodes": _reading(ids=["$job"]),
    "apiKeys": _managing(),
    "auditLog": _managing(),
}

# In this order: what deletes comes last.
MUTATIONS = {
    "createDataset": _given({READ, WRITE}, Role.ADMIN, name="new", source=JSONL),
    "addDatasetVersion": _given({WRITE}, Role.ADMIN, datasetId="$dataset", source=JSONL),
    "submitJob": _given(
        {READ, WRITE}, Role.ADMIN, baseModel="smollm2-135m-instruct", trainingFile="$file"
    ),
    "pauseJob": _given({WRITE}, Role.ADMIN, id="$job"),
    "resumeJob": _given({WRITE}, Role.ADMIN, id="$job"),
    "cancelJob": _given({WRITE}, Role.ADMIN, id="$job"),
    "correctJob": _given({WRITE}, Role.ADMIN, id="$job", status="FAILED", reason="it was wrong"),
    "rerunJob": _given({READ, WRITE}, Role.ADMIN, id="$job"),
    "restartJob": _given({WRITE}, Role.ADMIN, id="$job"),
    "validateGrader": _given(
        {READ}, Role.MEMBER, grader={"python": {"name": "g", "source": GRADE}}
    ),
    # A judge that nobody has: refused before anything is queued.
    "runGrader": _given(
        {WRITE, INFERENCE}, Role.ADMIN, grader={"labelModel": LABEL}, sample={"text": "yes"}
    ),
    "deployModel": _given({WRITE}, Role.ADMIN, modelId="$model"),
    "undeployModel": _given({WRITE}, Role.ADMIN, deploymentId="$deployment"),
    "grantCheckpointPermission": _given(
        {ADMIN}, Role.ADMIN, checkpointId="$checkpoint", projectIds=["$project"]
    ),
    "revokeCheckpointPermission": _given({ADMIN}, Role.ADMIN, id="$permission"),
    "createProject": _given({ADMIN}, Role.ADMIN, name="new"),
    "setMember": _given({ADMIN}, Role.ADMIN, id="$member", role="MEMBER"),
    "createApiKey": _given({ADMIN}, Role.ADMIN, name="new", scopes=[]),
    "revokeApiKey": _given({ADMIN}, Role.ADMIN, id="$key"),
    "setProviderCredential": _given(
        {ADMIN}, Role.ADMIN, credential={"openai": {"apiKey": "sk-none"}}, check=False
    ),
    # There is no credential for it: refused before anybody is asked.
    "importJobs": _given({WRITE}, Role.ADMIN, provider="TOGETHER"),
    "removeProviderCredential": _given({ADMIN}, Role.ADMIN, provider="OPENAI"),
    "deleteCheckpoint": _given({WRITE}, Role.OWNER, id="$checkpoint"),
    "deleteModel": _given({WRITE}, Role.OWNER, id="$model"),
    "deleteDataset": _given({WRITE}, Role.OWNER, id="$dataset"),
    "deleteJob": _given({WRITE}, Role.OWNER, id="$job"),
}

SUBSCRIPTIONS = {
    "jobEvents": _reading(jobId="$job", after="0"),
    "jobMetrics": _reading(jobId="$job", after="0"),
    "jobChanges": _reading(after="0"),
    "deploymentChanges": _reading(after="0"),
    "modelSunsets": _reading(after="0"),
}

REST = {
    "GET /v1/files": _reading(),
    "GET /v1/files/$file": _reading(),
    "GET /v1/files/$file/content": _reading(),
    "GET /v1/models": _reading(),
    "GET /v1/models/$model/content": _reading(),
    "POST /v1/files": Needs({WRITE}, Role.ADMIN),
    "POST /v1/chat/completions": Needs({INFERENCE}, Role.MEMBER),
    "DELETE /v1/files/$file": Needs({WRITE}, Role.OWNER),
}

SCOPES = [set[Scope](), {READ}, {WRITE}, {INFERENCE}, {ADMIN}, {READ, WRITE}, set(Scope)]
Key = tuple[Role, frozenset[Scope]]


@pytest.fixture(scope="module")
async def keys(
    server: str, database: Database, settings: Settings, ours: Populated
) -> AsyncIterator[dict[Key, Api]]:
    """A client for every role with every set of scopes."""
    found = {}
    for role, scopes in itertools.product(Role, SCOPES):
        secret = await key_with(database, settings, ours.tenant, role, *scopes)
        found[role, frozenset(scopes)] = Api(server, secret)
    yield found
    for client in found.values():
        await client.http.aclose()


def test_every_operation_is_in_the_tables(schema: GraphQLSchema) -> None:
    known = {f"Query.{name}" for name in QUERIES}
    known |= {f"Mutation.{name}" for name in MUTATIONS}
    known |= {f"Subscription.{name}" for name in SUBSCRIPTIONS}
    assert root_fields(schema) == known


@pytest.mark.parametrize(
    ("operation", "needs"),
    [(f"Query.{name}", needs) for name, needs in QUERIES.items()]
    + [(f"Mutation.{name}", needs) for name, needs in MUTATIONS.items()],
)
async def test_an_operation_needs_its_scopes_and_its_role(
    operation: str,
    needs: Needs,
    ours: Populated,
    keys: dict[Key, Api],
    schema: GraphQLSchema,
    owner: Owner,
) -> None:
    variables = ours.filled(needs.arguments)
    query = document(schema, operation, set(variables), depth=1)

    async def codes(client: Api) -> list[str]:
        answer = await client.http.post("/graphql", json={"query": query, "variables": variables})
        assert answer.status_code == 200
        codes: list[str] = [e["extensions"]["code"] for e in answer.json().get("errors", [])]
        return codes

    before = await rows_of(owner, ours.org_id)
    for (role, scopes), client in keys.items():
        if not needs.allow(role, scopes):
            assert await codes(client) == ["FORBIDDEN"], (role, scopes)
    assert await rows_of(owner, ours.org_id) == before
    for (role, scopes), client in keys.items():
        if needs.allow(role, scopes):
            assert await codes(client) == [], (role, scopes)


@pytest.mark.parametrize(("name", "needs"), SUBSCRIPTIONS.items())
async def test_a_subscription_needs_its_scope(
    name: str, needs: Needs, ours: Populated, keys: dict[Key, Api], schema: GraphQLSchema
) -> None:
    variables = ours.filled(needs.arguments)
    query = document(schema, f"Subscription.{name}", set(variables), depth=1)
    for (role, scopes), client in keys.items():
        if role is not Role.MEMBER:
            continue
        async with client.socket() as socket:
            await socket.send(
                id="1", type="subscribe", payload={"query": query, "variables": variables}
            )
            message = await socket.receive()
        payload = message["payload"]
        errors = payload if isinstance(payload, list) else payload.get("errors", [])
        expected = [] if needs.allow(role, scopes) else ["FORBIDDEN"]
        assert [error["extensions"]["code"] for error in errors] == expected, scopes


@pytest.mark.parametrize(("route", "needs"), REST.items())
async def test_a_route_needs_its_scope_and_its_role(
    route: str, needs: Needs, ours: Populated, keys: dict[Key, Api], owner: Owner
) -> None:
    method, path = route.replace("$file", ours.ids["file"]).split()

    async def answer(client: Api) -> httpx.Response:
        if path.endswith("completions"):
            return await client.http.post(path, json={"model": "nobody's"})
        if method == "POST":
            form = {"purpose": "fine-tune"}
            return await client.http.post(path, files={"file": b"line\n"}, data=form)
        return await client.http.request(method, path)

    before = await rows_of(owner, ours.org_id)
    for (role, scopes), client in keys.items():
        if not needs.allow(role, scopes):
            refused = await answer(client)
            assert refused.status_code == 403, (role, scopes)
            assert refused.json()["error"]["type"] == "permission_error"
            assert refused.json()["error"]["code"] == "forbidden"
    assert await rows_of(owner, ours.org_id) == before
    for (role, scopes), client in keys.items():
        if needs.allow(role, scopes):
            assert (await answer(client)).status_code != 403, (role, scopes)


async def test_a_refusal_names_what_is_missing(keys: dict[Key, Api]) -> None:
    query = 'mutation { deleteJob(input: {id: "ftjob_x"}) { deletedId } }'
    for key, word in {
        (Role.OWNER, frozenset({READ})): "fine-tuning:write",
        (Role.ADMIN, frozenset(Scope)): "owner",
    }.items():
        answer = await keys[key].http.post("/graphql", json={"query": query})
        assert word in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("name", ["members", "projects"])
async def test_a_key_that_only_calls_models_does_not_see_who_there_is(
    name: str, keys: dict[Key, Api]
) -> None:
    client = keys[Role.MEMBER, frozenset({INFERENCE})]
    answer = await client.http.post("/graphql", json={"query": f"{{ {name} {{ name }} }}"})
    assert "errors" in answer.json()
