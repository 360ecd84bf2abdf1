"""The outermost guard: bounds every document in one memoised pass, before validation.

Strawberry's own depth and alias limiters walk fragment spreads without memory, so a query of 700
bytes keeps them busy for seconds. Here each fragment is measured once and each sum is cut off at
its limit. What graphql-core itself refuses (unknown or circular fragments) is left to it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)
from strawberry.extensions import SchemaExtension
from strawberry.types.graphql import OperationType

from app.api.graphql.caches import Documents, Known
from app.api.graphql.weights import Variables, Weights, lengths
from app.api.limits import EACH, RateLimited
from app.core.settings import Settings

_SELECTIONS = 100
_DIRECTIVES = 30
_OPERATIONS = 5
_FRAGMENTS = 50
_INTROSPECTION = ("__schema", "__type")
_INTROSPECTION_DEPTH = 20
_WORDS = {"depth": "levels", "cost": "objects"}
_COSTS = 100  # kept for each document: one for each size that clients ask for


@dataclass(slots=True)
class _Measure:
    """`paged` is the cost of the lists in a page, for each of its rows."""

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0
    cost: int = 0
    paged: int = 0


class Refusal(Exception):
    """The document passes a limit, or asks for what is off."""

    def __init__(self, message: str, **extensions: Any) -> None:
        super().__init__(message)
        self.extensions = extensions


def too_much(what: str, limit: int) -> Refusal:
    return Refusal(
        f"The document has too many {what}: the limit is {limit}. Ask for less at once, or in "
        "several requests.",
        code="QUERY_TOO_LARGE",
        what=what,
        limit=limit,
    )


class Guard:
    def __init__(self, settings: Settings) -> None:
        self._limits = {
            "depth": settings.graphql_max_depth,
            "fields": settings.graphql_max_fields,
            "aliases": settings.graphql_max_aliases,
            "directives": _DIRECTIVES,
            "cost": settings.graphql_max_cost,
        }
        self._introspection = settings.introspection
        self._weights: Weights | None = None

    def cost(
        self,
        schema: GraphQLSchema,
        known: Known,
        variables: dict[str, Any],
        name: str | None,
    ) -> int:
        """The objects that the named (or only) operation may give. Raises Refusal, naming the
        limit. Time is linear in the document's length, and a document's cost is remembered."""
        if known.sizing is not None:
            asked = (name, *lengths(variables, known.sizing))
            if asked in known.costs:
                return known.costs[asked]
        if self._weights is None or self._weights.schema is not schema:
            self._weights = Weights(schema)
        sizing: set[str] = set()
        found = self._judge(self._weights, known.document, variables, name, sizing)
        known.sizing = tuple(sizing)
        if len(known.costs) >= _COSTS:
            known.costs.clear()
        known.costs[(name, *lengths(variables, known.sizing))] = found
        return found

    def _judge(
        self,
        weights: Weights,
        document: DocumentNode,
        given: dict[str, Any],
        name: str | None,
        sizing: set[str],
    ) -> int:
        operations: list[OperationDefinitionNode] = []
        fragments: dict[str, FragmentDefinitionNode] = {}
        for definition in document.definitions:
            if isinstance(definition, OperationDefinitionNode):
                operations.append(definition)
            elif isinstance(definition, FragmentDefinitionNode):
                fragments[definition.name.value] = definition
        if len(operations) > _OPERATIONS:
            raise too_much("operations", _OPERATIONS)
        if len(fragments) > _FRAGMENTS:
            raise too_much("fragments", _FRAGMENTS)
        _count_directives([*operations, *fragments.values()])
        cost = 0
        for operation in operations:
            variables = Variables(operation, given)
            walk = _Walk(weights, fragments, self._limits, variables, self._introspection)
            root = weights.schema.get_root_type(operation.operation)
            total = walk.measure(operation.selection_set, root)
            sizing |= variables.sizing
            if total.depth > self._limits["depth"]:
                raise too_much("levels", self._limits["depth"])
            if name is None or (operation.name and operation.name.value == name):
                cost = total.cost
        return max(1, cost)


def _count_directives(
    definitions: Iterable[OperationDefinitionNode | FragmentDefinitionNode],
) -> None:
    """Those that stand outside of selections."""
    count = 0
    for definition in definitions:
        count += len(definition.directives or ())
        for variable in definition.variable_definitions or ():
            count += len(variable.directives or ())
    if count > _DIRECTIVES:
        raise too_much("directives", _DIRECTIVES)


class _Walk:
    def __init__(
        self,
        weights: Weights,
        fragments: dict[str, FragmentDefinitionNode],
        limits: dict[str, int],
        variables: Variables,
        introspection: bool,
    ) -> None:
        self._weights, self._fragments, self._limits = weights, fragments, limits
        self._variables, self._introspection = variables, introspection
        self._known: dict[str, _Measure] = {}
        self._open: set[str] = set()

    def measure(
        self, selections: SelectionSetNode | None, kind: GraphQLNamedType | None
    ) -> _Measure:
        total = _Measure()
        if selections is None:
            return total
        if len(selections.selections) > _SELECTIONS:
            raise too_much("selections in one place", _SELECTIONS)
        for node in selections.selections:
            part = self._part(node, kind)
            total.depth = max(total.depth, part.depth)
            total.fields += part.fields
            total.aliases += part.aliases
            total.directives += part.directives + len(node.directives or ())
            total.cost += part.cost
            total.paged += part.paged
            self._refuse(total)
        return total

    def _part(self, node: Any, kind: GraphQLNamedType | None) -> _Measure:
        if isinstance(node, FieldNode):
            return self._field(node, kind)
        if isinstance(node, InlineFragmentNode):
            return self.measure(node.selection_set, self._narrowed(node, kind))
        return self._fragment(node) if isinstance(node, FragmentSpreadNode) else _Measure()

    def _field(self, node: FieldNode, kind: GraphQLNamedType | None) -> _Measure:
        name = node.name.value
        weight = self._weights.of(kind, name)
        found = self.measure(node.selection_set, weight.of if weight else None)
        if weight:
            size = self._variables.size(weight, node)
            each = found.cost + bool(node.selection_set)
            if weight.in_page:
                found.cost, found.paged = 0, size * each
            elif weight.page:
                found.cost, found.paged = each + size * found.paged, 0
            else:
                found.cost, found.paged = size * each + weight.extra, 0
        found.depth += 1
        if name in _INTROSPECTION:
            if not self._introspection:
                raise Refusal(
                    "Introspection is off on this server. Ask its operator for the schema.",
                    code="INTROSPECTION_OFF",
                )
            # Explorers and code generators nest deeper than any query of ours needs to.
            if found.depth > _INTROSPECTION_DEPTH:
                raise too_much("levels of introspection", _INTROSPECTION_DEPTH)
            found.depth = 1
        found.fields += 1
        found.aliases += node.alias is not None
        return found

    def _fragment(self, node: FragmentSpreadNode) -> _Measure:
        name = node.name.value
        if name in self._open or name not in self._fragments:
            return _Measure()  # circular or unknown: graphql-core says so with its own words
        if name not in self._known:
            self._open.add(name)
            fragment = self._fragments[name]
            self._known[name] = self.measure(fragment.selection_set, self._narrowed(fragment, None))
            self._open.remove(name)
        return replace(self._known[name])

    def _narrowed(
        self, node: InlineFragmentNode | FragmentDefinitionNode, kind: GraphQLNamedType | None
    ) -> GraphQLNamedType | None:
        condition = node.type_condition
        return self._weights.schema.get_type(condition.name.value) if condition else kind

    def _refuse(self, total: _Measure) -> None:
        for what, limit in self._limits.items():
            # A part may turn out to be of an introspection; `_judge` judges the whole depth.
            most = max(limit, _INTROSPECTION_DEPTH) if what == "depth" else limit
            if getattr(total, what) > most:
                raise too_much(_WORDS.get(what, what), limit)


class GuardExtension(SchemaExtension):
    """Runs the guard in the place of validation when it refuses, and spends what it finds."""

    guard: Guard
    documents: Documents

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        document = context.graphql_document
        if document is not None:
            try:
                self._judge(document)
            except Refusal as refusal:
                context.pre_execution_errors = [
                    GraphQLError(str(refusal), extensions=refusal.extensions)
                ]
            except RateLimited as refusal:
                context.pre_execution_errors = [
                    GraphQLError(refusal.message, original_error=refusal)
                ]
        yield

    def _judge(self, document: DocumentNode) -> None:
        context = self.execution_context
        # `operation_name` is the first operation's when none was given.
        name = context._provided_operation_name
        known = self.documents.get(context.query)
        if known is None or known.document is not document:
            known = Known(document)
        cost = self.guard.cost(context.schema._schema, known, context.variables or {}, name)
        if name is None and _operations(document) > 1:
            raise Refusal(
                "The document holds several operations: name one in operationName.",
                code="OPERATION_RESOLUTION_FAILURE",
            )
        asking = context.context
        # A subscription that goes on after its viewer could not be told anything was paid for.
        if asking is None or asking.live.start is not None:
            return
        rates = asking.services.limits.rates
        left = rates.spend(asking.actor.key_id, cost)
        # An event's bytes are shared by its viewers, of whom each has spent something else.
        if context.operation_type is not OperationType.SUBSCRIPTION:
            context.extensions_results["cost"] = {
                "requested": EACH + cost,
                "remaining": left,
                "limit": rates.per_minute,
            }


def _operations(document: DocumentNode) -> int:
    return sum(isinstance(node, OperationDefinitionNode) for node in document.definitions)


def guarded(settings: Settings, documents: Documents) -> type[GuardExtension]:
    """The extension with these settings' limits."""
    attributes = {"guard": Guard(settings), "documents": documents}
    return type("ConfiguredGuard", (GuardExtension,), attributes)
