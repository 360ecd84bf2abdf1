"""One attempt of a job: from the claim, through the training process, to the job's next status."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from app.attempts.queue import Claim
from app.catalog.errors import BaseModelUnknown
from app.datasets.tables import DatasetVersion
from app.events.log import Fenced
from app.files.store import sha256_of
from app.graders import spec
from app.graders.protocol import ModelEndpoint
from app.jobs import evaluation
from app.jobs.progress import WorkOrder
from app.jobs.states import JobStatus, RequestedAction
from app.jobs.tables import Job
from app.training import report
from app.training.config import CONFIG, TrainingConfig
from app.training.hyperparameters import HYPERPARAMETERS
from app.training.resolve import processes_for
from app.worker import reports
from app.worker.embedded import prepare_embedded
from app.worker.executor import Execution, Executor
from app.worker.lease import Lease
from app.worker.manifest import differences, run_manifest
from app.worker.process import log_tail
from app.worker.record import JobRecord, WorkImpossible, Workshop
from app.worker.tracking import Trackers

log = logging.getLogger(__name__)


class TrainingRun:
    def __init__(self, workshop: Workshop, executor: Executor, claim: Claim) -> None:
        self._shop, self._executor, self._claim = workshop, executor, claim
        self._lease = Lease(workshop.database, claim, workshop.settings.lease_seconds)
        self._record = JobRecord(workshop, claim, self._lease)
        self._look = asyncio.Event()  # somebody may have asked for something
        self._draining = False
        self._process: Execution | None = None
        self._asked: RequestedAction | None = None
        self._examples: report.Examples | None = None
        self._trackers: Trackers | None = None
        self._started_at = time.monotonic()

    def look(self) -> None:
        """The job's stream was rung for: see whether its owner wants something."""
        self._look.set()

    def drain(self) -> None:
        """The worker leaves: save a checkpoint and hand the attempt back."""
        self._draining = True
        if self._process:
            self._process.ask_to_leave()

    async def run(self) -> None:
        try:
            order = await self._record.begin()
            if order is not None:
                await self._work(order)
        except Fenced:
            log.warning("%s: fenced, leaving it to its new owner", self._claim.subject_id)
        except WorkImpossible as refusal:
            await self._record.end(JobStatus.FAILED, "failed", error=refusal.error)
        finally:
            await self._lease.release()

    async def _work(self, order: WorkOrder) -> None:
        if order.job.status in (JobStatus.PENDING, JobStatus.QUEUED):
            if order.job.status == JobStatus.PENDING:
                await self._record.reached(JobStatus.VALIDATING)
            await self._check_bytes(order.training)
            for version in (order.validation, order.evaluation):
                if version:
                    await self._check_bytes(version)
        config = await self._configure(order)
        if order.job.status == JobStatus.PENDING:
            await self._record.reached(JobStatus.QUEUED)
        self._trackers = Trackers(self._shop.settings, order.job, self._record.say)
        self._process = await self._executor.submit(config)
        watcher = asyncio.create_task(self._watch(), name=f"watch-{self._claim.subject_id}")
        try:
            ending = await reports.record(
                self._record,
                self._beside(self._process.reports()),
                lambda said: self._started(order, said),
            )
            self._process.kill()
            lost = ending is None or isinstance(ending, report.Failed)
            await self._trackers.close(failed=lost)
        finally:
            self._trackers.kill()
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            self._process.kill()
            await self._process.wait()
        await self._conclude(order, config, ending)

    async def _beside(self, said: AsyncIterator[report.Report]) -> AsyncIterator[report.Report]:
        """Keeps what does not go into the log, and passes on the rest."""
        async for one in said:
            if self._trackers:
                self._trackers.heard(one)
            if isinstance(one, report.Examples):
                self._examples = one
            else:
                yield one

    async def _check_bytes(self, version: DatasetVersion) -> None:
        """The job is pinned to bytes: those in the store must still hash to the pinned value."""
        path = self._shop.store.path(self._claim.org_id, version.sha256)
        found = await asyncio.to_thread(sha256_of, path)
        if found is None:
            raise WorkImpossible(
                "data_missing", f"The bytes of {version.id} are gone.", "training_file"
            )
        if found != version.sha256:
            raise WorkImpossible(
                "data_changed",
                f"The bytes of {version.id} are not those it was made of.",
                "training_file",
            )

    async def _configure(self, order: WorkOrder) -> TrainingConfig:
        job, shop = order.job, self._shop
        try:
            base_model = shop.base_models.get(job.base_model)
        except BaseModelUnknown as unknown:
            raise WorkImpossible("base_model_unavailable", unknown.message, "model") from unknown
        if Path(base_model.location) == shop.base_models.embedded_folder:
            async for said in prepare_embedded(shop.base_models.embedded_folder):
                if said.failed:
                    raise WorkImpossible("base_model_unavailable", said.message, "model")
                await self._record.say("info", said.message)
        data_dir = shop.settings.data_dir.resolve()
        checkpoint, validation, repeats = order.checkpoint, order.validation, order.repeats
        start = order.start
        return CONFIG.validate_python(
            {
                "job_id": job.id,
                "attempt": self._claim.number,
                "run_dir": data_dir / "runs" / job.id / str(self._claim.epoch),
                "base_model": base_model.location,
                "base_model_name": base_model.name,
                "start_from": data_dir / start.path if start else None,
                "start_manifest_sha256": start.manifest_sha256 if start else None,
                "allow_hub": shop.settings.allow_hub and base_model.folder is None,
                "training_file": shop.store.path(job.org_id, order.training.sha256).resolve(),
                "training_sha256": order.training.sha256,
                "validation_file": (
                    shop.store.path(job.org_id, validation.sha256).resolve() if validation else None
                ),
                "validation_sha256": validation.sha256 if validation else None,
                "method": job.method,
                **_for_graders(job),
                "evaluation": self._evaluation(order),
                "model_endpoint": self._model_endpoint(job),
                "hyperparameters": job.hyperparameters,
                "seed": job.seed,
                "resume_from": data_dir / checkpoint.path if checkpoint else None,
                "resume_manifest_sha256": checkpoint.manifest_sha256 if checkpoint else None,
                "dtype": repeats["dtype"] if repeats else "auto",
                "threads": repeats["threads"] if repeats else shop.settings.threads,
                "processes": self._processes(order),
                "memory_limit": shop.settings.memory_limit_bytes,
            }
        )

    def _processes(self, order: WorkOrder) -> int:
        """As many as are here and can share each batch, or as many as the run to repeat had."""
        most = self._executor.processes_per_job
        if order.repeats:
            return min(most, int(order.repeats.get("processes", 1)))
        asked = HYPERPARAMETERS[order.job.method].model_validate(order.job.hyperparameters)
        return processes_for(asked, order.training.case_count, most)

    def _evaluation(self, order: WorkOrder) -> dict[str, Any] | None:
        job, version, shop = order.job, order.evaluation, self._shop
        if job.evaluation is None or version is None:
            return None
        return {
            **job.evaluation,
            "file": shop.store.path(job.org_id, version.sha256).resolve(),
            "sha256": version.sha256,
            "tenant": job.org_id,
            "seconds": shop.settings.scoring_seconds,
            "resumed_is_unscored": order.checkpoint is not None and order.checkpoint.score is None,
        }

    def _model_endpoint(self, job: Job) -> ModelEndpoint | None:
        """Given only to jobs whose graders ask a model."""
        graders = evaluation.graders(job.method, job.grader, job.evaluation)
        if not any(spec.models(grader) for _, grader in graders):
            return None
        return self._shop.model_endpoint(self._claim, job.project_id)

    async def _watch(self) -> None:
        """Pass the owner's wishes down, and end a process that lost its lease or overstays."""
        process = self._process
        assert process is not None  # noqa: S101 - started by the caller
        asked_at: float | None = None
        while True:
            waits = [
                asyncio.create_task(self._lease.lost.wait()),
                asyncio.create_task(self._look.wait()),
            ]
            try:
                await asyncio.wait(waits, timeout=1, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
            self._look.clear()
            if self._lease.lost.is_set():
                process.kill()
                return
            if self._draining:
                asked_at = asked_at or time.monotonic()
            elif (wish := await self._record.wish()) and wish != self._asked:
                if self._asked is None:
                    process.ask_to_leave()
                    asked_at = time.monotonic()
                self._asked = wish
            grace = self._shop.settings.stop_grace_seconds
            if asked_at is not None and time.monotonic() - asked_at > grace:
                process.kill()
                return

    async def _started(self, order: WorkOrder, said: report.Started) -> None:
        settings = self._shop.settings
        manifest = run_manifest(order, said, self._shop.machine, settings.hourly_cost)
        await self._record.reached(JobStatus.RUNNING, manifest)
        if order.repeats and (other := differences(order.repeats, manifest)):
            await self._record.say(
                "warn",
                f"This run repeats {order.job.rerun_of} in other surroundings, so its figures may "
                f"differ: {'; '.join(other)}.",
            )

    async def _conclude(
        self, order: WorkOrder, config: TrainingConfig, ending: report.Report | None
    ) -> None:
        if self._lease.lost.is_set():
            raise Fenced(self._claim.subject_id)
        match ending:
            case report.Finished():
                await self._record.succeed(order, ending, self._examples)
            case report.Failed():
                log.warning("%s failed: %s", order.job.id, log_tail(config.run_dir))
                error = {"code": ending.code, "message": ending.message, "param": ending.param}
                await self._record.end(JobStatus.FAILED, "failed", error=error)
            case _:
                await self._stopped(order, config, ending)

    async def _stopped(
        self, order: WorkOrder, config: TrainingConfig, ending: report.Report | None
    ) -> None:
        """It left without finishing: because it was asked to, or because it died."""
        wish = await self._record.wish()
        if wish is RequestedAction.CANCEL:
            await self._record.end(JobStatus.CANCELLED, "cancelled")
        elif wish is not None and ending is not None:
            await self._record.end(JobStatus.PAUSED, "paused")
        elif self._draining:
            await self._record.hand_back("released", "The worker left; another goes on.")
        else:
            log.error(
                "the training process of %s died:\n%s", order.job.id, log_tail(config.run_dir)
            )
            await self._record.hand_back("lost", "The training process died; the job goes on.")


def _for_graders(job: Job) -> dict[str, Any]:
    if job.method != "reinforcement":
        return {}
    return {"grader": job.grader, "tenant": job.org_id}
