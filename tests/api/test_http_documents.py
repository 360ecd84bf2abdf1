"""Documents by hash, and documents that are known already."""

import hashlib
from typing import Any

import httpx
import pytest

from app.api.graphql import caches, persisted
from app.api.graphql.caches import Documents
from app.api.graphql.persisted import PersistedQueryNotFound, Store, resolve_persisted
from tests.api.live import Server
from tests.support import Api, Refusal


def by_hash(query: str, *, version: int = 1, digest: str | None = None) -> dict[str, Any]:
    digest = digest or hashlib.sha256(query.encode()).hexdigest()
    return {"persistedQuery": {"version": version, "sha256Hash": digest}}


async def ask(api: Api, **body: Any) -> httpx.Response:
    return await api.http.post("/graphql", json=body)


async def test_a_text_is_asked_for_once(api: Api) -> None:
    query = "query Persisted { viewer { role } }"
    unknown = await ask(api, extensions=by_hash(query))
    [error] = unknown.json()["errors"]
    assert unknown.status_code == 200
    assert error["message"] == "PersistedQueryNotFound"  # by which clients know it
    assert error["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"
    told = await ask(api, query=query, extensions=by_hash(query))
    assert told.json()["data"] == {"viewer": {"role": "OWNER"}}
    known = await ask(api, extensions=by_hash(query))
    assert known.json()["data"] == told.json()["data"]
    extensions = by_hash(query)["persistedQuery"]["sha256Hash"]
    got = await api.http.get(
        "/graphql",
        params={"extensions": f'{{"persistedQuery":{{"version":1,"sha256Hash":"{extensions}"}}}}'},
    )
    assert got.json()["data"] == told.json()["data"]


@pytest.mark.parametrize(
    ("extensions", "code"),
    [
        (by_hash("{ viewer { role } }", digest="0" * 64), "PERSISTED_QUERY_HASH_MISMATCH"),
        (by_hash("{ viewer { role } }", version=2), "PERSISTED_QUERY_NOT_SUPPORTED"),
        ({"persistedQuery": {"version": 1}}, "PERSISTED_QUERY_NOT_SUPPORTED"),
        ({"persistedQuery": "x"}, "PERSISTED_QUERY_NOT_SUPPORTED"),
    ],
)
async def test_a_wrong_hash_is_refused(api: Api, extensions: dict[str, Any], code: str) -> None:
    response = await ask(api, query="{ viewer { role } }", extensions=extensions)
    assert response.status_code == 400
    assert response.json()["errors"][0]["extensions"]["code"] == code


def test_the_store_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    for n in range(3_000):
        store.put(str(n), "x" * 10_000)
    assert len(store._texts) == 400
    assert store._characters == 4_000_000
    store.put("long", "x" * 100_000)
    assert store.get("long") is None
    monkeypatch.setattr(persisted, "_store", store)
    with pytest.raises(PersistedQueryNotFound):
        resolve_persisted({"extensions": by_hash("anything")})
    assert resolve_persisted({"query": "{ a }"}) == "{ a }"
    assert resolve_persisted({}) is None


async def test_known_documents_are_judged_by_their_variables_each_time(api: Api) -> None:
    query = (
        "query Known($n: Int) { jobs(first: $n) { nodes { events(first: 100) { nodes { id } } } } }"
    )
    for size in (1, 5, 1):
        assert await api.execute(query, n=size) == {"jobs": {"nodes": []}}
    with pytest.raises(Refusal) as refused:
        await api.execute(query, n=1_000_000)
    assert refused.value.code == "QUERY_TOO_LARGE"
    assert await api.execute(query, n=1) == {"jobs": {"nodes": []}}


async def test_errors_come_again_and_again(api: Api) -> None:
    for query, code in (
        ("{ viewer { role }", "GRAPHQL_PARSE_FAILED"),
        ("{ viewer { role nothing } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ " + "viewer { role } " * 1_000 + "}", "QUERY_TOO_LARGE"),
    ):
        for _ in range(3):
            with pytest.raises(Refusal) as refused:
                await api.execute(query)
            assert refused.value.code == code


async def test_a_known_document_is_neither_parsed_nor_validated_again(
    live: Server, viewer: Api
) -> None:
    documents = live.engine.documents

    async def counts(query: str, *, twice: bool) -> tuple[int, int]:
        before = documents.parsed, documents.validated
        for _ in range(1 + twice):
            assert (await viewer.execute(query))["viewer"]["role"] == "OWNER"
            async with viewer.socket() as socket:
                await socket.send(id="1", type="subscribe", payload={"query": query})
                assert (await socket.receive())["type"] == "next"
        return documents.parsed - before[0], documents.validated - before[1]

    assert await counts("query Once { viewer { role } }", twice=False) == (1, 1)
    assert await counts("query Twice { viewer { role } }", twice=True) == (1, 1)


async def test_a_document_that_cannot_be_parsed_is_tried_once(live: Server, viewer: Api) -> None:
    documents = live.engine.documents
    for query in ("query Broken { viewer {", "query { " + "a " * 30_000 + "}"):
        before, seen = documents.parsed, set()
        for _ in range(2):
            with pytest.raises(Refusal) as refused:
                await viewer.execute(query)
            seen.add((refused.value.code, refused.value.errors[0]["message"]))
        assert (documents.parsed - before, len(seen)) == (1, 1)


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_MOST", 50)
    documents = Documents(1_000)
    for n in range(200):
        documents.operation_type(f"query A{n} {{ a }}", None)
    assert len(documents) == 50
    documents.operation_type("query { " + " " * 30_000 + "a }", None)
    assert len(documents) == 50
    assert documents.get("query A0 { a }") is None
    assert documents.get("query A199 { a }") is not None
