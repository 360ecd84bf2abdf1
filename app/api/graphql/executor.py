"""Leaves without the machinery: a list of 50 jobs with 20 fields is a thousand plain attributes.

graphql-core builds an info object, looks up arguments and checks for awaitables for each of them.
Here the leaves of a selection that are attributes of the object (no resolver, no arguments) are
read together and only checked against their scalar. Whatever is out of the ordinary, such as null
where none may be, a value of another type, an exception, sends the whole selection down the normal
path, which then says what is wrong: the two give the same answer, always.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from operator import attrgetter
from typing import Any

from graphql import (
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLString,
    TypeNameMetaFieldDef,
)
from graphql.pyutils import Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

Convert = Callable[[Any], Any]

_PLANS = 200
_PLAIN = frozenset({str, int, float, bool, dict, list, datetime})


class Unusual(Exception):
    """The normal path must look at this."""


@dataclass(frozen=True)
class Plan:
    """How one selection on one type is read. `names` are those of the response, in order, with
    what is known already; `leaves` the names of the others, the type of a value that passes as it
    is, how others are converted, and whether null may be."""

    selection: Any
    names: dict[str, str | None]
    read: Callable[[Any], tuple[Any, ...]]
    leaves: tuple[tuple[str, type | None, Convert, bool], ...]
    rest: dict[str, Any]

    def result(self, source: Any) -> dict[str, Any]:
        """Raises whatever the normal path has to explain."""
        results: dict[str, Any] = dict(self.names)
        for (name, exact, convert, nullable), value in zip(
            self.leaves, self.read(source), strict=True
        ):
            if type(value) is exact:
                results[name] = value
            elif value is not None:
                results[name] = convert(value)
            elif not nullable:
                raise Unusual
        return results


class LeafExecutor(StrawberryGraphQLCoreExecutionContext):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.middleware_manager and not self.middleware_manager.middlewares:
            self.middleware_manager = None  # Strawberry always makes one
        self._plans: dict[tuple[str, int], Plan | None] = {}

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: Any,
        position_context: Any,
    ) -> Any:
        plan = self._plan(parent_type, grouped_field_set)
        if plan is None:
            return super().execute_fields(
                parent_type, source_value, path, grouped_field_set, position_context
            )
        try:
            results = plan.result(source_value)
        except Exception:  # noqa: BLE001 - the normal path raises it again, located
            return super().execute_fields(
                parent_type, source_value, path, grouped_field_set, position_context
            )
        if not plan.rest:
            return results
        rest = super().execute_fields(parent_type, source_value, path, plan.rest, position_context)
        if isinstance(rest, dict):
            results.update(rest)
        else:
            return _merged(results, rest)
        return results

    def complete_iterable_value(
        self,
        item_type: GraphQLOutputType,
        field_details_list: Any,
        info: Any,
        path: Path,
        items: Any,
        position_context: Any,
    ) -> Any:
        """A list of objects of which leaves alone are asked is read without a word on each."""
        kind = item_type.of_type if isinstance(item_type, GraphQLNonNull) else item_type
        if isinstance(kind, GraphQLObjectType) and isinstance(items, list):
            selection, deferred, _ = self.collect_subfields(kind, field_details_list)
            plan = None if deferred else self._plan(kind, selection)
            if plan and not plan.rest and not self.get_stream_usage(field_details_list, path):
                try:
                    if kind.is_type_of is None or all(kind.is_type_of(i, info) for i in items):
                        return [plan.result(item) for item in items]
                except Exception:  # noqa: BLE001, S110 - the normal path raises it again, located
                    pass
        return super().complete_iterable_value(
            item_type, field_details_list, info, path, items, position_context
        )

    def _plan(self, parent_type: GraphQLObjectType, selection: Any) -> Plan | None:
        key = (parent_type.name, id(selection))
        if key in self._plans:
            return self._plans[key]
        return self._planned(key, parent_type, selection)

    def _planned(
        self, key: tuple[str, int], parent_type: GraphQLObjectType, selection: Any
    ) -> Plan | None:
        attributes, leaves, rest = [], [], {}
        names: dict[str, str | None] = dict.fromkeys(selection)
        for name, details in selection.items():
            field = self.schema.get_field(parent_type, details[0].node.name.value)
            leaf = None
            if field is TypeNameMetaFieldDef:
                names[name] = parent_type.name
                continue
            if field and not field.args and getattr(field.resolve, "_is_default", False):
                leaf = self._leaf(field.type, details)
            if field is None or leaf is None:
                rest[name] = details
                continue
            attributes.append(field.extensions["strawberry-definition"].python_name)
            leaves.append((name, *leaf))
        plan = None
        if len(names) > len(rest) and not self.middleware_manager:
            plan = Plan(selection, names, _reader(attributes), tuple(leaves), rest)
        if len(self._plans) >= _PLANS:  # a subscription's executor lives for as long as its viewer
            self._plans.clear()
        self._plans[key] = plan
        return plan

    def _leaf(
        self, kind: GraphQLOutputType, details: Any
    ) -> tuple[type | None, Convert, bool] | None:
        """Also for lists and objects that hold nothing but leaves; None for what does not."""
        nullable = not isinstance(kind, GraphQLNonNull)
        named: Any = kind if nullable else kind.of_type  # type: ignore[union-attr]
        if isinstance(named, GraphQLList):
            item = self._leaf(named.of_type, details)
            return (None, _list(*item), nullable) if item else None
        if isinstance(named, GraphQLObjectType):
            plan = self.whole_plan(named, details)
            return (None, plan.result, nullable) if plan else None
        leaf = _scalar_leaf(named)
        return (*leaf, nullable) if leaf else None

    def whole_plan(self, kind: GraphQLObjectType, details: Any) -> Plan | None:
        """How an object is read of which nothing but leaves is asked."""
        selection, deferred, _ = self.collect_subfields(kind, details)
        if deferred or kind.is_type_of is not None:
            return None
        plan = self._plan(kind, selection)
        return plan if plan and not plan.rest else None


def _reader(attributes: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(attributes) > 1:
        return attrgetter(*attributes)
    return lambda source: tuple(getattr(source, name) for name in attributes)


async def _merged(results: dict[str, Any], rest: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    results.update(await rest)
    return results


def _scalar_leaf(named: GraphQLOutputType) -> tuple[type | None, Convert] | None:
    """None for what is not a leaf."""
    if isinstance(named, GraphQLEnumType):
        return None, _enum(named)
    if not isinstance(named, GraphQLScalarType):
        return None
    if named in (GraphQLString, GraphQLID):
        return str, _refuse
    if named is GraphQLBoolean:
        return bool, _refuse
    if named is GraphQLInt:
        return None, _int
    if named is GraphQLFloat:
        return None, _float
    return None, _scalar(named)


def _list(exact: type | None, convert: Convert, nullable: bool) -> Convert:
    def converted(item: Any) -> Any:
        if type(item) is exact:
            return item
        if item is not None:
            return convert(item)
        if nullable:
            return None
        raise Unusual

    def every(items: Any) -> list[Any]:
        if type(items) is not list:
            raise Unusual
        return [converted(item) for item in items]

    return every


def _refuse(value: Any) -> Any:
    raise Unusual


def _int(value: Any) -> int:
    if type(value) is int and -(2**31) <= value < 2**31:
        return value
    raise Unusual


def _float(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    raise Unusual


def _enum(kind: GraphQLEnumType) -> Convert:
    wrapped: type[Enum] = kind.wrapped_cls  # type: ignore[attr-defined]
    names = {member: kind.coerce_output_value(member) for member in wrapped}
    return names.__getitem__


def _scalar(kind: GraphQLScalarType) -> Convert:
    coerce = kind.coerce_output_value

    def convert(value: Any) -> Any:
        if type(value) not in _PLAIN or (coerced := coerce(value)) is None:
            raise Unusual
        return coerced

    return convert
