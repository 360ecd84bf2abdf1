"""Keyset pages: a cursor names the row before the page, so a growing list repeats nothing."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import orjson
from sqlalchemy import ColumnElement, func, tuple_
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.errors import Invalid, Limited

DEFAULT = 20
MOST = 200

Row = TypeVar("Row")


@dataclass(frozen=True)
class PageRequest:
    """Forward (`first`, `after`) or backward (`last`, `before`), never both."""

    size: int
    backward: bool = False
    cursor: str | None = None

    @staticmethod
    def of(
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> "PageRequest":
        if (first is not None or after is not None) and (last is not None or before is not None):
            raise Invalid(
                "Use first and after, or last and before, not both.", path=("first", "last")
            )
        backward = last is not None or before is not None
        name, size = ("last", last) if backward else ("first", first)
        if size is None:
            size = DEFAULT
        if not 0 <= size <= MOST:
            raise Limited(f"{name} must lie between 0 and {MOST}.", limit=MOST, path=(name,))
        return PageRequest(size, backward, before if backward else after)


@dataclass
class Page(Generic[Row]):
    rows: list[Row]
    cursors: list[str]
    has_next: bool
    has_previous: bool
    count: Callable[[AsyncSession], Any]


def _encode(key: Any, id: str) -> str:
    value = key.isoformat() if isinstance(key, datetime) else key
    return base64.urlsafe_b64encode(orjson.dumps([1, value, id])).decode().rstrip("=")


def _decode(cursor: str, like: type[Any]) -> tuple[Any, str]:
    try:
        version, key, id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if version != 1 or not isinstance(id, str):
            raise ValueError
        return (datetime.fromisoformat(key) if like is datetime else like(key)), id
    except (ValueError, TypeError) as wrong:
        raise Invalid(
            "This is not a cursor of this list. Pass one from its pageInfo or edges.",
            path=("after",),
        ) from wrong


async def fetch_page(
    session: AsyncSession,
    query: Any,
    request: PageRequest,
    key: Any,
    id: Any,
    *,
    descending: bool,
) -> Page[Any]:
    """One page of `query` in the order of (key, id)."""
    entity = query
    if request.cursor is not None:
        at: ColumnElement[Any] = tuple_(*_decode(request.cursor, key.type.python_type))
        forward = descending == request.backward
        query = query.where(tuple_(key, id) > at if forward else tuple_(key, id) < at)
    down = descending != request.backward
    query = query.order_by(key.desc() if down else key, id.desc() if down else id)
    rows = list(await session.exec(query.limit(request.size + 1)))
    more = len(rows) > request.size
    rows = rows[: request.size]
    if request.backward:
        rows.reverse()
    return Page(
        rows,
        _cursors(rows, key.key, id.key),
        has_next=request.cursor is not None if request.backward else more,
        has_previous=more if request.backward else request.cursor is not None,
        count=lambda other: _count(other, entity),
    )


def _cursors(rows: Sequence[Any], key: str, id: str) -> list[str]:
    return [_encode(getattr(row, key), getattr(row, id)) for row in rows]


async def _count(session: AsyncSession, query: Any) -> int:
    counted = await session.exec(select(func.count()).select_from(query.subquery()))
    return int(counted.one())
