"""One attempt of a deployment: bring the model up, watch over it, take it down when asked."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from app.attempts import queue
from app.attempts.queue import Claim
from app.attempts.tables import Attempt
from app.catalog.errors import BaseModelUnknown
from app.events.log import Fenced
from app.models import service as models
from app.models.states import OVER, DeploymentStatus
from app.models.tables import Model
from app.training import manifest
from app.worker.embedded import prepare_embedded
from app.worker.lease import Lease
from app.worker.record import WorkImpossible, Workshop
from app.worker.servers import Server, ServerBroken, Servers

log = logging.getLogger(__name__)

_TRIES = 3
_PROBE_EVERY = 10.0


class DeploymentRun:
    def __init__(self, workshop: Workshop, servers: Servers, claim: Claim) -> None:
        self._shop, self._servers, self._claim = workshop, servers, claim
        self._lease = Lease(workshop.database, claim, workshop.settings.lease_seconds)
        self._look = asyncio.Event()
        self._draining = False
        self._over = False  # the attempt is closed
        self._server: Server | None = None

    def look(self) -> None:
        """The deployment's stream was rung for: see whether it is to be taken down."""
        self._look.set()

    def drain(self) -> None:
        """The worker leaves: hand the attempt back."""
        self._draining = True
        self._look.set()

    async def run(self) -> None:
        model: Model | None = None
        try:
            model = await self._begin()
            if model is not None:
                await self._keep_alive(model)
        except Fenced:
            log.warning("%s: fenced, leaving it to its new owner", self._claim.subject_id)
        except WorkImpossible as refusal:
            await self._move(DeploymentStatus.FAILED, finish="failed", error=refusal.error)
        finally:
            await self._lease.release()
            if self._server and model:
                await self._servers.leave(self._server, model.name)

    async def _begin(self) -> Model | None:
        """Put the deployment into STARTING; None when it is over already."""

        async def write() -> Model | None:
            async with self._shop.database.transaction(self._claim.org_id) as session:
                deployment, model = await models.served(session, self._claim)
                if deployment.status in OVER:
                    attempt = await session.get_one(Attempt, (self._claim.org_id, self._claim.id))
                    queue.finish(attempt, "not_needed")
                    return None
                if deployment.status != DeploymentStatus.STARTING:
                    await models.transition(
                        session, deployment, DeploymentStatus.STARTING, epoch=self._claim.epoch
                    )
                return model

        return await self._lease.insist(write)

    async def _keep_alive(self, model: Model) -> None:
        failures = 0
        while True:
            if await self._leaving():
                return
            try:
                server = self._server = await self._bring_up(model)
            except ServerBroken as trouble:
                failures += 1
                log.warning("%s: %s", self._claim.subject_id, trouble)
                if failures >= _TRIES:
                    raise WorkImpossible("server_failed", str(trouble)) from trouble
                await self._pause(2.0**failures)
                continue
            failures = 0
            await self._move(DeploymentStatus.READY, endpoint=server.endpoint)
            await self._watch(server, model)
            if await self._leaving():
                return
            log.warning("%s: its server is gone, bringing it up again", self._claim.subject_id)
            await self._move(DeploymentStatus.STARTING)

    async def _bring_up(self, model: Model) -> Server:
        data_dir = self._shop.settings.data_dir.resolve()
        folder = data_dir / model.path
        try:
            await asyncio.to_thread(manifest.verify, folder, model.manifest_sha256)
        except Exception as broken:
            raise WorkImpossible(
                "model_corrupt", f"The model's files are not those it was made of: {broken}"
            ) from broken
        if model.kind == "full":
            server = await self._servers.whole(folder, model.name)
        else:
            base = await self._base(model)
            server = await self._servers.adapter(base, model.base_model, model.name, folder)
        if not await self._servers.answers(server, model.name):
            raise ServerBroken("The server is up, but the model does not answer.")
        return server

    async def _base(self, model: Model) -> Path:
        try:
            base = self._shop.base_models.get(model.base_model)
        except BaseModelUnknown as unknown:
            raise WorkImpossible("base_model_unavailable", unknown.message) from unknown
        if Path(base.location) == self._shop.base_models.embedded_folder:
            async for said in prepare_embedded(self._shop.base_models.embedded_folder):
                if said.failed:
                    raise WorkImpossible("base_model_unavailable", said.message)
        return Path(base.location)

    async def _watch(self, server: Server, model: Model) -> None:
        """Return when the server is gone, does not answer, or is not wanted any more."""
        ended = asyncio.create_task(server.process.wait())
        try:
            while True:
                await self._pause(_PROBE_EVERY, ended)
                if ended.done() or await self._leaving():
                    return
                if not await self._servers.answers(server, model.name):
                    server.kill()
                    return
        finally:
            ended.cancel()

    async def _leaving(self) -> bool:
        """Whether this run is to end; if so, its attempt is closed."""
        if self._lease.lost.is_set():
            raise Fenced(self._claim.subject_id)
        if not self._over and await self._undeploy_wanted():
            await self._move(DeploymentStatus.STOPPED, finish="undeployed")
            self._over = True
        if not self._over and self._draining:
            await self._move(None, finish="released")
            self._over = True
        return self._over

    async def _undeploy_wanted(self) -> bool:
        async def read() -> bool:
            async with self._shop.database.transaction(self._claim.org_id) as session:
                deployment, _ = await models.served(session, self._claim)
                return deployment.requested_action == "undeploy"

        return await self._lease.insist(read)

    async def _move(
        self,
        status: DeploymentStatus | None,
        *,
        endpoint: str | None = None,
        finish: str | None = None,
        error: dict[str, Any] | None = None,
    ) -> None:
        """Change the status, close the attempt, or both. Handed back, it is queued again."""
        claim = self._claim

        async def write() -> None:
            async with self._shop.database.transaction(claim.org_id) as session:
                deployment, _ = await models.served(session, claim)
                attempt = await session.get_one(Attempt, (claim.org_id, claim.id))
                if attempt.finished_at is not None:
                    return  # said before; the answer was lost
                if finish is not None:
                    queue.finish(attempt, finish)
                    session.add(attempt)
                    await session.flush()
                    if status is None:
                        await queue.open_attempt(
                            session, claim.org_id, claim.subject_id, attempt.labels
                        )
                if status is not None and deployment.status != status:
                    shown = None
                    if error is not None:
                        shown = {"code": error["code"], "message": error["message"]}
                    await models.transition(
                        session,
                        deployment,
                        status,
                        epoch=claim.epoch,
                        endpoint=endpoint,
                        error=shown,
                    )

        await self._lease.insist(write)

    async def _pause(self, seconds: float, ended: "asyncio.Task[int] | None" = None) -> None:
        """Until something may have changed, or the time is over."""
        waits: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._look.wait()),
            asyncio.ensure_future(self._lease.lost.wait()),
        ]
        everything = [*waits, ended] if ended else waits
        try:
            await asyncio.wait(everything, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        self._look.clear()
