"""How a document is made to tell its cursors, and to go on after one."""

import pytest
from graphql import GraphQLSchema, build_schema

from app.api.graphql.resume import resumable

SCHEMA = """
type Query { a: Int }
type Event { cursor: String! type: String inner: Event }
type Subscription { events(id: ID, after: String): Event! bare(after: String): Int }
"""


@pytest.fixture(scope="module")
def small() -> GraphQLSchema:
    return build_schema(SCHEMA)


@pytest.mark.parametrize(
    ("query", "text", "after"),
    [
        (
            "subscription { events { type } }",
            "subscription { events { luthierCursor: cursor  type } }",
            "subscription ($luthierAfter: String) { events(after: $luthierAfter)"
            " { luthierCursor: cursor  type } }",
        ),
        (
            "subscription S { e: events(id: 5) { type } }",
            "subscription S { e: events(id: 5) { luthierCursor: cursor  type } }",
            "subscription S($luthierAfter: String) { e: events(after: $luthierAfter id: 5)"
            " { luthierCursor: cursor  type } }",
        ),
        (
            'subscription S($i: ID) { events(id: $i, after: "0") { type } }',
            'subscription S($i: ID) { events(id: $i, after: "0") { luthierCursor: cursor  type } }',
            "subscription S($luthierAfter: String $i: ID) { events(id: $i, after: $luthierAfter)"
            " { luthierCursor: cursor  type } }",
        ),
    ],
)
def test_a_document_is_changed_in_place(
    small: GraphQLSchema, query: str, text: str, after: str
) -> None:
    found = resumable(small, query, None)
    assert found is not None
    assert (found.text, found.text_after) == (text, after)


@pytest.mark.parametrize(
    "query",
    [
        "{ a }",
        "subscription { bare }",
        "subscription { nothing { a } }",
        "subscription { ...F } fragment F on Subscription { events { type } }",
        "subscription { events }",
        "subscription {",
        "subscription A { events { type } } subscription B { events { type } }",
    ],
)
def test_what_has_no_cursor_is_left_alone(small: GraphQLSchema, query: str) -> None:
    assert resumable(small, query, None) is None


def test_a_variable_of_the_clients_is_used(small: GraphQLSchema) -> None:
    found = resumable(small, "subscription ($a: String) { events(after: $a) { type } }", None)
    assert found is not None
    assert (found.variable, found.text_after) == ("a", found.text)
