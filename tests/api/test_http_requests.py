"""GraphQL over HTTP where the conformance audit does not look: each status, type and header."""

import asyncio
from typing import Any

import httpx
import pytest

from app.api.graphql.negotiation import JSON, RESPONSE_JSON, Accepted, Stream, negotiate
from tests.support import Api

ASK = {"query": "{ viewer { role } }"}
SUBSCRIBE = {"query": 'subscription { jobEvents(jobId: "x") { cursor } }'}
TWO = "query A { viewer { role } } query B { viewer { role } }"
EVENTS, PARTS = Stream.EVENTS, Stream.PARTS


def code(response: httpx.Response) -> str:
    """The one error's code; it names the request as the header does."""
    [error] = response.json()["errors"]
    assert error["extensions"]["requestId"] == response.headers["x-request-id"]
    return str(error["extensions"]["code"])


async def post(api: Api, body: Any, accept: str = RESPONSE_JSON, **more: Any) -> httpx.Response:
    return await api.http.post("/graphql", json=body, headers={"accept": accept}, **more)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", (JSON, None, False)),
        ("*/*", (JSON, None, False)),
        ("application/*", (JSON, None, False)),
        (RESPONSE_JSON, (RESPONSE_JSON, None, False)),
        (f"{RESPONSE_JSON}, {JSON};q=0.9", (RESPONSE_JSON, None, False)),
        (f"{RESPONSE_JSON};q=0.8, {JSON}", (JSON, None, False)),
        (f"{JSON};q=0, */*;q=0.1", (RESPONSE_JSON, None, False)),
        ("text/event-stream", (None, EVENTS, True)),
        ("TEXT/Event-Stream; charset=utf-8", (None, EVENTS, True)),
        ("text/event-stream, */*;q=0.1", (JSON, EVENTS, True)),
        ("text/event-stream, */*", (JSON, EVENTS, False)),
        (
            f"{RESPONSE_JSON}, application/graphql+json, {JSON}, text/event-stream,"
            " multipart/mixed",
            (RESPONSE_JSON, EVENTS, False),
        ),
        ("text/event-stream, multipart/mixed", (None, EVENTS, True)),
        (
            f"multipart/mixed;boundary=graphql;subscriptionSpec=1.0,{RESPONSE_JSON},{JSON};q=0.9",
            (RESPONSE_JSON, PARTS, False),
        ),
        ('multipart/mixed; subscriptionSpec="1.0"', (None, PARTS, False)),
        ("multipart/mixed", None),
        ("image/png", None),
        ("text/event-stream;q=0", None),
        ("application/json;q=x", None),
        (",,", (JSON, None, False)),
        ("a" * 3_000, None),
    ],
)
def test_what_an_accept_header_asks_for(accept: str, expected: tuple[Any, ...] | None) -> None:
    assert negotiate(accept) == (Accepted(*expected) if expected else None)


@pytest.mark.parametrize("accept", [RESPONSE_JSON, JSON, "*/*"])
async def test_an_answer_has_the_type_asked_for(api: Api, accept: str) -> None:
    response = await post(api, ASK, accept)
    kind = JSON if accept == "*/*" else accept
    assert response.headers["content-type"] == f"{kind}; charset=utf-8"
    assert response.headers["vary"] == "accept"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"query": "{ viewer { role }"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "{ nothing }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "query ($i: ID!) { job(id: $i) { id } }"}, "INVALID_INPUT"),
        ({"query": "{ jobs(first: 200) { nodes { attempts { number } " + "a: id " * 40 + "} } }"},
         "QUERY_TOO_LARGE"),
        ({"query": TWO}, "OPERATION_RESOLUTION_FAILURE"),
        ({"query": TWO, "operationName": "C"}, "OPERATION_RESOLUTION_FAILURE"),
    ],
)  # fmt: skip
async def test_what_could_not_be_run_is_a_400_without_data(
    api: Api, body: dict[str, Any], expected: str
) -> None:
    response = await post(api, body)
    assert (response.status_code, code(response)) == (400, expected)
    assert "data" not in response.json()
    plain = await post(api, body, JSON)
    assert plain.status_code == (400 if expected == "OPERATION_RESOLUTION_FAILURE" else 200)
    assert "data" not in plain.json()


async def test_an_error_of_a_field_is_a_200_with_data(api: Api) -> None:
    response = await post(api, {"query": "{ viewer { role } jobs(first: 999) { totalCount } }"})
    assert response.status_code == 200
    assert response.json()["data"] is None
    assert code(response) == "LIMIT_EXCEEDED"


async def test_what_cannot_be_accepted_is_a_406(api: Api) -> None:
    response = await post(api, ASK, "image/png")
    assert (response.status_code, code(response)) == (406, "NOT_ACCEPTABLE")
    parts = await post(api, ASK, "multipart/mixed;subscriptionSpec=1.0")
    assert (parts.status_code, code(parts)) == (406, "NOT_ACCEPTABLE")


async def test_another_charset_is_a_415(api: Api) -> None:
    headers = {"content-type": "application/json; charset=latin-1"}
    response = await api.http.post("/graphql", content=b"{}", headers=headers)
    assert (response.status_code, code(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert response.headers["accept-post"] == JSON


async def test_a_mutation_by_get_is_a_405_that_allows_post(api: Api) -> None:
    query = 'mutation { cancelJob(input: {id: "x"}) { job { id } } }'
    for accept in (JSON, RESPONSE_JSON, "text/event-stream"):
        response = await api.http.get(
            "/graphql", params={"query": query}, headers={"accept": accept}
        )
        assert (response.status_code, code(response)) == (405, "METHOD_NOT_ALLOWED")
        assert response.headers["allow"] == "POST"


async def test_get_takes_variables_and_a_name(api: Api) -> None:
    query = "query A { viewer { role } } query B($n: Int) { jobs(first: $n) { nodes { id } } }"
    response = await api.http.get(
        "/graphql", params={"query": query, "operationName": "B", "variables": '{"n": 3}'}
    )
    assert response.json()["data"] == {"jobs": {"nodes": []}}
    wrong = await api.http.get("/graphql", params={"query": query, "variables": "{"})
    assert (wrong.status_code, code(wrong)) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("accept", [JSON, RESPONSE_JSON, "*/*"])
async def test_a_subscription_without_a_stream_names_the_types(api: Api, accept: str) -> None:
    response = await post(api, SUBSCRIBE, accept)
    assert (response.status_code, code(response)) == (400, "SUBSCRIPTION_NEEDS_STREAM")
    message = response.json()["errors"][0]["message"]
    for kind in ("text/event-stream", "multipart/mixed;subscriptionSpec=1.0", "WebSocket"):
        assert kind in message


async def test_refusals_before_the_schema_have_the_type_asked_for(api: Api, server: str) -> None:
    async with httpx.AsyncClient(base_url=server, trust_env=False) as nobody:
        response = await nobody.post("/graphql", json=ASK, headers={"accept": RESPONSE_JSON})
    assert (response.status_code, code(response)) == (401, "API_KEY_MISSING")
    assert response.headers["content-type"].startswith(RESPONSE_JSON)
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_client_that_leaves_ends_its_query(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def slow(*_: Any, **__: Any) -> Any:
        began.set()
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    monkeypatch.setattr("app.jobs.queries.page", slow)
    asking = asyncio.create_task(post(api, {"query": "{ jobs { nodes { id } } }"}))
    await asyncio.wait_for(began.wait(), 5)
    asking.cancel()
    await asyncio.wait_for(ended.wait(), 2)


async def test_a_client_that_leaves_does_not_undo_its_mutation(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, finished = asyncio.Event(), asyncio.Event()

    async def slow(*_: Any, **__: Any) -> Any:
        began.set()
        await asyncio.sleep(0.3)
        finished.set()

    monkeypatch.setattr("app.accounts.service.create_project", slow)
    query = 'mutation { createProject(input: {name: "x"}) { userErrors { code } } }'
    asking = asyncio.create_task(post(api, {"query": query}))
    await asyncio.wait_for(began.wait(), 5)
    asking.cancel()
    await asyncio.wait_for(finished.wait(), 2)


async def test_an_operation_has_its_time(
    live: Any, viewer: Api, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(30)

    monkeypatch.setattr("app.jobs.queries.page", slow)
    monkeypatch.setitem(settings.__dict__, "graphql_seconds", 0.2)
    response = await post(viewer, {"query": "{ jobs { nodes { id } } }"})
    assert (response.status_code, code(response)) == (504, "TIMEOUT")
    assert "0.2 seconds" in response.json()["errors"][0]["message"]


async def test_a_bug_outside_the_schema_is_masked(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("hunter2")

    monkeypatch.setattr("app.api.graphql.http.asked", broken)
    response = await post(api, ASK)
    assert (response.status_code, code(response)) == (500, "INTERNAL")
    assert "hunter2" not in response.text
