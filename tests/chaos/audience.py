"""A process of viewers. Killed and started again, each goes on after what it has written down.

python -m tests.chaos.audience FOLDER HOUSE
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from typing import Any

from app.client.client import Client
from app.client.errors import ApiError
from app.client.live import LinkState
from app.client.timing import Timing
from tests.chaos.book import Book
from tests.chaos.links import Ask, Cut, Refused, connect
from tests.chaos.seats import DOCUMENTS, Habit, Seat, Transport

_TIMING = Timing(connect=10, retry_first=0.1, retry_most=1.0, first_connect=120)
_LINGERS = 1.5  # after the last entry of a stream that never completes: a repeat would show


class Whim(Exception):
    """The viewer's own will ends this connection."""


class Viewer:
    def __init__(self, seat: Seat, folder: Path, plan: dict[str, Any]) -> None:
        self.seat, self._folder = seat, folder
        self._key = plan["key"]
        self._addresses = plan["addresses"][seat.transport]
        self._joins_at = plan["began"] + seat.late * plan["seconds"]
        self._sobers_at = plan["began"] + plan["seconds"]
        self.book = Book(folder / f"{seat.name}.jsonl", seat.after)
        self._dice = random.Random(f"{seat.seed} {self.book.position}")
        self._whim_at = self._next_whim()

    async def watch(self) -> None:
        await asyncio.sleep(max(0.0, self._joins_at - time.time()))
        end = asyncio.create_task(self._end_of_ledger())
        view = asyncio.create_task(self._view())
        await asyncio.wait({end, view}, return_when=asyncio.FIRST_COMPLETED)
        for task in (end, view):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.book.end()

    async def _view(self) -> None:
        """Until the server says that no more will come."""
        while True:
            address = self._dice.choice(self._addresses)
            try:
                if self.seat.transport is Transport.CLIENT:
                    await self._by_client(address)
                else:
                    await self._by_link(address)
                return
            except Cut as cut:
                self.book.cut(str(cut))
            except Refused as refused:
                self.book.refused(str(refused))
            except Whim:
                self._whim_at = self._next_whim()
            await asyncio.sleep(self._dice.uniform(0.05, 0.5))

    async def _by_link(self, address: str) -> None:
        ask = Ask(self._key, self.seat, self.book.position, self.book.resumes)
        async with connect(address, ask) as link:
            self.book.linked(address)
            async for node in link.nodes():
                self.book.got(node)
                if await self._has_whim():
                    if self.seat.habit is Habit.RESETS:
                        link.reset()
                    raise Whim

    async def _by_client(self, address: str) -> None:
        def told(state: LinkState) -> None:
            if state.up:
                self.book.linked(address)
            else:
                self.book.cut(state.reason)

        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(Client(address, self._key, timing=_TIMING))
            nodes = await stack.enter_async_context(aclosing(self._nodes(client, told)))
            try:
                async for node in nodes:
                    self.book.got(node)
                    if await self._has_whim():
                        raise Whim
            except ApiError as refused:
                raise Refused(str(refused)) from refused

    async def _nodes(self, client: Client, told: Any) -> AsyncGenerator[dict[str, Any], None]:
        given, after = self.seat.variables, self.book.position
        if self.seat.field == "jobEvents":
            nodes = client.watch_job(given["jobId"], after, types=given.get("types"), on_state=told)
        elif self.seat.field == "jobChanges":
            nodes = client.watch_changes(given.get("filter"), after, on_state=told)
        else:
            document = DOCUMENTS[self.seat.field]
            async with aclosing(
                client.subscribe(document, given | {"after": after}, on_state=told)
            ) as found:
                async for data in found:
                    yield data[self.seat.field]
            return
        async with aclosing(nodes):
            async for node in nodes:
                yield node

    async def _has_whim(self) -> bool:
        """Whether the viewer wants to go now; one that stalls does so here, and stays."""
        if time.monotonic() < self._whim_at or time.time() > self._sobers_at:
            return False
        self.book.whim(self.seat.habit)
        if self.seat.habit is Habit.STALLS:
            await asyncio.sleep(self._dice.uniform(2, 9))
            self._whim_at = self._next_whim()
            return False
        return True

    def _next_whim(self) -> float:
        if self.seat.habit is Habit.STEADY:
            return float("inf")
        return time.monotonic() + self._dice.uniform(2, 12)

    async def _end_of_ledger(self) -> None:
        """The ledger has no end of its own: until the last entry of this round has come."""
        said = self._folder / "finale.json"
        while self.seat.field != "jobChanges" or not said.exists():  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.2)
        last = json.loads(said.read_text())[self.seat.name]
        while _place(self.book.position) < last:  # noqa: ASYNC110 - asked now and then is enough
            await asyncio.sleep(0.1)
        await asyncio.sleep(_LINGERS)


def _place(cursor: str) -> int:
    return int(cursor.removeprefix("s"))


async def main(folder: Path, house: int) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    seats = [Seat.of(seat) for seat in plan["houses"][house]]
    viewers = [Viewer(seat, folder, plan) for seat in seats]
    await asyncio.gather(*(viewer.watch() for viewer in viewers if not viewer.book.done))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
