"""Pings: a connection that a network forgot tells nobody."""

import asyncio
from typing import Protocol

EVERY = 20  # seconds between two pings of one connection


class Beating(Protocol):
    def beat(self) -> None: ...


class Pulse:
    """One timer for all connections of a process, a share of them each second."""

    def __init__(self) -> None:
        self._shares: list[set[Beating]] = [set() for _ in range(EVERY)]
        self._count = 0
        self._turn = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Beating) -> int:
        """The share it was put into."""
        share = self._count % EVERY
        self._count += 1
        self._shares[share].add(one)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1, self._next)
        return share

    def remove(self, one: Beating, share: int) -> None:
        self._shares[share].discard(one)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _next(self) -> None:
        self._turn = (self._turn + 1) % EVERY
        for one in list(self._shares[self._turn]):
            one.beat()
        alive = any(self._shares)
        self._timer = asyncio.get_running_loop().call_later(1, self._next) if alive else None
