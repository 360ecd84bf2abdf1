"""The outermost guard: bounds every document in one memoised pass, before validation.

Strawberry's own depth and alias limiters walk fragment spreads without memory, so a query of 700
bytes keeps them busy for seconds. Here each fragment is measured once and each sum is cut off at
its limit. What graphql-core itself refuses (unknown or circular fragments) is left to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
)
from strawberry.extensions import SchemaExtension

from app.core.paging import DEFAULT, MOST
from app.core.settings import Settings

_PAGES = ("first", "last", "maxPoints")
_SELECTIONS = 100
_DIRECTIVES = 30
_OPERATIONS = 5
_FRAGMENTS = 50
_INTROSPECTION = ("__schema", "__type")
_INTROSPECTION_DEPTH = 20
_CONNECTIONS = (
    "jobs", "events", "checkpoints", "models", "deployments", "datasets", "files", "baseModels",
    "auditLog",
)  # fmt: skip
_WORDS = {"depth": "levels", "cost": "objects"}
# How many objects a field is taken to give when no size is asked for.
_UNASKED = dict.fromkeys(_CONNECTIONS, DEFAULT) | {"metrics": 500, "versions": MOST}


@dataclass
class _Measure:
    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0
    cost: int = 0


class TooMuch(Exception):
    """The document passes a limit."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"The document has too many {what}: the limit is {limit}.")
        self.what, self.limit = what, limit


class Guard:
    def __init__(self, settings: Settings) -> None:
        self._limits = {
            "depth": settings.graphql_max_depth,
            "fields": settings.graphql_max_fields,
            "aliases": settings.graphql_max_aliases,
            "directives": _DIRECTIVES,
            "cost": settings.graphql_max_cost,
        }
        self.tokens = settings.graphql_max_tokens

    def check(self, document: DocumentNode, variables: dict[str, Any] | None) -> None:
        """Raise TooMuch, naming the limit. Time is linear in the document's length."""
        operations: list[OperationDefinitionNode] = []
        fragments: dict[str, FragmentDefinitionNode] = {}
        for definition in document.definitions:
            if isinstance(definition, OperationDefinitionNode):
                operations.append(definition)
            elif isinstance(definition, FragmentDefinitionNode):
                fragments[definition.name.value] = definition
        if len(operations) > _OPERATIONS:
            raise TooMuch("operations", _OPERATIONS)
        if len(fragments) > _FRAGMENTS:
            raise TooMuch("fragments", _FRAGMENTS)
        walk = _Walk(fragments, self._limits, variables or {})
        for operation in operations:
            if walk.measure(operation.selection_set).depth > self._limits["depth"]:
                raise TooMuch("levels", self._limits["depth"])


class _Walk:
    def __init__(
        self,
        fragments: dict[str, FragmentDefinitionNode],
        limits: dict[str, int],
        variables: dict[str, Any],
    ) -> None:
        self._fragments, self._limits, self._variables = fragments, limits, variables
        self._known: dict[str, _Measure] = {}
        self._open: set[str] = set()

    def measure(self, selections: SelectionSetNode | None) -> _Measure:
        total = _Measure()
        if selections is None:
            return total
        if len(selections.selections) > _SELECTIONS:
            raise TooMuch("selections in one place", _SELECTIONS)
        for node in selections.selections:
            for part in self._parts(node):
                total.depth = max(total.depth, part.depth)
                total.fields += part.fields
                total.aliases += part.aliases
                total.directives += part.directives
                total.cost += part.cost
            total.directives += len(node.directives or ())
            self._refuse(total)
        return total

    def _parts(self, node: Any) -> Iterator[_Measure]:
        if isinstance(node, FieldNode):
            below = self.measure(node.selection_set)
            times = self._page_size(node)
            if node.selection_set:
                below.cost = min(max(1, below.cost) * times + 1, 10**9)
            below.depth += 1
            if node.name.value in _INTROSPECTION:
                # Explorers and code generators nest deeper than any query of ours needs to.
                if below.depth > _INTROSPECTION_DEPTH:
                    raise TooMuch("levels of introspection", _INTROSPECTION_DEPTH)
                below.depth = 1
            below.fields += 1
            below.aliases += node.alias is not None
            yield below
        elif isinstance(node, InlineFragmentNode):
            yield self.measure(node.selection_set)
        elif isinstance(node, FragmentSpreadNode):
            yield self._fragment(node.name.value)

    def _fragment(self, name: str) -> _Measure:
        if name in self._open or name not in self._fragments:
            return _Measure()  # circular or unknown: graphql-core says so with its own words
        if name not in self._known:
            self._open.add(name)
            self._known[name] = self.measure(self._fragments[name].selection_set)
            self._open.remove(name)
        known = self._known[name]
        return _Measure(known.depth, known.fields, known.aliases, known.directives, known.cost)

    def _page_size(self, node: FieldNode) -> int:
        for argument in node.arguments or ():
            if argument.name.value in _PAGES:
                value: Any = None
                if isinstance(argument.value, IntValueNode):
                    value = int(argument.value.value)
                elif isinstance(argument.value, VariableNode):
                    value = self._variables.get(argument.value.name.value)
                return max(1, value) if isinstance(value, int) else MOST
        return _UNASKED.get(node.name.value, 1)

    def _refuse(self, total: _Measure) -> None:
        for what, limit in self._limits.items():
            # A part may turn out to be of an introspection; `check` judges the whole depth.
            most = max(limit, _INTROSPECTION_DEPTH) if what == "depth" else limit
            if getattr(total, what) > most:
                raise TooMuch(_WORDS.get(what, what), limit)


class GuardExtension(SchemaExtension):
    """Runs the guard in the place of validation when it refuses."""

    guard: Guard

    def on_operation(self) -> Iterator[None]:
        """The parser itself stops at so many tokens: reading a long document is slow too."""
        self.execution_context.parse_options["max_tokens"] = self.guard.tokens
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        document = context.graphql_document
        if document is not None:
            if self._unclear_operation(document):
                context.pre_execution_errors = [
                    GraphQLError(
                        "The document holds several operations: name one in operationName.",
                        extensions={"code": "OPERATION_RESOLUTION_FAILURE"},
                    )
                ]
            try:
                self.guard.check(document, context.variables)
            except TooMuch as refusal:
                context.pre_execution_errors = [
                    GraphQLError(
                        f"{refusal} Ask for less at once, or in several requests.",
                        extensions={
                            "code": "QUERY_TOO_LARGE",
                            "what": refusal.what,
                            "limit": refusal.limit,
                        },
                    )
                ]
        yield

    def _unclear_operation(self, document: DocumentNode) -> bool:
        # `operation_name` is the first operation's when none was given.
        named = self.execution_context._provided_operation_name
        operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
        return named is None and len(operations) > 1


def guarded(settings: Settings) -> type[GuardExtension]:
    """The extension with these settings' limits."""
    return type("ConfiguredGuard", (GuardExtension,), {"guard": Guard(settings)})
