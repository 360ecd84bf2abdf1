"""GraphQL documents made from the schema that the server itself describes."""

from collections.abc import Iterator
from typing import Any

from graphql import (
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    build_client_schema,
    get_introspection_query,
    get_named_type,
    is_leaf_type,
    is_required_argument,
)

from tests.support import Api


async def schema_of(api: Api) -> GraphQLSchema:
    return build_client_schema(await api.execute(get_introspection_query()))  # type: ignore[arg-type]


def root_fields(schema: GraphQLSchema) -> set[str]:
    """`Query.job` and all the others that an operation can begin with."""
    roots = (schema.query_type, schema.mutation_type, schema.subscription_type)
    return {f"{root.name}.{name}" for root in roots if root for name in root.fields}


def id_arguments(schema: GraphQLSchema) -> set[str]:
    """Where an id goes in, anywhere in the schema: `Mutation.setMember.input.id`."""
    return {
        f"{field}.{path}"
        for field, name, kind in _arguments(schema)
        for path in _ids_in(name, kind)
    }


def cursor_arguments(schema: GraphQLSchema) -> set[str]:
    return {
        f"{field}.{name}" for field, name, _ in _arguments(schema) if name in ("after", "before")
    }


def document(schema: GraphQLSchema, field: str, given: set[str], depth: int) -> str:
    """The operation for `Query.job` with these arguments as variables, selecting `depth` levels."""
    root_name, _, name = field.partition(".")
    root = schema.type_map[root_name]
    assert isinstance(root, GraphQLObjectType)
    definition = root.fields[name]
    variables = ", ".join(f"${n}: {definition.args[n].type}" for n in sorted(given))
    passed = ", ".join(f"{n}: ${n}" for n in sorted(given))
    selected = _selection(definition.type, depth)
    declared, used = (f"({variables})", f"({passed})") if given else ("", "")
    return f"{root_name.lower()} {declared} {{ {name}{used} {selected} }}"


def placed(path: str, id: str) -> dict[str, Any]:
    """Variables with the id at the path's end: `Mutation.setMember.input.id` → {input: {id}}."""
    *outer, last = path.split(".")[2:]
    value: dict[str, Any] = {last: [id] if last == "ids" else id}
    for name in reversed(outer):
        value = {name: value}
    return value


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both, inner objects joined."""
    both = dict(first)
    for name, value in second.items():
        both[name] = merged(both[name], value) if name in both else value
    return both


def _arguments(schema: GraphQLSchema) -> Iterator[tuple[str, str, Any]]:
    for type_name, kind in schema.type_map.items():
        if isinstance(kind, GraphQLObjectType) and not type_name.startswith("__"):
            for field_name, field in kind.fields.items():
                for name, argument in field.args.items():
                    yield f"{type_name}.{field_name}", name, argument.type


def _ids_in(path: str, kind: Any) -> Iterator[str]:
    named = get_named_type(kind)
    if named.name == "ID":
        yield path
    elif isinstance(named, GraphQLInputObjectType):
        for name, field in named.fields.items():
            yield from _ids_in(f"{path}.{name}", field.type)


def _selection(kind: Any, depth: int) -> str:
    named = get_named_type(kind)
    if is_leaf_type(named):
        return ""
    assert isinstance(named, GraphQLObjectType | GraphQLInterfaceType)
    parts = ["__typename"]
    for name, field in named.fields.items():
        if any(is_required_argument(argument) for argument in field.args.values()):
            continue
        if is_leaf_type(get_named_type(field.type)):
            parts.append(name)
        elif depth > 1 or name == "userErrors":
            parts.append(f"{name} {_selection(field.type, depth - 1)}")
    return "{ " + " ".join(parts) + " }"
