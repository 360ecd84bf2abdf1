"""How a stream over plain HTTP learns its cursors, and goes on after one.

Server-sent events have ids, and a browser that reconnects names the last one in `Last-Event-ID`.
Our ids are the cursors of the API. So the document gets `cursor` selected under an alias of ours,
which is taken out of each result again; and on a reconnect its argument `after` is set. The text
is changed in place, not printed anew, so that errors still point at the right line.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    get_named_type,
    parse,
)

_CURSOR = "luthierCursor"
_AFTER = "luthierAfter"
_LONGEST = 20_000


@dataclass(frozen=True)
class Resumable:
    """A subscription whose results can say where they stand: `field` is their key in the data."""

    text: str
    field: str
    text_after: str
    variable: str

    def take_cursor(self, data: dict[str, Any] | None) -> str | None:
        """The result's cursor, removed from it."""
        value = data.get(self.field) if data else None
        cursor = value.pop(_CURSOR, None) if isinstance(value, dict) else None
        return cursor if isinstance(cursor, str) else None


@lru_cache(maxsize=256)
def resumable(schema: GraphQLSchema, query: str, operation_name: str | None) -> Resumable | None:
    """None for what is no subscription with a cursor, or hides it in a fragment: that works, but
    without ids."""
    if len(query) > _LONGEST:
        return None
    try:
        operation = _operation(parse(query, max_tokens=5_000), operation_name)
    except GraphQLError:
        return None
    if operation is None or operation.operation is not OperationType.SUBSCRIPTION:
        return None
    [*selected] = operation.selection_set.selections
    if len(selected) != 1 or not isinstance(selected[0], FieldNode):
        return None
    root = selected[0]
    roots = schema.subscription_type.fields if schema.subscription_type else {}
    known = roots.get(root.name.value)
    kind = get_named_type(known.type) if known else None
    if known is None or not isinstance(kind, GraphQLObjectType) or "cursor" not in kind.fields:
        return None
    if "after" not in known.args or root.selection_set is None:
        return None
    place = _start(root.selection_set) + 1
    cursor = (place, place, f" {_CURSOR}: cursor ")
    after, variable = _after(operation, root)
    return Resumable(
        text=_edited(query, [cursor]),
        field=(root.alias or root.name).value,
        text_after=_edited(query, [cursor, *after]),
        variable=variable,
    )


def _operation(document: DocumentNode, name: str | None) -> OperationDefinitionNode | None:
    found = [
        node
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
        and (name is None or (node.name and node.name.value == name))
    ]
    return found[0] if len(found) == 1 else None


_Edit = tuple[int, int, str]


def _after(operation: OperationDefinitionNode, root: FieldNode) -> tuple[list[_Edit], str]:
    """The changes that make `after` a variable, and its name; none when it is one already."""
    edits: list[_Edit] = []
    arguments = list(root.arguments or ())
    given = next((a for a in arguments if a.name.value == "after"), None)
    if given is not None and isinstance(given.value, VariableNode):
        return [], given.value.name.value
    if given is not None:
        edits.append((_start(given.value), _end(given.value), f"${_AFTER}"))
    elif arguments:
        place = _start(arguments[0])
        edits.append((place, place, f"after: ${_AFTER} "))
    else:
        place = _end(root.name)
        edits.append((place, place, f"(after: ${_AFTER})"))
    variables = list(operation.variable_definitions or ())
    if variables:
        place, declared = _start(variables[0]), f"${_AFTER}: String "
    elif operation.name:
        place, declared = _end(operation.name), f"(${_AFTER}: String)"
    else:
        place, declared = _start(operation) + len("subscription"), f" (${_AFTER}: String)"
    edits.append((place, place, declared))
    return edits, _AFTER


def _start(node: Any) -> int:
    return int(node.loc.start)


def _end(node: Any) -> int:
    return int(node.loc.end)


def _edited(text: str, edits: list[_Edit]) -> str:
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text
