"""Whose turn it is: so many at once, and some always kept from whoever has most."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    def __init__(self, total: int) -> None:
        self._share = max(1, total - max(1, total // 4))
        self._all = asyncio.Semaphore(total)
        self._tenants: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Wait for one. Those of one tenant wait among themselves first, so that a flood of theirs
        never stands in front of another's first."""
        share, users = self._tenants.get(tenant) or (asyncio.Semaphore(self._share), 0)
        self._tenants[tenant] = share, users + 1
        try:
            async with share, self._all:
                yield
        finally:
            share, users = self._tenants.pop(tenant)
            if users > 1:
                self._tenants[tenant] = share, users - 1
