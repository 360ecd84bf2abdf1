"""Which viewers see the same: a subscription's document and variables without the cursor."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import orjson
from graphql import (
    DocumentNode,
    FieldNode,
    NullValueNode,
    OperationDefinitionNode,
    StringValueNode,
    ValueNode,
    VariableNode,
    Visitor,
    visit,
)
from strawberry.types.graphql import OperationType

from app.api.graphql.caches import Documents
from app.api.graphql.live.channel import Read
from app.core.actor import Actor
from app.core.errors import Invalid
from app.events import cursors

_MOST = 1_000
_LONGEST = 20_000

NOW = -1  # `after` is omitted


@dataclass(frozen=True, slots=True)
class Request:
    """One operation as the client sent it."""

    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a subscription's document has its cursor. It is left out of the key only when it is a
    variable that stands nowhere else, for then nothing else can depend on it."""

    shared: bool = True
    variable: str | None = None
    default: ValueNode | None = None
    literal: ValueNode | None = None

    def key(self, request: Request, actor: Actor) -> Hashable | None:
        """Equal for those who see the same results; None: nobody can tell who does."""
        if not self.shared:
            return None
        variables = request.variables or {}
        if self.variable in variables:
            variables = {name: v for name, v in variables.items() if name != self.variable}
        canonical = orjson.dumps(variables, option=orjson.OPT_SORT_KEYS) if variables else b""
        who = (actor.org_id, actor.project_id, actor.role, actor.scopes)
        return (request.query, request.operation_name, canonical, who)

    def after(self, request: Request) -> int | None:
        """The position after which the client wants to begin, or NOW; None: let the resolver
        find out, and refuse it if it is nonsense."""
        value: Any = self.literal
        if self.variable is not None:
            value = (request.variables or {}).get(self.variable, self.default)
        if isinstance(value, StringValueNode):
            value = value.value
        if value is None or isinstance(value, NullValueNode):
            return NOW
        try:
            return cursors.decode(value) if isinstance(value, str) else None
        except Invalid:
            return None


class Plans:
    """The plans of documents seen lately."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._known: dict[tuple[str, str | None], Plan | None] = {}

    def of(self, request: Request) -> Plan | None:
        """None for what is no subscription."""
        place = (request.query, request.operation_name)
        if place in self._known:
            return self._known[place]
        kind = self._documents.operation_type(request.query, request.operation_name)
        plan = None
        if kind is OperationType.SUBSCRIPTION:
            known = self._documents.get(request.query)
            plan = _plan(known.document, request.operation_name) if known else Plan(shared=False)
        if kind is None or len(request.query) > _LONGEST:
            return plan  # it must not push out those that are worth keeping
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[place] = plan
        return plan


class Readers:
    """How the results of documents seen lately are read: a thousand groups of one document share
    what was found out, which stays in the processor's cache."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], Read] = {}

    def of(self, request: Request, find_out: Callable[[], Read]) -> Read:
        if "@" in request.query or len(request.query) > _LONGEST:
            return find_out()  # by a directive the variables choose the fields
        place = (request.query, request.operation_name)
        read = self._known.get(place)
        if read is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            read = self._known[place] = find_out()
        return read


def _plan(document: DocumentNode, name: str | None) -> Plan:
    found = [
        node
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
        and (name is None or (node.name and node.name.value == name))
    ]
    if len(found) != 1:
        return Plan(shared=False)
    operation = found[0]
    [*selected] = operation.selection_set.selections
    if len(selected) != 1 or not isinstance(selected[0], FieldNode):
        return Plan(shared=False)
    given = next((a.value for a in selected[0].arguments or () if a.name.value == "after"), None)
    if not isinstance(given, VariableNode):
        return Plan(literal=given)
    variable = given.name.value
    if _uses(document)[variable] != 1:
        return Plan(shared=False)
    declared = {d.variable.name.value: d for d in operation.variable_definitions or ()}
    default = declared[variable].default_value if variable in declared else None
    return Plan(variable=variable, default=default)


def _uses(document: DocumentNode) -> dict[str, int]:
    """How often each variable stands in the document, its declaration aside."""
    counts: dict[str, int] = {}

    class Count(Visitor):
        def enter_variable(self, node: VariableNode, *_: Any) -> None:
            counts[node.name.value] = counts.get(node.name.value, 0) + 1

    visit(document, Count())
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            for declared in definition.variable_definitions or ():
                counts[declared.variable.name.value] -= 1
    return counts
