"""One step of a deployment at a provider: place it, see whether it answers, take it down."""

import hashlib
import logging
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import credentials
from app.accounts.tables import ProviderCredential
from app.attempts import queue
from app.attempts.tables import Attempt
from app.core.errors import AppError
from app.events.log import Fenced
from app.models import service as models
from app.models.states import OVER, DeploymentStatus
from app.models.tables import Deployment, Model
from app.providers.base import Adapter, Placed, Placing
from app.providers.errors import (
    ProviderBusy,
    ProviderDenied,
    ProviderMissing,
    ProviderRefused,
    ProviderTrouble,
    ProviderUnreachable,
)
from app.worker.provider_step import LONGEST_PAUSE, ProviderStep

log = logging.getLogger(__name__)

_QUESTION = {"messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 1}


class ProviderDeploymentRun(ProviderStep):
    async def run(self) -> None:
        try:
            found = await self.write(self._begin)
            if found is not None:
                await self.give_back(await self._step(*found))
        except Fenced:
            log.warning("%s: fenced, leaving it to its new owner", self.claim.subject_id)
        finally:
            await self.lease.release()

    async def _begin(
        self, session: AsyncSession
    ) -> tuple[Deployment, Model, ProviderCredential | None] | None:
        deployment, model = await models.served(session, self.claim)
        attempt = await session.get_one(Attempt, (self.claim.org_id, self.claim.id))
        attempt.nudged = None
        if deployment.status in OVER:
            queue.finish(attempt, "not_needed")
            return None
        if deployment.status == DeploymentStatus.PENDING and not deployment.requested_action:
            # From here on it may be at the provider, whatever becomes of us.
            deployment.remote = deployment.remote or {}
            await models.transition(
                session, deployment, DeploymentStatus.STARTING, epoch=self.claim.epoch
            )
        row = await credentials.of_project(session, model.org_id, model.project_id, model.provider)
        return deployment, model, row

    async def _step(
        self, deployment: Deployment, model: Model, row: ProviderCredential | None
    ) -> float:
        try:
            if row is None:
                raise ProviderDenied("The project has no credential for this provider any more.")
            adapter = self.accounts.open(row).adapter
            if deployment.requested_action:
                return await self._take_down(deployment, adapter)
            return await self._bring_up(deployment, model, adapter)
        except ProviderTrouble as trouble:
            log.warning("%s: %s", self.claim.subject_id, trouble.message)
            if isinstance(trouble, ProviderBusy) and trouble.seconds is not None:
                return trouble.seconds
            return min(LONGEST_PAUSE, self.base * 3)
        except (ProviderRefused, ProviderMissing) as refused:
            return await self._failed(refused)

    async def _bring_up(self, deployment: Deployment, model: Model, adapter: Adapter) -> float:
        known = deployment.remote or {}
        if "reference" in known:
            placed = await adapter.deployment(known["reference"])
        else:
            placed = await adapter.deploy(
                Placing(_name(deployment), model.name, model.base_model, deployment.hardware)
            )
            known = {"reference": placed.reference}
            await self._move(None, known)
        if placed.status in ("failed", "stopped"):
            words = placed.error or f"The provider shows it as {placed.raw or placed.status}."
            return await self._failed(ProviderRefused(words, reason=placed.status))
        ready = placed.status == "ready" and (
            deployment.status == DeploymentStatus.READY or await self._answers(adapter, placed)
        )
        if ready:
            await self._move(DeploymentStatus.READY, known, placed.target)
            return min(LONGEST_PAUSE, self.base * 30)
        return self.base

    async def _answers(self, adapter: Adapter, placed: Placed) -> bool:
        """It is ready only once it has really answered."""
        try:
            async with adapter.chat(placed.target, dict(_QUESTION)) as reply:
                async for _ in reply.chunks:
                    pass
                return reply.status == 200
        except ProviderUnreachable:
            return False

    async def _take_down(self, deployment: Deployment, adapter: Adapter) -> float:
        known = deployment.remote or {}
        reference = known.get("reference")
        if reference is None and deployment.remote is not None:
            # A placing whose answer was lost: sent again it gives the same one.
            model = await self.write(lambda session: models.served(session, self.claim))
            reference = (await adapter.deploy(Placing(_name(deployment), model[1].name))).reference
        if reference is not None:
            await adapter.undeploy(reference)
        await self._move(DeploymentStatus.STOPPED, known, finish="undeployed")
        return 0.0

    async def _failed(self, refused: AppError) -> float:
        code = refused.reason if isinstance(refused, ProviderRefused) else refused.code.lower()
        error = {"code": code, "message": refused.message}
        await self._move(DeploymentStatus.FAILED, None, finish="failed", error=error)
        return 0.0

    async def _move(
        self,
        status: DeploymentStatus | None,
        known: dict[str, Any] | None,
        endpoint: str | None = None,
        *,
        finish: str | None = None,
        error: dict[str, Any] | None = None,
    ) -> None:
        async def write(session: AsyncSession) -> None:
            deployment, _ = await models.served(session, self.claim)
            attempt = await session.get_one(Attempt, (self.claim.org_id, self.claim.id))
            if attempt.finished_at is not None:
                return  # said before; the answer was lost
            if known is not None:
                deployment.remote = known
                session.add(deployment)
            if finish is not None:
                queue.finish(attempt, finish)
                session.add(attempt)
            await session.flush()
            if status is not None and deployment.status != status:
                await models.transition(
                    session,
                    deployment,
                    status,
                    epoch=self.claim.epoch,
                    endpoint=endpoint,
                    error=error,
                )

        await self.write(write)


def _name(deployment: Deployment) -> str:
    """What the provider knows it by: the same each time, so that sent twice it is one."""
    return "luthier-" + hashlib.sha256(deployment.id.encode()).hexdigest()[:20]
