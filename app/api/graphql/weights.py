"""How many objects a field is taken to give, by what the schema says of it.

An argument that sizes a list says so itself: as it is written, in a variable, or by its default. A
page (one object that a sized field gives) counts once; its size multiplies the lists in it, such as
`nodes`. A list that nothing sizes counts as a page of the usual length.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    VariableNode,
    get_named_type,
    is_leaf_type,
    is_list_type,
)

from app.core.paging import DEFAULT, MOST

_ROWS = ("first", "last")  # one of the two counts
_POINTS = "maxPoints"
_SIZES = (*_ROWS, _POINTS, "ids")
# Lists of which more is known: none says how long it is, and in a comparison each job has a series.
_LENGTHS = {
    ("Dataset", "versions"): MOST,
    ("JobComparison", "curves"): 10,
    ("ComparedCurve", "series"): 1,
}
_MUTATION = 10


@dataclass(frozen=True, slots=True)
class Weight:
    """Of one field. `of` is what it gives; `page`: its size counts for the lists in it; `in_page`:
    it is such a list; `sizes`: each sizing argument with its default and what that is counted in;
    `size`: without any."""

    of: GraphQLNamedType
    page: bool = False
    in_page: bool = False
    sizes: tuple[tuple[str, int, int], ...] = ()
    size: int = 1
    extra: int = 0


class Weights:
    def __init__(self, schema: GraphQLSchema) -> None:
        self.schema = schema
        composite = [
            kind
            for kind in schema.type_map.values()
            if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        ]
        fields = [field for kind in composite for field in kind.fields.values()]
        pages = {get_named_type(field.type).name for field in fields if _gives_page(field)}
        self._known = {
            (kind.name, name): self._weigh(kind.name, name, field, kind.name in pages)
            for kind in composite
            for name, field in kind.fields.items()
        }

    def of(self, kind: GraphQLNamedType | None, name: str) -> Weight | None:
        """None for what is unknown, which validation refuses."""
        return self._known.get((kind.name, name)) if kind else None

    def _weigh(self, kind: str, name: str, field: GraphQLField, in_page: bool) -> Weight:
        of = get_named_type(field.type)
        mutation = self.schema.mutation_type
        extra = _MUTATION if mutation and kind == mutation.name else 0
        page = _gives_page(field)
        # In a page, the points lie in lists of which each counts as long as usual already.
        units = {_POINTS: DEFAULT} if page else {}
        sizes = tuple(
            (
                given,
                argument.default_value if type(argument.default_value) is int else DEFAULT,
                units.get(given, 1),
            )
            for given, argument in field.args.items()
            if given in _SIZES
        )
        if sizes:
            return Weight(of, page, sizes=sizes, extra=extra)
        if not _is_list(field) or is_leaf_type(of):
            return Weight(of, extra=extra)
        if in_page:
            return Weight(of, in_page=True, size=_LENGTHS.get((kind, name), 1))
        return Weight(of, size=_LENGTHS.get((kind, name), DEFAULT), extra=extra)


def _is_list(field: GraphQLField) -> bool:
    kind = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
    return is_list_type(kind)


def _gives_page(field: GraphQLField) -> bool:
    return not _is_list(field) and any(name in field.args for name in _SIZES)


class Variables:
    """The values of one operation's variables, and which of them say how long a list is."""

    def __init__(self, operation: OperationDefinitionNode, given: dict[str, Any]) -> None:
        self._given = given
        self._defaults = {
            definition.variable.name.value: definition.default_value
            for definition in operation.variable_definitions or ()
            if definition.default_value
        }
        self.sizing: set[str] = set()

    def size(self, weight: Weight, node: FieldNode) -> int:
        if not weight.sizes:
            return weight.size
        written = {argument.name.value: argument.value for argument in node.arguments or ()}
        rows, size = 0, 1
        for name, default, unit in weight.sizes:
            asked = self._value(written[name], default) if name in written else default
            if name not in _ROWS:
                size *= max(1, asked // unit)
            elif name in written or not rows:
                rows = asked
        return size * max(1, rows)

    def _value(self, written: Any, default: int) -> int:
        if isinstance(written, VariableNode):
            name = written.name.value
            self.sizing.add(name)
            if name in self._given:
                return length(self._given[name]) or default
            written = self._defaults.get(name)
        if isinstance(written, IntValueNode):
            return max(1, int(written.value))
        if isinstance(written, ListValueNode):
            return max(1, len(written.values))
        return default


def length(value: Any) -> int:
    """How long a list a variable's value asks for; 0 when it does not say."""
    if isinstance(value, list):
        return max(1, len(value))
    if isinstance(value, int | float):
        return max(1, int(value))
    return 0


def lengths(given: dict[str, Any], names: Iterable[str]) -> tuple[int, ...]:
    return tuple(length(given.get(name)) for name in names)
