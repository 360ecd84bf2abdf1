"""What the drivers of a provider's jobs, deployments and accounts have in common."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from sqlmodel.ext.asyncio.session import AsyncSession

from app.attempts import queue
from app.attempts.queue import Claim
from app.core import clock
from app.worker.lease import Lease
from app.worker.provider_accounts import ProviderAccounts
from app.worker.record import Workshop

T = TypeVar("T")

LONGEST_PAUSE = 600.0


class ProviderStep:
    """Leased for one short step, then given back with the time of the next one."""

    def __init__(self, workshop: Workshop, accounts: ProviderAccounts, claim: Claim) -> None:
        self.shop, self.accounts, self.claim = workshop, accounts, claim
        self.lease = Lease(workshop.database, claim, workshop.settings.lease_seconds)
        self.base = workshop.settings.provider_poll_seconds

    def look(self) -> None:
        """A step is short: what came meanwhile makes the next one due at once."""

    def drain(self) -> None:
        """So it is simply finished."""

    async def run(self) -> None:
        raise NotImplementedError

    async def write(self, write: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """In a transaction of its own, again and again while the database is out of reach."""

        async def once() -> T:
            async with self.shop.database.transaction(self.claim.org_id) as session:
                return await write(session)

        return await self.lease.insist(once)

    async def give_back(self, seconds: float) -> None:
        due = clock.now() + timedelta(seconds=seconds)
        await self.write(lambda session: queue.give_back(session, self.claim, due))
