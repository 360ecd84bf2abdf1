"""Deliveries that come at once are stored in one transaction: a storm costs few commits."""

import asyncio
import contextlib

from app.core.database import Database
from app.jobs import inbox
from app.jobs.inbox import Delivery

_MOST = 200


class Batches:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, list[tuple[Delivery, asyncio.Future[None]]]] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}

    async def store(self, org_id: str, delivery: Delivery) -> None:
        """Return when it is stored for good; raises what keeps it from being stored."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(org_id, []).append((delivery, future))
        if org_id not in self._writing:
            self._writing[org_id] = asyncio.create_task(self._write(org_id), name="webhooks")
        await future

    async def stop(self) -> None:
        with contextlib.suppress(Exception):
            await asyncio.gather(*self._writing.values(), return_exceptions=True)

    async def _write(self, org_id: str) -> None:
        """What came while the batch before was written makes the next one."""
        try:
            while waiting := self._waiting.pop(org_id, []):
                batch, rest = waiting[:_MOST], waiting[_MOST:]
                if rest:
                    self._waiting[org_id] = rest
                try:
                    async with self._database.transaction(org_id) as session:
                        await inbox.receive(session, org_id, [one for one, _ in batch])
                except Exception as trouble:  # noqa: BLE001 - each sender is told to try again
                    outcome: Exception | None = trouble
                else:
                    outcome = None
                for _, future in batch:
                    if future.done():
                        continue
                    if outcome:
                        future.set_exception(outcome)
                    else:
                        future.set_result(None)
        finally:
            del self._writing[org_id]
