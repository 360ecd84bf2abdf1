"""The examples that the page opens with are promises: they must be valid, and run as they are."""

import json
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    DocumentNode,
    GraphQLSchema,
    OperationDefinitionNode,
    build_schema,
    parse,
    validate,
)
from graphql.execution.values import get_variable_values

from app.web.pages import STATIC

BOOK: dict[str, Any] = json.loads((STATIC / "graphiql" / "examples.json").read_text("utf-8"))
EXAMPLES: dict[str, dict[str, Any]] = {each["title"]: each for each in BOOK["examples"]}
PLACEHOLDERS: dict[str, dict[str, str]] = BOOK["placeholders"]
SDL = Path(__file__).parents[2] / "schema.graphql"


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    if not SDL.exists():
        pytest.skip("there is no schema.graphql yet")
    return build_schema(SDL.read_text("utf-8"))


def document(example: dict[str, Any]) -> DocumentNode:
    return parse("\n".join(example["query"]))


def operations(parsed: DocumentNode) -> list[OperationDefinitionNode]:
    return [node for node in parsed.definitions if isinstance(node, OperationDefinitionNode)]


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_is_complete(title: str) -> None:
    example = EXAMPLES[title]
    found = operations(document(example))
    assert found
    assert all(operation.name for operation in found)
    assert len(title) <= 40, "the tab cuts longer names"
    assert max(len(line) for line in example["query"]) <= 62, "the editor is narrow"
    declared = {each.variable.name.value for op in found for each in op.variable_definitions or ()}
    assert declared >= set(example.get("variables", {}))


def test_every_placeholder_is_known_and_used() -> None:
    text = json.dumps([each.get("variables") for each in EXAMPLES.values()])
    assert all(json.dumps(name) in text for name in PLACEHOLDERS)
    assert text.count('"<') == sum(text.count(json.dumps(name)) for name in PLACEHOLDERS)


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_a_placeholder_reads_what_it_asks_for(name: str) -> None:
    """Its path must walk through the fields that its own query selects."""
    query, path = PLACEHOLDERS[name]["query"], PLACEHOLDERS[name]["path"]
    (operation,) = operations(parse(query))
    selection: Any = operation.selection_set
    for key in path.split("."):
        if not key.isdigit():
            (field,) = selection.selections
            assert field.name.value == key
            selection = field.selection_set
    assert selection is None


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_fits_the_schema(schema: GraphQLSchema, title: str) -> None:
    example = EXAMPLES[title]
    parsed = document(example)
    assert [error.message for error in validate(schema, parsed)] == []
    for operation in operations(parsed):
        values = get_variable_values(
            schema, operation.variable_definitions or (), example.get("variables", {})
        )
        assert not isinstance(values, list), values


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_a_placeholder_fits_the_schema(schema: GraphQLSchema, name: str) -> None:
    assert [error.message for error in validate(schema, parse(PLACEHOLDERS[name]["query"]))] == []
