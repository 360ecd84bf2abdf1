"""Every way to ask wrongly gets a typed, clear answer; none gets a traceback or a secret."""

import logging
from datetime import timedelta
from typing import Any

import httpx
import pytest
import strawberry
from graphql import GraphQLError

from app.api.graphql.errors import present
from app.api.graphql.schema import LuthierSchema
from app.core import clock
from app.core.database import Database
from app.core.errors import Invalid
from app.core.settings import Settings
from tests.support import Api, Refusal, Tenant, chat_lines

JSON = {"content-type": "application/json"}
ASK = "{ viewer { role } }"


def only(response: httpx.Response) -> dict[str, Any]:
    """The one error of an answer, which names its code and its request."""
    answer = response.json()
    [error] = answer["errors"]
    assert error["extensions"]["requestId"] == response.headers["x-request-id"]
    assert error["extensions"]["code"]
    assert "Traceback" not in response.text
    found: dict[str, Any] = error
    return found


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b'{"query": "\xff"}', "JSON"),
        (b'{"query": NaN}', "JSON"),
        (b'{"query": "\\ud800"}', "JSON"),
        (b'{"query": "{a}", "variables": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "JSON"),
        (b"null", "must be a JSON object"),
        (b"5", "must be a JSON object"),
        (b'"query"', "must be a JSON object"),
        (b"true", "must be a JSON object"),
        (b"[]", "Batching"),
        (b'[{"query": "{viewer{role}}"}]', "Batching"),
        (b"{}", "No GraphQL query"),
        (b'{"query": null}', "No GraphQL query"),
        (b'{"query": ""}', "No GraphQL query"),
        (b'{"query": 5}', "query"),
        (b'{"query": "{viewer{role}}", "variables": []}', "variables"),
        (b'{"query": "{viewer{role}}", "variables": "x"}', "variables"),
        (b'{"query": "{viewer{role}}", "extensions": 1}', "extensions"),
        (b'{"query": "query A {viewer{role}}", "operationName": "B"}', "Unknown operation"),
        (b'{"query": "query A {viewer{role}}", "operationName": 5}', "operationName"),
    ],
)
async def test_a_body_that_is_no_request_is_refused(api: Api, body: bytes, says: str) -> None:
    response = await api.http.post("/graphql", content=body, headers=JSON)
    assert response.status_code == 400
    assert says in only(response)["message"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x", None]
)
async def test_only_json_is_a_request(api: Api, kind: str | None) -> None:
    """A browser sends the others to anyone without asking first."""
    headers = {"content-type": kind} if kind else {}
    response = await api.http.post("/graphql", content=b'{"query": "{a}"}', headers=headers)
    assert response.status_code == 415
    assert only(response)["extensions"]["code"] == "UNSUPPORTED_MEDIA_TYPE"


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_a_body_above_the_limit_is_refused(
    api: Api, settings: Settings, announced: bool
) -> None:
    body = b'{"query": "{viewer{role}}", "x": "' + b"y" * settings.max_body_bytes + b'"}'

    async def chunks() -> Any:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    content = body if announced else chunks()
    response = await api.http.post("/graphql", content=content, headers=JSON)
    assert response.status_code == 413
    error = only(response)
    assert error["extensions"]["code"] == "BODY_TOO_LARGE"
    assert str(settings.max_body_bytes) in error["message"]
    assert (await api.execute(ASK))["viewer"]["role"] == "OWNER"


async def test_a_body_of_exactly_the_limit_is_read(api: Api, settings: Settings) -> None:
    start, end = b'{"query": "{viewer{role}}", "x": "', b'"}'
    body = start + b"y" * (settings.max_body_bytes - len(start) - len(end)) + end
    response = await api.http.post("/graphql", content=body, headers=JSON)
    assert response.json()["data"] == {"viewer": {"role": "OWNER"}}


@pytest.mark.parametrize("size", [300_000, 9_000_000])
async def test_chat_completions_may_be_longer(api: Api, size: int) -> None:
    body = {"model": "none", "messages": [{"role": "user", "content": "x" * size}]}
    response = await api.http.post("/v1/chat/completions", json=body)
    assert response.status_code == (413 if size > 8 * 1024 * 1024 else 404)
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_refused(api: Api, method: str) -> None:
    response = await api.http.request(method, "/graphql", json={"query": ASK})
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, POST"
    assert only(response)["extensions"]["code"] == "METHOD_NOT_ALLOWED"


async def test_a_mutation_needs_post(api: Api) -> None:
    query = 'mutation { cancelJob(input: {id: "x"}) { job { id } } }'
    response = await api.http.get("/graphql", params={"query": query})
    assert response.status_code == 405
    assert only(response)["extensions"]["code"] == "METHOD_NOT_ALLOWED"
    asked = await api.http.get("/graphql", params={"query": ASK})
    assert asked.json()["data"] == {"viewer": {"role": "OWNER"}}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_subscription_needs_a_stream(api: Api, method: str) -> None:
    query = 'subscription { jobMetrics(jobId: "x") { cursor } }'
    how: dict[str, Any] = {"params" if method == "GET" else "json": {"query": query}}
    response = await api.http.request(method, "/graphql", **how)
    assert response.status_code == 400
    assert "text/event-stream" in only(response)["message"]


@pytest.mark.parametrize(
    "key", [b"", b"x", b"lt_" + b"a" * 40, b"Bearer", "lt_\u00fc".encode(), b"x" * 9_000]
)
async def test_a_wrong_key_is_refused(api: Api, server: str, key: bytes) -> None:
    for headers in ([(b"x-api-key", key)], [(b"authorization", (b"Bearer " + key).strip())]):
        async with httpx.AsyncClient(base_url=server, trust_env=False) as anyone:
            response = await anyone.post("/graphql", json={"query": ASK}, headers=headers)
        assert response.status_code == 401
        code = only(response)["extensions"]["code"]
        assert code in ("API_KEY_MISSING", "API_KEY_INVALID")


async def test_an_expired_and_a_revoked_key_say_so(
    api: Api, server: str, tenant: Tenant, database: Database, settings: Settings
) -> None:
    data = await api.execute(
        "mutation ($i: CreateApiKeyInput!) { createApiKey(input: $i) { secret apiKey { id }"
        " userErrors { message } } }",
        i={
            "name": "short",
            "scopes": ["FINE_TUNING_READ"],
            "expiresAt": clock.rfc3339(clock.now() + timedelta(hours=1)),
        },
    )
    made = data["createApiKey"]
    assert made["userErrors"] == []
    async with Api(server, made["secret"]) as short:
        assert await short.execute(ASK)
        clock.move(timedelta(hours=2))
        try:
            response = await short.http.post("/graphql", json={"query": ASK})
        finally:
            clock.move(timedelta(hours=-2))
        assert response.status_code == 401
        assert only(response)["extensions"]["code"] == "API_KEY_EXPIRED"
        await api.execute(
            "mutation ($i: RevokeApiKeyInput!) { revokeApiKey(input: $i) { userErrors { code } } }",
            i={"id": made["apiKey"]["id"]},
        )
        response = await short.http.post("/graphql", json={"query": ASK})
        assert only(response)["extensions"]["code"] == "API_KEY_REVOKED"


@pytest.mark.parametrize("id", ["", "nope", "ftjob_nothere", "x" * 5_000, "ftjob_' OR 1=1 --"])
async def test_an_unknown_job_is_null_to_a_query_and_not_found_to_a_mutation(
    api: Api, id: str
) -> None:
    data = await api.execute(
        "query ($id: ID!) { job(id: $id) { id } node(id: $id) { id } nodes(ids: [$id]) { id } }",
        id=id,
    )
    assert data == {"job": None, "node": None, "nodes": [None]}
    for verb in ("cancelJob", "pauseJob", "resumeJob", "restartJob"):
        payload = await api.act(verb, id)
        assert payload["job"] is None
        [error] = payload["userErrors"]
        assert (error["__typename"], error["code"]) == ("NotFoundError", "JOB_NOT_FOUND")
        assert len(error["message"]) < 200


async def test_text_that_postgres_cannot_hold_is_bad_input_everywhere(api: Api) -> None:
    version = await api.dataset_version(chat_lines(2))
    for query, variables in (
        ("query ($t: ID!) { job(id: $t) { id } }", {"t": "a\0b"}),
        ("query ($t: String) { jobs(filter: {search: $t}) { nodes { id } } }", {"t": "\0"}),
        (
            "mutation ($i: SubmitJobInput!) { submitJob(input: $i) { job { id } } }",
            {
                "i": {
                    "baseModel": "smollm2-135m-instruct",
                    "trainingData": version,
                    "description": "\0",
                }
            },
        ),
        (
            "mutation ($i: CreateDatasetInput!) { createDataset(input: $i) { dataset { id } } }",
            {"i": {"name": "\0", "source": {"jsonl": chat_lines(2)}}},
        ),
    ):
        with pytest.raises(Refusal) as refused:
            await api.execute(query, **variables)
        assert refused.value.code == "INVALID_INPUT", query
        assert "U+0000" in refused.value.errors[0]["message"]
    response = await api.http.get("/v1/files/a%00b")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_input")


@pytest.mark.parametrize(
    "moment", ["yesterday", "2026-01-01", "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00", 5]
)
@pytest.mark.parametrize("how", ["literal", "variable"])
async def test_a_bad_moment_is_bad_input(api: Api, moment: Any, how: str) -> None:
    written = f'"{moment}"' if isinstance(moment, str) else moment
    given, used = ("", written) if how == "literal" else ("query ($d: DateTime) ", "$d")
    with pytest.raises(Refusal) as refused:
        await api.execute(
            f"{given}{{ jobs(filter: {{createdAfter: {used}}}) {{ totalCount }} }}", d=moment
        )
    assert refused.value.code in ("INVALID_INPUT", "GRAPHQL_VALIDATION_FAILED")
    assert "2026-01-31T12:00:00Z" in refused.value.errors[0]["message"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{ viewer { role }", "GRAPHQL_PARSE_FAILED"),
        ("{ viewr { role } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ ...Missing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ ...A } fragment A on Query { ...A }", "GRAPHQL_VALIDATION_FAILED"),
        ("query ($a: ID!) { job(id: $a) { id } }", "INVALID_INPUT"),
        ("query A { viewer { role } } query B { viewer { role } }", "OPERATION_RESOLUTION_FAILURE"),
        ("{ nodes(ids: [" + '"x" ' * 101 + "]) { id } }", "LIMIT_EXCEEDED"),
    ],
)
async def test_a_document_that_cannot_be_run_has_a_code(api: Api, query: str, code: str) -> None:
    response = await api.http.post("/graphql", json={"query": query})
    assert only(response)["extensions"]["code"] == code


async def test_an_operation_can_be_named_among_several(api: Api) -> None:
    document = "query A { viewer { role } } query B { jobs { totalCount } }"
    response = await api.http.post("/graphql", json={"query": document, "operationName": "B"})
    assert response.json()["data"] == {"jobs": {"totalCount": 0}}


async def test_a_bug_of_ours_is_masked_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    secret = "postgresql://owner:hunter2@db/luthier"

    @strawberry.type
    class Query:
        @strawberry.field
        def broken(self) -> int:
            raise RuntimeError(secret)

        @strawberry.field
        def refused(self) -> int:
            raise Invalid("This is said as it is.", path=("there",))

    schema = LuthierSchema(query=Query)
    with caplog.at_level(logging.ERROR):
        answer = await schema.execute("{ broken }")
    [error] = answer.errors or []
    assert secret not in str(error.formatted)
    assert (error.extensions or {})["code"] == "INTERNAL"
    assert secret in caplog.text
    answer = await schema.execute("{ refused }")
    [error] = answer.errors or []
    assert error.formatted["message"] == "This is said as it is."
    assert (error.extensions or {})["path"] == ["there"]


@pytest.mark.parametrize("trouble", [OSError("10.0.0.7 is down"), ConnectionError("10.0.0.7")])
async def test_database_trouble_is_told_without_its_details(trouble: Exception) -> None:
    shown = present(GraphQLError("x", original_error=trouble), "req_1")
    assert "10.0.0.7" not in str(shown.formatted)
    assert shown.extensions == {"code": "UNAVAILABLE", "requestId": "req_1"}
