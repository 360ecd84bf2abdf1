"""From a training process's reports to its job's log, in batches."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from app.events.log import NewEvent
from app.events.types import EventType
from app.training import report
from app.worker.record import JobRecord, newest_of, start_message

FLUSH_EVERY = 0.25
FLUSH_AT = 100
_MOST = 500  # then the process waits at its pipe until they are written


async def record(
    job: JobRecord,
    reports: AsyncIterator[report.Report],
    started: Callable[[report.Started], Awaitable[None]],
) -> report.Report | None:
    """Write them all; returns the last word, if there was one. Raises Fenced."""
    ending: report.Report | None = None
    async with contextlib.aclosing(_batches(reports)) as batches:
        async for batch in batches:
            events: list[NewEvent] = []
            newest: tuple[report.Metrics, NewEvent] | None = None
            for said in batch:
                match said:
                    case report.Metrics():
                        event = job.metrics(said)
                        events.append(event)
                        newest = said, event
                    case report.Message():
                        data: dict[str, Any] = {"level": said.level, "message": said.message}
                        events.append(job.event(EventType.MESSAGE, data))
                    case report.Started():
                        await _flush(job, events, newest)
                        events, newest = [], None
                        await started(said)
                        events.append(job.event(EventType.MESSAGE, start_message(said)))
                    case report.Checkpoint():
                        await _flush(job, events, newest)
                        events, newest = [], None
                        await job.checkpoint(said)
                    case report.Score():
                        await _flush(job, events, newest)
                        events, newest = [], None
                        await job.score(said)
                    case _:
                        ending = said
            await _flush(job, events, newest)
            if isinstance(ending, report.Stopped | report.Failed):
                break  # it has no more to say: what the process does now is nobody's concern
    return ending


async def _flush(
    job: JobRecord, events: list[NewEvent], newest: tuple[report.Metrics, NewEvent] | None
) -> None:
    """Of a batch's points the last one becomes the job's progress."""
    await job.flush(events, newest_of(*newest) if newest else None)


async def _batches(
    reports: AsyncIterator[report.Report],
) -> AsyncGenerator[list[report.Report]]:
    """At once when they come one at a time; FLUSH_AT, or what FLUSH_EVERY brings, when they come
    fast; all there are when writing is what takes long."""
    intake = _Intake(reports)
    flushed = 0.0
    try:
        while await intake.some():
            await intake.many(flushed + FLUSH_EVERY - time.monotonic())
            flushed = time.monotonic()
            yield intake.take()
    finally:
        await intake.close()


class _Intake:
    """What was reported and not yet written. Reading goes on while a batch is written, and a task
    for each report would cost more than all the rest of its way."""

    def __init__(self, reports: AsyncIterator[report.Report]) -> None:
        self._waiting: list[report.Report] = []
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._reader = asyncio.create_task(self._read(reports), name="reports")
        self._reader.add_done_callback(lambda _: self._changed.set())

    async def some(self) -> bool:
        """Wait for the first one; False when there will be none. Raises what the reader raised."""
        await self._reach(1)
        if not self._waiting:
            await self._reader
        return bool(self._waiting)

    async def many(self, within: float) -> None:
        """Wait until a batch is full, for so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._reach(FLUSH_AT)

    def take(self) -> list[report.Report]:
        taken, self._waiting = self._waiting, []
        self._room.set()
        return taken

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _reach(self, count: int) -> None:
        while len(self._waiting) < count and not self._reader.done():
            self._changed.clear()
            await self._changed.wait()

    async def _read(self, reports: AsyncIterator[report.Report]) -> None:
        async for said in reports:
            self._waiting.append(said)
            if len(self._waiting) in (1, FLUSH_AT):
                self._changed.set()
            while len(self._waiting) >= _MOST:
                self._room.clear()
                await self._room.wait()
