"""Holding a lease: renewed in time, and given up before it runs out when it cannot be."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from app.attempts import queue
from app.attempts.queue import Claim
from app.core.database import Database, outage
from app.events.log import Fenced

log = logging.getLogger(__name__)
T = TypeVar("T")

_MARGIN = 1 / 6  # of the lease: a worker stops itself this long before its lease ends


class Lease:
    """The claim's lease. `lost` is set when the work must stop at once, without another write.

    Only durations are measured here, by the monotonic clock: the ends of leases are the database's.
    """

    def __init__(self, database: Database, claim: Claim, seconds: float) -> None:
        self.claim = claim
        self.lost = asyncio.Event()
        self._database, self._seconds = database, seconds
        self._renewed = time.monotonic()
        self._task = asyncio.create_task(self._renew(), name=f"lease-{claim.subject_id}")

    async def release(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Do a write, again and again while the database is out of reach and the lease lives.

        Raises Fenced when the lease is lost meanwhile. `write` must bear being repeated: the answer
        of one that was committed may have been lost.
        """
        delay = 0.1
        while True:
            if self.lost.is_set():
                raise Fenced(self.claim.subject_id)
            try:
                return await write()
            except Exception as trouble:
                if not outage(trouble):
                    raise
                log.warning("the database is out of reach, trying again: %s", trouble)
            await asyncio.sleep(delay)
            delay = min(2.0, delay * 2)

    async def _renew(self) -> None:
        pause = self._seconds / 3
        while True:
            await asyncio.sleep(pause)
            pause = self._seconds / 3
            asked = time.monotonic()
            try:
                async with asyncio.timeout(self._seconds / 2):
                    async with self._database.transaction(self.claim.org_id) as session:
                        ours = await queue.renew(
                            session, self.claim, timedelta(seconds=self._seconds)
                        )
                if not ours:
                    log.warning("fenced: %s belongs to another worker", self.claim.subject_id)
                    self.lost.set()
                    return
                self._renewed = asked
            except Exception as trouble:
                if not outage(trouble):
                    raise
                pause = min(1.0, self._seconds / 10)
            if time.monotonic() - self._renewed > self._seconds * (1 - _MARGIN):
                log.warning("the lease of %s could not be renewed", self.claim.subject_id)
                self.lost.set()
                return
