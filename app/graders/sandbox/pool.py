"""The boxes that are open: one per grader and tenant, kept for its next case for a while."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from app.graders.sandbox.box import Box, BoxBroken, GraderRaised, Limits
from app.graders.sandbox.engines import Engine
from app.graders.turns import Turns

_KEPT = 60.0  # seconds an idle box lives
_Key = tuple[str, str]  # tenant, source: two tenants never share a box


@dataclass
class _Open:
    key: _Key
    box: Box
    slot: int
    since: float = 0.0  # when it became idle, by the loop's clock


class Pool:
    def __init__(self, engine: Engine, limits: Limits, boxes: int) -> None:
        self._engine, self._limits = engine, limits
        self._turns = Turns(boxes)
        self._free = list(range(boxes))
        self._idle: list[_Open] = []  # oldest first
        self._sweeper = asyncio.create_task(self._sweep())

    async def grade(self, tenant: str, source: str, sample: Any, item: Any) -> float:
        """What the grader returns. Raises GraderRaised and BoxBroken."""
        async with self._turns.turn(tenant):
            taken = await self._take((tenant, source))
            usable = False
            try:
                value = await taken.box.grade(sample, item, self._limits.seconds)
                usable = not taken.box.worn
                return value
            except GraderRaised:
                usable = not taken.box.worn
                raise
            finally:
                if usable:
                    taken.since = asyncio.get_running_loop().time()
                    self._idle.append(taken)
                else:
                    await self._end(taken)

    async def close(self) -> None:
        self._sweeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sweeper
        while self._idle:
            await self._end(self._idle.pop())
        await self._engine.close()

    async def _take(self, key: _Key) -> _Open:
        for number, idle in enumerate(self._idle):
            if idle.key == key:
                return self._idle.pop(number)
        if not self._free:
            # Somebody's idle box gives way: those in use are fewer than there are turns.
            await self._end(self._idle.pop(0))
        slot = self._free.pop()
        try:
            return _Open(key, await self._engine.open(key[1], self._limits, slot), slot)
        except BaseException as trouble:
            self._free.append(slot)
            if isinstance(trouble, OSError):
                raise BoxBroken("exited", f"No box could be opened: {trouble}.") from trouble
            raise

    async def _end(self, ended: _Open) -> None:
        try:
            await ended.box.close()
        finally:
            self._free.append(ended.slot)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_KEPT / 4)
            now = asyncio.get_running_loop().time()
            while self._idle and now - self._idle[0].since > _KEPT:
                await self._end(self._idle.pop(0))
