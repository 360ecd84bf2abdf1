"""The stream: one tail per stream and process, and viewers who are nothing but a position in it.

A tail keeps the newest events in a ring buffer, filled by one read for all tails that were rung
for. A viewer behind the buffer is served from the log. So a viewer's memory is constant, a thousand
viewers cost one query, and a slow one holds up nobody.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.database import CONNECTION_ERRORS, Database, outage
from app.events import log
from app.events.doorbell import Doorbell
from app.events.log import LoggedEvent

logger = logging.getLogger(__name__)
T = TypeVar("T")

BUFFER = 1_000
BATCH = 500
_BREATHE = 0.005  # seconds of handing out, before other work of the process gets its turn
SAFETY_POLL = 1.0  # a lost ring costs at most this much


Take = Callable[[list[LoggedEvent]], Callable[[], int] | None]
"""How a viewer takes events without waking up: what it gives back hands them out, and returns the
position up to which it did; None: they must be yielded."""


class _Waiter:
    """A viewer who has been given all there is, up to a position."""

    __slots__ = ("_hand_out", "_take", "position", "woken")

    def __init__(self, position: int, take: Take | None) -> None:
        self.position, self._take = position, take
        self._hand_out: Callable[[], int] | None = None
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def prepare(self, events: list[LoggedEvent]) -> bool:
        """Whether there is news in it."""
        if events[0].seq <= self.position:  # it had read further than the tail
            events = [event for event in events if event.seq > self.position]
        try:
            self._hand_out = self._take(events) if events and self._take else None
        except Exception as bug:  # noqa: BLE001 - it is the viewer's
            self.woken.set_exception(bug)
        return bool(events)

    def give(self, last: int) -> None:
        hand_out, self._hand_out = self._hand_out, None
        bug = None
        if hand_out and not self.woken.done():
            try:
                self.position = max(self.position, hand_out())
            except Exception as raised:  # noqa: BLE001 - it is the viewer's
                bug = raised
        if self.woken.done():  # it left
            return
        if bug:
            self.woken.set_exception(bug)
        elif self.position < last:
            self.woken.set_result(None)


class _Tail:
    def __init__(self, position: int) -> None:
        self.position = position
        self.buffer: deque[LoggedEvent] = deque(maxlen=BUFFER)
        self.viewers = 0
        self._waiting: dict[_Waiter, None] = {}

    def extend(self, events: list[LoggedEvent]) -> list[_Waiter]:
        """Those who are now to be given them."""
        self.buffer.extend(events)
        self.position = events[-1].seq
        waiting = [waiter for waiter in self._waiting if not waiter.woken.done()]
        return [waiter for waiter in waiting if waiter.prepare(events)]

    async def news(self, position: int, take: Take | None) -> int:
        """Wait until there is something that `take` did not take; the position it reached."""
        waiter = _Waiter(position, take)
        self._waiting[waiter] = None
        try:
            await waiter.woken
        finally:
            self._waiting.pop(waiter, None)
        return waiter.position

    def after(self, position: int) -> list[LoggedEvent] | None:
        """Buffered events after a position; None when the buffer no longer reaches back to it."""
        if position >= self.position:
            return []
        if not self.buffer or self.buffer[0].seq > position + 1:
            return None
        skip = position + 1 - self.buffer[0].seq
        return [self.buffer[i] for i in range(skip, min(skip + BATCH, len(self.buffer)))]


class Streams:
    """Every tail of this process."""

    def __init__(self, database: Database, doorbell: Doorbell) -> None:
        self._database = database
        self._tails: dict[str, _Tail] = {}
        self._rung: set[str] = set()
        self._due = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._next_poll: asyncio.TimerHandle | None = None
        self._kept: AsyncConnection | None = None
        self._driver: asyncpg.Connection[Any] | None = None  # that of `_kept`
        doorbell.on_ring(self._heard)

    async def start(self) -> None:
        self._reader = asyncio.create_task(self._read(), name="stream-reader")
        self._poll()

    async def stop(self) -> None:
        if self._next_poll:
            self._next_poll.cancel()
        if self._reader:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await self._disconnect()

    @property
    def tails(self) -> int:
        return len(self._tails)

    async def follow(
        self,
        org_id: str,
        stream_id: str,
        after: int | None,
        idle: Callable[[int], bool] | None = None,
        head: int | None = None,
        take: Take | None = None,
    ) -> AsyncGenerator[list[LoggedEvent], None]:
        """Batches of events after a position (None: from now), without gap or repeat, for ever;
        or until `idle`, asked before each wait with the position reached, says that it is enough.
        What comes during a wait is offered to `take` first, and only the rest is yielded.

        The caller has made sure that the stream is this organization's; `head` is where it ended a
        moment ago, if the caller knows. While the database is out of reach, viewers wait.
        """
        tail = self._tails.get(stream_id)
        if tail is None:
            if head is None:
                head = await self._ask(org_id, lambda session: log.position(session, stream_id))
            tail = self._tails.setdefault(stream_id, _Tail(head))
        # From here on every event after `tail.position` comes through the tail, and everything
        # up to it is in the log: there is no moment in which one could be missed.
        position = tail.position if after is None else after
        tail.viewers += 1
        try:
            while True:
                events = tail.after(position)
                if events is None:
                    events = await self._history(org_id, stream_id, position)
                if events:
                    position = events[-1].seq
                    yield events
                elif idle is not None and idle(position):
                    return
                else:
                    position = await tail.news(position, take)
        finally:
            tail.viewers -= 1
            if not tail.viewers and self._tails.get(stream_id) is tail:
                del self._tails[stream_id]

    async def _history(self, org_id: str, stream_id: str, position: int) -> list[LoggedEvent]:
        return await self._ask(
            org_id, lambda session: log.read(session, stream_id, position, BATCH)
        )

    async def _ask(self, org_id: str, read: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Read, again and again while the database is out of reach."""
        delay = 0.05
        while True:
            try:
                async with self._database.transaction(org_id) as session:
                    return await read(session)
            except Exception as trouble:
                if not outage(trouble):
                    raise
                logger.warning("reading the log failed, trying again: %s", trouble)
            await asyncio.sleep(delay * (0.5 + random.random()))  # noqa: S311 - jitter
            delay = min(2.0, delay * 2)

    async def _connected(self) -> "asyncpg.Connection[Any]":
        """The reader's own connection, kept: a transaction of the pool costs nine times as much."""
        if self._driver is None:
            self._kept = await self._database.engine.connect()
            raw = await self._kept.get_raw_connection()
            self._driver = raw.driver_connection
        assert self._driver is not None  # noqa: S101 - a connection has one
        return self._driver

    async def _disconnect(self) -> None:
        kept, self._kept, self._driver = self._kept, None, None
        if kept is not None:
            with contextlib.suppress(*CONNECTION_ERRORS, SQLAlchemyError):
                await kept.invalidate()
                await kept.close()

    def _heard(self, streams: frozenset[str] | None) -> None:
        self._rung |= set(self._tails) if streams is None else streams & self._tails.keys()
        if self._rung:
            self._due.set()

    def _poll(self) -> None:
        """Look at all tails every SAFETY_POLL: rings may be lost."""
        self._heard(None)
        self._next_poll = asyncio.get_running_loop().call_later(SAFETY_POLL, self._poll)

    async def _read(self) -> None:
        """One read per ring, or poll, for all tails."""
        while True:
            await self._due.wait()
            self._due.clear()
            rung, self._rung = self._rung, set()
            after = {s: self._tails[s].position for s in rung if s in self._tails}
            if not after:
                continue
            try:
                found = await log.read_many(await self._connected(), after, BATCH)
            except (*CONNECTION_ERRORS, asyncpg.PostgresError, SQLAlchemyError) as trouble:
                await self._disconnect()
                logger.warning("reading the log failed, trying again: %s", trouble)
                await asyncio.sleep(0.2)
                self._rung |= rung
                self._due.set()
                continue
            # All is prepared, then all is sent: sends in a row are much cheaper than by turns.
            prepared: list[tuple[_Waiter, int]] = []
            for stream_id, events in found.items():
                tail = self._tails.get(stream_id)
                # The tail may have been replaced meanwhile: take only what it lacks.
                if tail and (fresh := [e for e in events if e.seq > tail.position]):
                    if fresh[0].seq == tail.position + 1:
                        prepared += [(waiter, fresh[-1].seq) for waiter in tail.extend(fresh)]
                    if len(events) == BATCH:
                        self._rung.add(stream_id)
                        self._due.set()
            began = time.monotonic()
            for waiter, last in prepared:
                waiter.give(last)
                if time.monotonic() - began > _BREATHE:
                    await asyncio.sleep(0)
                    began = time.monotonic()
