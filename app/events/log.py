"""The log: append a batch to a stream, read a stream after a position."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core import clock
from app.core.database import json_text


class Fenced(Exception):
    """The writer's epoch is no longer the stream's: another worker owns the work now. Stop."""


@dataclass(frozen=True)
class NewEvent:
    type: str
    data: dict[str, Any] = field(default_factory=dict)
    step: int | None = None
    attempt: int | None = None
    at: datetime | None = None


class LoggedEvent(NamedTuple):
    stream_id: str
    seq: int
    attempt: int | None
    type: str
    step: int | None
    at: datetime
    data: dict[str, Any]


# Append, fence and numbering are one UPDATE of the stream's row: a writer that waited on the row
# lock behind a claim sees the raised epoch when it gets the lock, and writes nothing.
_APPEND = text(
    """
    WITH head AS (
        UPDATE streams
           SET last_seq = last_seq + :n, latest = coalesce(CAST(:latest AS jsonb), latest)
         WHERE stream_id = :stream AND (CAST(:epoch AS int) IS NULL OR epoch = :epoch)
        RETURNING last_seq, org_id),
    added AS (
        INSERT INTO events (org_id, stream_id, seq, attempt, type, step, at, data)
        SELECT head.org_id, :stream, head.last_seq - :n + new.ord, new.attempt, new.type, new.step,
               new.at, new.data
          FROM head, unnest(CAST(:attempts AS int[]), CAST(:types AS text[]), CAST(:steps AS int[]),
                            CAST(:ats AS timestamptz[]), CAST(:data AS jsonb[]))
               WITH ORDINALITY AS new(attempt, type, step, at, data, ord))
    SELECT last_seq FROM head
    """
)
_OPEN = text("INSERT INTO streams (stream_id, org_id, last_seq, epoch) VALUES (:id, :org, 0, 0)")
_FENCE = text("UPDATE streams SET epoch = epoch + 1 WHERE stream_id = :stream")
_READ = text(
    "SELECT stream_id, seq, attempt, type, step, at, data FROM events"
    " WHERE stream_id = :stream AND seq > :after ORDER BY seq LIMIT :limit"
)
_CONTAINS = text(
    "SELECT EXISTS (SELECT 1 FROM (SELECT * FROM events WHERE stream_id = :stream"
    " ORDER BY seq DESC LIMIT 2000) newest WHERE type = :type AND at = :at"
    " AND attempt IS NOT DISTINCT FROM CAST(:attempt AS int)"
    " AND step IS NOT DISTINCT FROM CAST(:step AS int))"
)
# As two texts, since each member of an array costs the driver as much as a text.
_READ_MANY = (
    "SELECT * FROM read_streams(string_to_array($1, ','), string_to_array($2, ',')::bigint[], $3)"
)
_HEADS = text("SELECT stream_id, last_seq, latest FROM streams WHERE stream_id = ANY(:streams)")


async def open_stream(session: AsyncSession, org_id: str, stream_id: str) -> None:
    await (await session.connection()).execute(_OPEN, {"id": stream_id, "org": org_id})


async def fence(session: AsyncSession, stream_id: str) -> None:
    """Shut out whoever writes under an older epoch, without taking the work over."""
    await (await session.connection()).execute(_FENCE, {"stream": stream_id})


async def append(
    session: AsyncSession,
    stream_id: str,
    events: Sequence[NewEvent],
    *,
    epoch: int | None = None,
    latest: dict[str, Any] | None = None,
) -> int:
    """Add events at the stream's end, in order; returns the last one's sequence number.

    Takes the stream's row lock until commit. A batch holds at least one event. With `epoch`,
    raises Fenced when a later claim has raised it. `latest` replaces the stream's newest progress
    and metric values.
    """
    if not events:
        raise ValueError("a batch holds at least one event")
    now = clock.now()
    rows = await (await session.connection()).execute(
        _APPEND,
        {
            "n": len(events),
            "stream": stream_id,
            "epoch": epoch,
            "latest": None if latest is None else json_text(latest),
            "attempts": [event.attempt for event in events],
            "types": [event.type for event in events],
            "steps": [event.step for event in events],
            "ats": [event.at or now for event in events],
            "data": [json_text(event.data) for event in events],
        },
    )
    last = rows.scalar()
    if last is None:
        raise Fenced(stream_id)
    session.info.setdefault("rings", set()).add(stream_id)
    return int(last)


async def contains(session: AsyncSession, stream_id: str, event: NewEvent) -> bool:
    """Whether the stream's newest events hold one of this type, attempt, step and moment."""
    found = await (await session.connection()).scalar(
        _CONTAINS,
        {
            "stream": stream_id,
            "type": event.type,
            "attempt": event.attempt,
            "step": event.step,
            "at": event.at,
        },
    )
    return bool(found)


async def read(session: AsyncSession, stream_id: str, after: int, limit: int) -> list[LoggedEvent]:
    """At most `limit` events after a position, under the tenant's policies."""
    rows = await (await session.connection()).execute(
        _READ, {"stream": stream_id, "after": after, "limit": limit}
    )
    return [LoggedEvent(*row) for row in rows]


async def read_many(
    connection: "asyncpg.Connection[Any]", after: dict[str, int], limit: int
) -> dict[str, list[LoggedEvent]]:
    """At most `limit` events of each stream after its position, across tenants (a door).

    By the bare driver: it is the one query that every ring costs.
    """
    found: dict[str, list[LoggedEvent]] = {stream: [] for stream in after}
    streams, positions = ",".join(after), ",".join(map(str, after.values()))
    for row in await connection.fetch(_READ_MANY, streams, positions, limit):
        found[row[0]].append(LoggedEvent._make(row))
    return found


@dataclass(frozen=True)
class Head:
    """Where a stream ends, and its newest progress and metric values."""

    last_seq: int = 0
    latest: dict[str, Any] | None = None


async def heads(session: AsyncSession, stream_ids: Sequence[str]) -> dict[str, Head]:
    rows = await (await session.connection()).execute(_HEADS, {"streams": list(stream_ids)})
    return {row.stream_id: Head(row.last_seq, row.latest) for row in rows}


async def position(session: AsyncSession, stream_id: str) -> int:
    """The sequence number of the stream's last event; 0 when it has none."""
    return (await heads(session, [stream_id])).get(stream_id, Head()).last_seq
