"""Documents that would cost much are refused before they cost anything; ordinary ones are not."""

import time
from typing import Any

import pytest
from graphql import build_client_schema, get_introspection_query

from tests.api.attacks import bomb, deep
from tests.support import Api

REFUSED: dict[str, tuple[str, str | None]] = {
    "too deep": (deep(20), "levels"),
    "a little too deep": (deep(12), None),
    "too wide": ("{ viewer { " + "role " * 400 + "} }", "selections in one place"),
    "480 equal selections": (
        "{ " + "jobs { totalCount } " * 480 + "}",
        "selections in one place",
    ),
    "equal selections in inline fragments": (
        "{ " + " ".join("... { " + "jobs { totalCount } " * 90 + "}" for _ in range(6)) + "}",
        None,
    ),
    "too many aliases": (
        "{ " + " ".join(f"a{n}: viewer {{ role }}" for n in range(40)) + " }",
        "aliases",
    ),
    "too many tokens": ("{ " + "viewer { role } " * 15_000 + "}", None),
    "too many fragments": (
        "{ " + "...F0 } " + " ".join(f"fragment F{n} on Query {{ a }}" for n in range(60)),
        "fragments",
    ),
    "too many operations": (
        " ".join(f"query Q{n} {{ viewer {{ role }} }}" for n in range(9)),
        "operations",
    ),
    "too many directives": (
        "{ viewer { role " + "@include(if: true) " * 40 + "} }",
        "directives",
    ),
    "directives on a fragment": (
        "{ ..." + " @skip(if: false)" * 40 + " { viewer { role } } }",
        "directives",
    ),
    "500 unknown directives": ("{ viewer { role " + "@x " * 500 + "} }", "directives"),
    "nested page sizes": (
        "{ jobs(first: 200) { nodes { checkpoints(first: 200) { nodes { id } } } } }",
        "objects",
    ),
    "nested page sizes left out": (
        "{ datasets { nodes { versions { dataset { versions { dataset { id } } } } } } }",
        "objects",
    ),
    "points of many jobs": (
        "{ jobs(first: 200) { nodes { metrics(maxPoints: 5000) { step } } } }",
        "objects",
    ),
    "a page size in each alias": (
        "{ "
        + " ".join(
            f"j{n}: jobs(first: 200) {{ nodes {{ events {{ nodes {{ id }} }} }} }}"
            for n in range(9)
        )
        + " }",
        "objects",
    ),
    "brackets": ("{ job(id: " + "[" * 900 + "]" * 900 + ") { id } }", None),
    "braces": ("{ a " * 900 + "} " * 900, None),
    "inline fragments": ("{ " + "... { " * 300 + "viewer { role } " + "} " * 300 + "}", None),
    "types": ("query ($a: " + "[" * 900 + "Int" + "]" * 900 + ") { viewer { role } }", None),
    "introspection of introspection": (
        "{ __schema { types { " + "fields { type { " * 12 + "name " + "} } " * 12 + "} } }",
        "levels",
    ),
    **{f"{n} fragments twice each": (bomb(n), "fields") for n in (20, 30, 40)},
    **{f"{n} fragments with aliases": (bomb(n), "fields") for n in (16, 25)},
}


async def refused(api: Api, query: str, **variables: Any) -> dict[str, Any]:
    """The one error of a document, which came at once."""
    began = time.perf_counter()
    response = await api.http.post("/graphql", json={"query": query, "variables": variables})
    took = time.perf_counter() - began
    answer = response.json()
    assert answer.get("data") is None
    [error] = answer["errors"]
    assert error["extensions"]["code"] == "QUERY_TOO_LARGE", error
    assert took < 1, f"{took:.2f} s"
    assert len(response.content) < 1_000
    found: dict[str, Any] = error
    return found


@pytest.mark.parametrize("name", REFUSED)
async def test_a_document_that_asks_too_much_is_refused_at_once(api: Api, name: str) -> None:
    query, what = REFUSED[name]
    error = await refused(api, query)
    if what is not None:
        assert error["extensions"]["what"] == what
        assert error["extensions"]["limit"] > 0
        assert str(error["extensions"]["limit"]) in error["message"]


@pytest.mark.parametrize("size", [200, 10**9, 200.0])
async def test_a_page_size_in_a_variable_counts(api: Api, size: float) -> None:
    query = (
        "query ($n: Int) { jobs(first: $n) { nodes { checkpoints(first: $n) { nodes { id } } } } }"
    )
    error = await refused(api, query, n=size)
    assert error["extensions"]["what"] == "objects"


async def test_a_refusal_takes_the_place_of_the_work_on_a_socket_too(api: Api) -> None:
    async with api.socket() as socket:
        for n, query in enumerate((bomb(40), REFUSED["too many tokens"][0])):
            began = time.perf_counter()
            await socket.send(id=str(n), type="subscribe", payload={"query": query})
            answer = await socket.receive()
            assert time.perf_counter() - began < 1
            assert (answer["type"], answer["id"]) == ("error", str(n))
            assert answer["payload"][0]["extensions"]["code"] == "QUERY_TOO_LARGE"


@pytest.mark.parametrize("descriptions", [True, False])
async def test_the_introspection_query_of_ordinary_tools_passes(
    api: Api, descriptions: bool
) -> None:
    query = get_introspection_query(
        descriptions=descriptions,
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
    )
    data = await api.execute(query)
    schema = build_client_schema(data)  # type: ignore[arg-type]
    assert schema.query_type is not None
    assert "jobs" in schema.query_type.fields


@pytest.mark.parametrize(
    "query",
    [
        deep(6),
        bomb(4),
        "{ jobs(first: 200) { totalCount nodes { id name status progress { percent } owner: ownerId"
        " latestMetrics { trainingLoss } trainingData { id } model { name } cursor } } }",
        "{ jobs(first: 20) { nodes { id events(first: 20) { nodes { message } }"
        " metrics(maxPoints: 10) { step trainingLoss } } } }",
        "{ jobs { nodes { id metrics { step trainingLoss } } } }",
        "{ jobs(first: 5) { nodes { id metrics(maxPoints: 500) { step trainingLoss } } } }",
        "{ " + " ".join(f"j{n}: job(id: {n}) {{ id status }}" for n in range(30)) + " }",
        "{ datasets { nodes { id versions { id number caseCount report { warnings } } } } }",
        "{ ...A ...A } fragment A on Query { jobs { nodes { ...J } } } fragment J on Job { id }",
    ],
)
async def test_an_ordinary_document_passes(api: Api, query: str) -> None:
    assert await api.execute(query) is not None


async def test_faults_that_are_not_of_size_keep_their_own_words(api: Api) -> None:
    for query, says in (
        ("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }", "Cannot spread"),
        ("{ ...Missing }", "Unknown fragment"),
        ("{ jobs(first: -5) { totalCount } }", "between 0 and 200"),
    ):
        response = await api.http.post("/graphql", json={"query": query})
        assert says in response.json()["errors"][0]["message"]
