"""Waiting for what a provider takes a while for, and not for ever."""

import asyncio
import time

from app.providers.errors import ProviderUnreachable

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Patience:
    """The pauses between looks at something: longer and longer ones, until it is enough."""

    def __init__(self, seconds: float, overdue: str) -> None:
        """`overdue` is said in the end."""
        self._until, self._overdue = time.monotonic() + seconds, overdue
        self._pause = _FIRST_PAUSE

    async def wait(self) -> None:
        """Raises ProviderUnreachable."""
        if time.monotonic() >= self._until:
            raise ProviderUnreachable(self._overdue)
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 1.5, _LONGEST_PAUSE)
