"""The contract: `schema.graphql` is what the code says, and every part of it is described."""

from functools import cache
from pathlib import Path

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
    is_introspection_type,
    is_specified_scalar_type,
)

from app.api.graphql.schema import build

FILE = Path(__file__).parents[1] / "schema.graphql"


@cache
def schema() -> GraphQLSchema:
    return build_schema(FILE.read_text())


def test_the_schema_file_is_current() -> None:
    assert FILE.read_text() == f"{build([])}\n", "run `luthier schema --output schema.graphql`"


def test_every_part_of_the_schema_is_described() -> None:
    bare: list[str] = []

    def look(name: str, description: str | None) -> None:
        if not (description or "").strip():
            bare.append(name)

    for kind in schema().type_map.values():
        if is_introspection_type(kind) or is_specified_scalar_type(kind):
            continue
        look(kind.name, kind.description)
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in kind.fields.items():
                look(f"{kind.name}.{name}", field.description)
                for argument, detail in field.args.items():
                    look(f"{kind.name}.{name}({argument})", detail.description)
        elif isinstance(kind, GraphQLInputObjectType):
            for name, input_field in kind.fields.items():
                look(f"{kind.name}.{name}", input_field.description)
        elif isinstance(kind, GraphQLEnumType):
            for name, value in kind.values.items():
                look(f"{kind.name}.{name}", value.description)
        else:
            assert not isinstance(kind, GraphQLUnionType), "refusals are interfaces, not unions"
    assert bare == []


def test_mutations_take_one_input_and_answer_with_user_errors() -> None:
    mutation = schema().mutation_type
    assert mutation is not None
    for name, field in mutation.fields.items():
        verb = name[0].upper() + name[1:]
        shown = {argument: str(detail.type) for argument, detail in field.args.items()}
        assert shown == {"input": f"{verb}Input!"}, name
        assert str(field.type) == f"{verb}Payload!", name
        payload = schema().type_map[f"{verb}Payload"]
        assert isinstance(payload, GraphQLObjectType)
        assert str(payload.fields["userErrors"].type) == "[UserError!]!", name
        for part, detail in payload.fields.items():
            object_of_it = str(detail.type) != "[UserError!]!" and part not in ("warnings",)
            assert not object_of_it or not str(detail.type).endswith("!"), f"{name}.{part}"


def test_every_list_that_grows_is_a_connection() -> None:
    query = schema().query_type
    assert query is not None
    for name in ("jobs", "models", "baseModels", "datasets", "files", "deployments"):
        connection = schema().type_map[str(query.fields[name].type).rstrip("!")]
        assert isinstance(connection, GraphQLObjectType)
        wanted = {"edges", "nodes", "pageInfo", "totalCount"}
        assert wanted <= connection.fields.keys(), name
        assert {"first", "after"} <= query.fields[name].args.keys(), name
