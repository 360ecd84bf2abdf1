"""Scalars whose stock forms lose data: times without zone, counts above 2^31."""

from datetime import UTC, datetime
from typing import Any, NewType

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig

from app.core.clock import rfc3339

BigInt = NewType("BigInt", int)
JSON = NewType("JSON", object)
AutoInt = NewType("AutoInt", object)
AutoFloat = NewType("AutoFloat", object)
_NO_BIG_INT = "A BigInt is a whole number, or text that holds one."


def _parse_datetime(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise GraphQLError(
        f"{str(value)[:40]!r} is no moment with a time zone. Write it as in 2026-01-31T12:00:00Z."
    )


def _parse_big_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise GraphQLError(_NO_BIG_INT)
    try:
        return int(value)
    except ValueError:
        raise GraphQLError(_NO_BIG_INT) from None


def _parse_auto_int(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(f'{value!r} is neither "auto" nor a whole number.')


def _parse_auto_float(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ValueError(f'{value!r} is neither "auto" nor a number.')


CONFIG = StrawberryConfig(
    scalar_map={
        datetime: strawberry.scalar(
            name="DateTime",
            description="A moment in UTC, as RFC 3339 text with milliseconds and Z.",
            specified_by_url="https://scalars.graphql.org/andimarek/date-time.html",
            serialize=rfc3339,
            parse_value=_parse_datetime,
        ),
        BigInt: strawberry.scalar(
            name="BigInt",
            description="A whole number that may pass 2^31, as text: JavaScript loses precision "
            "above 2^53.",
            serialize=str,
            parse_value=_parse_big_int,
        ),
        AutoInt: strawberry.scalar(
            name="AutoInt",
            description='"auto", or a whole number.',
            serialize=lambda value: value,
            parse_value=_parse_auto_int,
        ),
        AutoFloat: strawberry.scalar(
            name="AutoFloat",
            description='"auto", or a number.',
            serialize=lambda value: value,
            parse_value=_parse_auto_float,
        ),
        JSON: strawberry.scalar(
            name="JSON",
            description="Any JSON value.",
            serialize=lambda value: value,
            parse_value=lambda value: value,
        ),
    }
)
