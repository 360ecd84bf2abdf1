"""One look at an account: whether its credential works, and what models are there still."""

import logging
from datetime import timedelta

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import credentials, radar
from app.accounts.tables import ProviderCredential
from app.attempts import queue
from app.attempts.tables import Attempt
from app.core import clock
from app.core.errors import AppError
from app.core.vault import CannotOpen
from app.events.log import Fenced
from app.jobs.states import LIVE
from app.jobs.tables import Job
from app.models.tables import Model
from app.providers.errors import ProviderDenied, ProviderTrouble, Unsupported
from app.providers.registry import adapter_of
from app.worker.provider_step import ProviderStep

log = logging.getLogger(__name__)

_EVERY = 6 * 3600.0
_KEPT = timedelta(days=14)  # webhooks, so that a late repetition is known for one
_PRUNE = text("DELETE FROM webhook_inbox WHERE credential_id = :id AND received_at < :before")


class ProviderAccountRun(ProviderStep):
    async def run(self) -> None:
        try:
            row = await self.write(self._begin)
            if row is not None:
                await self.give_back(await self._step(row))
        except Fenced:
            log.warning("%s: fenced, leaving it to its new owner", self.claim.subject_id)
        finally:
            await self.lease.release()

    async def _begin(self, session: AsyncSession) -> ProviderCredential | None:
        row = await session.get_one(
            ProviderCredential, (self.claim.org_id, self.claim.subject_id), with_for_update=True
        )
        attempt = await session.get_one(Attempt, (self.claim.org_id, self.claim.id))
        if row.removed_at is not None:
            queue.finish(attempt, "not_needed")
            return None
        if attempt.nudged == "credential":
            await self._wake_jobs(session, row)
        attempt.nudged = None
        try:
            credentials.reseal(self.accounts.vault, row)
        except CannotOpen as sealed:
            log.warning("%s: %s", row.id, sealed)
        before = clock.now() - _KEPT
        await (await session.connection()).execute(_PRUNE, {"id": row.id, "before": before})
        return row

    async def _wake_jobs(self, session: AsyncSession, row: ProviderCredential) -> None:
        """With a new credential, what waited for one goes on."""
        query = select(Job.id).where(
            Job.org_id == row.org_id,
            Job.project_id == row.project_id,
            Job.provider == row.provider,
            col(Job.status).in_(LIVE),
        )
        if waiting := list(await session.exec(query)):
            await queue.nudge(session, row.org_id, waiting, "credential")

    async def _step(self, row: ProviderCredential) -> float:
        try:
            adapter = self.accounts.open(row).adapter
            try:
                listed = await adapter.models()
            except Unsupported:
                await adapter.check()
                listed = None
        except (*ProviderTrouble, AppError) as trouble:
            status = "denied" if isinstance(trouble, ProviderDenied) else "unreachable"
            words = trouble.message
            await self.write(lambda session: self._found(session, status, words))
            return self.base * 60

        async def write(session: AsyncSession) -> None:
            credential = await self._found(session, "ok", None)
            in_use = await self._in_use(session, row)
            offers = adapter_of(row.provider).offers
            await radar.take_in(session, credential, listed, offers, in_use)

        await self.write(write)
        return _EVERY

    async def _found(
        self, session: AsyncSession, status: str, trouble: str | None
    ) -> ProviderCredential:
        row = await session.get_one(
            ProviderCredential, (self.claim.org_id, self.claim.subject_id), with_for_update=True
        )
        row.status, row.trouble, row.checked_at = status, trouble, clock.now()
        session.add(row)
        return row

    async def _in_use(self, session: AsyncSession, row: ProviderCredential) -> list[str]:
        """The models of the ledger at this account."""
        query = select(Model.name).where(
            Model.org_id == row.org_id,
            Model.project_id == row.project_id,
            Model.provider == row.provider,
            col(Model.deleted_at).is_(None),
        )
        return list(await session.exec(query))
