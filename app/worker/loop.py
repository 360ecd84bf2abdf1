"""The worker's loop: claim what is due, run it, report for duty, leave in order."""

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from app.attempts import queue
from app.attempts.queue import Claim
from app.catalog import service as catalog
from app.catalog.base_models import BaseModels
from app.core import ids
from app.core.database import CONNECTION_ERRORS, Database
from app.core.egress import Egress
from app.core.secrets import master_key, master_keys
from app.core.settings import Settings
from app.core.vault import Vault
from app.events.doorbell import Doorbell
from app.files.store import FolderStore
from app.graders.client import Graders, Options
from app.providers.registry import Providers
from app.worker import hardware
from app.worker.deployment_run import DeploymentRun
from app.worker.grading_run import GradingRun
from app.worker.process import LocalExecutor
from app.worker.provider_account_run import ProviderAccountRun
from app.worker.provider_accounts import ProviderAccounts
from app.worker.provider_deployment_run import ProviderDeploymentRun
from app.worker.provider_run import ProviderRun
from app.worker.provider_step import ProviderStep
from app.worker.record import Workshop
from app.worker.servers import Servers
from app.worker.training_run import TrainingRun

log = logging.getLogger(__name__)

_POLL = 1.0
_REPORT_EVERY, _REPORT_AT_MOST_EVERY = 20.0, 1.0
_GRADINGS = 4
_DEPLOYMENTS = 64  # claimed at a time; each holds memory only while its model is loaded

_ERRANDS = 64  # at providers: they wait more than they work

Run = TrainingRun | DeploymentRun | GradingRun | ProviderStep

_AT_PROVIDERS: tuple[tuple[str, type[ProviderStep]], ...] = (
    (ids.JOB, ProviderRun),
    (ids.DEPLOYMENT, ProviderDeploymentRun),
    (ids.CREDENTIAL, ProviderAccountRun),
)


class Worker:
    """One per machine. `labels` always hold `local` and the kinds of its processors."""

    def __init__(self, settings: Settings, database_url: str) -> None:
        self.id = ids.new(ids.WORKER)
        self._settings = settings
        self._database = Database(database_url, "luthier_worker", settings.database_pool)
        broadcast = settings.broadcast_url
        self._doorbell = Doorbell(broadcast.get_secret_value() if broadcast else database_url)
        self._database.after_commit = self._doorbell.ring
        self._doorbell.on_ring(self._heard)
        self._egress = Egress()
        key = master_key(settings)
        self._servers = Servers(settings, key, self._egress)
        self._machine = hardware.describe()
        self._shop = Workshop(
            settings,
            self._database,
            FolderStore(settings.data_dir / "files"),
            BaseModels(settings),
            self._machine,
            key,
        )
        self._accounts = ProviderAccounts(
            Providers(settings.provider_origins), Vault(master_keys(settings))
        )
        # A process that starts when it is first asked.
        self._graders = Graders(Options(model_urls=[self._shop.models_url]))
        self._executor = LocalExecutor(settings, hardware.visible_gpus())
        kinds = {part["kind"] for part in self._machine["parts"]}
        self._labels = sorted({"local", *kinds, *settings.worker_labels})
        self._runs: dict[Claim, tuple[Run, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()  # how many slots are busy
        self._draining = False

    def drain(self) -> None:
        """Take nothing new, save what runs, then let `run` return."""
        self._draining = True
        for run, _ in self._runs.values():
            run.drain()
        self._wake.set()

    async def run(self) -> None:
        """Work until drained."""
        await self._doorbell.start()
        reporter = asyncio.create_task(self._report(), name="worker-report")
        log.info("worker %s takes attempts for %s", self.id, ", ".join(self._labels))
        try:
            while not self._draining:
                self._wake.clear()
                try:
                    await self._claim_all()
                except (*CONNECTION_ERRORS, SQLAlchemyError) as trouble:
                    log.warning("the queue is out of reach: %s", trouble)
                # Not wait_for: before Python 3.12 it can lose a cancellation.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL * (0.75 + random.random() / 2)):  # noqa: S311
                        await self._wake.wait()
            await asyncio.gather(*(task for _, task in self._runs.values()))
        finally:
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)
            await self._leave()

    async def _claim_all(self) -> None:
        if self._settings.worker_slots:
            await self._claim_local()
        while self._count(ProviderStep) < _ERRANDS:
            if not await self._claim_errand():
                break

    async def _claim_local(self) -> None:
        while self._count(TrainingRun) < self._settings.worker_slots:
            if not await self._claim(ids.JOB, lambda c: TrainingRun(self._shop, self._executor, c)):
                break
        while self._count(DeploymentRun) < _DEPLOYMENTS:
            if not await self._claim(
                ids.DEPLOYMENT, lambda c: DeploymentRun(self._shop, self._servers, c)
            ):
                break
        while self._count(GradingRun) < _GRADINGS:
            if not await self._claim(
                ids.GRADER_RUN, lambda c: GradingRun(self._shop, self._graders, c)
            ):
                break

    async def _claim_errand(self) -> bool:
        """Anything to do at a provider: it says by its label that no machine of ours is needed."""
        for kind, run in _AT_PROVIDERS:
            make = partial(run, self._shop, self._accounts)
            if await self._claim(kind, make, [queue.PROVIDER]):
                return True
        return False

    async def _claim(
        self, kind: str, make: Callable[[Claim], Run], labels: list[str] | None = None
    ) -> bool:
        lease = timedelta(seconds=self._settings.lease_seconds)
        async with self._database.transaction(None) as session:
            claim = await queue.claim(session, self.id, kind, labels or self._labels, lease)
        if claim is None:
            return False
        level = logging.DEBUG if labels else logging.INFO
        log.log(level, "claimed %s, attempt %d", claim.subject_id, claim.number)
        run = make(claim)
        task = asyncio.create_task(self._guard(run, claim), name=claim.subject_id)
        self._runs[claim] = (run, task)
        self._changed.set()
        return True

    async def _guard(self, run: Run, claim: Claim) -> None:
        """A bug in one run must not end the others: its lease runs out and it is taken up again."""
        try:
            await run.run()
        except Exception:
            log.exception("the run of %s broke", claim.subject_id)
        finally:
            del self._runs[claim]
            self._wake.set()
            self._changed.set()

    def _count(self, kind: type[Run]) -> int:
        return sum(isinstance(run, kind) for run, _ in self._runs.values())

    def _heard(self, streams: frozenset[str] | None) -> None:
        for claim, (run, _) in self._runs.items():
            if streams is None or claim.subject_id in streams:
                run.look()
        self._wake.set()

    async def _report(self) -> None:
        """Every now and then, and soon after a slot was taken or came free."""
        while self._settings.worker_slots:
            self._changed.clear()
            told = await asyncio.to_thread(hardware.with_load, self._machine)
            told |= {
                "slots": self._settings.worker_slots,
                "busySlots": self._count(TrainingRun),
                "hourlyCost": self._settings.hourly_cost,
            }
            try:
                async with self._database.transaction(None) as session:
                    await catalog.report_worker(
                        session, self.id, socket.gethostname(), self._labels, told
                    )
            except (*CONNECTION_ERRORS, SQLAlchemyError) as trouble:
                log.warning("could not report for duty: %s", trouble)
            await asyncio.sleep(_REPORT_AT_MOST_EVERY)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPORT_EVERY):
                    await self._changed.wait()

    async def _leave(self) -> None:
        try:
            async with self._database.transaction(None) as session:
                await catalog.forget_worker(session, self.id)
        except (*CONNECTION_ERRORS, SQLAlchemyError) as trouble:
            log.warning("could not sign off: %s", trouble)
        await self._graders.close()
        await self._doorbell.stop()
        await self._egress.close()
        await self._accounts.close()
        await self._database.close()
