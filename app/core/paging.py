"""Keyset pages: a cursor names the row before the page, so a growing list repeats nothing."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Generic, TypeVar

import orjson
from sqlalchemy import ColumnElement, TypeDecorator, func, tuple_
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
    cursors: Sequence[str]
    has_next: bool
    has_previous: bool
    count: Callable[[AsyncSession], Any]


class _Cursors(Sequence[str]):
    """Made when read: most pages are asked for their rows and their last cursor only."""

    def __init__(self, rows: list[Any], key: str, id: str) -> None:
        self._rows, self._of = rows, attrgetter(key, id)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        found = self._rows[place]
        if isinstance(place, slice):
            return [_encode(*self._of(row)) for row in found]
        return _encode(*self._of(found))


def _encode(key: Any, id: str) -> str:
    value = key.isoformat() if isinstance(key, datetime) else key
    return base64.urlsafe_b64encode(orjson.dumps([1, value, id])).decode().rstrip("=")


def _decode(cursor: str, like: type[Any]) -> tuple[Any, str]:
    try:
        version, key, id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if version != 1 or not isinstance(id, str) or "\0" in f"{id}{key}":
            raise ValueError
        return _key(key, like), id
    except (ValueError, TypeError, OverflowError) as wrong:
        raise Invalid(
            "This is not a cursor of this list. Pass one from its pageInfo or edges.",
            path=("after",),
        ) from wrong


def _python_type(column: Any) -> type[Any]:
    """What the column's values are; SQLModel's own column types do not say it themselves."""
    kind = column.type
    plain = kind.impl_instance if isinstance(kind, TypeDecorator) else kind
    found: type[Any] = plain.python_type
    return found


def _key(value: Any, like: type[Any]) -> Any:
    if like is datetime:
        return datetime.fromisoformat(value).astimezone(UTC)
    if like is int and not -(2**31) <= int(value) < 2**31:
        raise ValueError
    return like(value)


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
        at: ColumnElement[Any] = tuple_(
            *_decode(request.cursor, _python_type(key)), types=[key.type, id.type]
        )
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
        _Cursors(rows, key.key, id.key),
        has_next=request.cursor is not None if request.backward else more,
        has_previous=more if request.backward else request.cursor is not None,
        count=lambda other: _count(other, entity),
    )


async def _count(session: AsyncSession, query: Any) -> int:
    counted = await session.exec(select(func.count()).select_from(query.subquery()))
    return int(counted.one())
