"""What a run writes of its job: repeated until it is certain, and fenced by the claim."""

import asyncio
import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.attempts import tokens
from app.attempts.queue import Claim
from app.catalog.base_models import BaseModels
from app.core import clock
from app.core.database import Database
from app.core.settings import Settings
from app.events.log import NewEvent
from app.events.types import EventType
from app.files import service as files
from app.files.store import FileStore
from app.graders.protocol import ModelEndpoint
from app.jobs import examples, progress, results, scores
from app.jobs.progress import WorkOrder
from app.jobs.states import JobStatus, RequestedAction
from app.training import report
from app.worker.lease import Lease

log = logging.getLogger(__name__)


class WorkImpossible(Exception):
    """The job cannot be worked on; becomes its error."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "param": param}


@dataclass(frozen=True)
class Workshop:
    """What every run of this worker shares."""

    settings: Settings
    database: Database
    store: FileStore
    base_models: BaseModels
    machine: dict[str, Any]
    master_key: bytes = field(repr=False)

    @property
    def models_url(self) -> str:
        """Where graders call models, in the manner of OpenAI."""
        settings = self.settings
        return f"{(settings.api_url or settings.local_url).rstrip('/')}/v1"

    def model_endpoint(self, claim: Claim, project_id: str) -> ModelEndpoint:
        """For the graders of this attempt, as long as it lives."""
        token = tokens.mint(self.master_key, claim, project_id)
        return ModelEndpoint(base_url=self.models_url, token=token)


class JobRecord:
    """The job's side of the ledger, as its one writer sees it."""

    def __init__(self, workshop: Workshop, claim: Claim, lease: Lease) -> None:
        self._shop, self._claim, self._lease = workshop, claim, lease

    async def begin(self) -> WorkOrder | None:
        gone: set[str] = set()  # kept over repeated tries: the first may have been committed

        async def write() -> WorkOrder | None:
            async with self._shop.database.transaction(self._claim.org_id) as session:
                order = await progress.begin(session, self._claim)
                if order is None:
                    gone.update(await progress.discard(session, self._claim))
                return order

        order = await self._lease.insist(write)
        self._remove(gone)
        return order

    async def reached(self, status: JobStatus, manifest: dict[str, Any] | None = None) -> None:
        async def write() -> None:
            async with self._shop.database.transaction(self._claim.org_id) as session:
                await progress.reached(session, self._claim, status, manifest=manifest)

        await self._lease.insist(write)

    async def wish(self) -> RequestedAction | None:
        async def read() -> RequestedAction | None:
            async with self._shop.database.transaction(self._claim.org_id) as session:
                return await progress.wish(session, self._claim)

        return await self._lease.insist(read)

    async def flush(self, events: list[NewEvent], latest: dict[str, Any] | None) -> None:
        if not events:
            return
        tried = False

        async def write() -> None:
            nonlocal tried
            async with self._shop.database.transaction(self._claim.org_id) as session:
                if tried and await progress.reported(session, self._claim, events[0]):
                    return
                tried = True
                await progress.report(session, self._claim, events, latest)

        await self._lease.insist(write)

    async def say(self, level: str, message: str) -> None:
        data = {"level": level, "message": message}
        await self.flush([self.event(EventType.MESSAGE, data)], None)

    async def checkpoint(self, said: report.Checkpoint) -> None:
        """List it, and let go of those that the job's rule no longer keeps."""
        claim, shop = self._claim, self._shop
        gone: set[str] = set()  # kept over repeated tries: the first may have been committed

        async def write() -> None:
            async with shop.database.transaction(claim.org_id) as session:
                await progress.add_checkpoint(
                    session,
                    claim,
                    step=said.step,
                    path=self._relative(said.path),
                    manifest_sha256=said.manifest_sha256,
                    size_bytes=said.size_bytes,
                    metrics=said.metrics,
                )
                gone.update(
                    await progress.prune_checkpoints(session, claim, shop.settings.checkpoints_kept)
                )

        await self._lease.insist(write)
        self._remove(gone)

    async def score(self, said: report.Score) -> None:
        """Give the checkpoint its score; another one may be the best from now on."""
        claim, shop = self._claim, self._shop
        data, at = said.model_dump(mode="json", exclude={"type", "step"}), clock.now()
        gone: set[str] = set()

        async def write() -> None:
            async with shop.database.transaction(claim.org_id) as session:
                await scores.add(session, claim, said.step, at, data)
                gone.update(
                    await progress.prune_checkpoints(session, claim, shop.settings.checkpoints_kept)
                )

        await self._lease.insist(write)
        self._remove(gone)

    async def succeed(
        self, order: WorkOrder, said: report.Finished, known: report.Examples | None = None
    ) -> None:
        """`known` is how well the model knows each case, where that was measured."""
        claim, shop = self._claim, self._shop
        explained = await self._explained(order, known) if known else None

        async def write() -> str:
            async with shop.database.transaction(claim.org_id) as session:
                made = {results.FILENAME: await results.metrics_csv(session, claim.subject_id)}
                if explained is not None:
                    made[examples.FILENAME] = explained
                kept = []
                for name, content in made.items():
                    stored = await shop.store.put(
                        claim.org_id, files.one_chunk(content), len(content)
                    )
                    file = await files.add_result(
                        session, claim.org_id, order.job.project_id, stored, name
                    )
                    kept.append(file.id)
                worked = await progress.seconds_worked(session, claim)
                model = await progress.succeed(
                    session,
                    claim,
                    step=said.step,
                    kind=said.kind,
                    path=self._relative(said.model_path),
                    manifest_sha256=said.manifest_sha256,
                    size_bytes=said.size_bytes,
                    trained_tokens=said.trained_tokens,
                    result_file_ids=kept,
                    cost=round(worked / 3600 * shop.settings.hourly_cost, 4),
                )
                return model.path

        made_of, last = await self._lease.insist(write), self._relative(said.model_path)
        if made_of != last:  # an earlier checkpoint was better; the last one has these weights too
            self._remove([last])

    async def _explained(self, order: WorkOrder, known: report.Examples) -> bytes | None:
        store, org_id = self._shop.store, self._claim.org_id
        training = store.path(org_id, order.training.sha256)
        validation = store.path(org_id, order.validation.sha256) if order.validation else None
        try:
            return await asyncio.to_thread(examples.content, known, training, validation)
        except Exception:
            # A job whose model is made does not fail for want of a list about it.
            log.exception("the cases of %s could not be listed", order.job.id)
            return None

    async def end(
        self, status: JobStatus, outcome: str, error: dict[str, Any] | None = None
    ) -> None:
        gone: set[str] = set()

        async def write() -> None:
            async with self._shop.database.transaction(self._claim.org_id) as session:
                await progress.end(session, self._claim, status, outcome=outcome, error=error)
                gone.update(await progress.discard(session, self._claim))

        await self._lease.insist(write)
        self._remove(gone)

    async def hand_back(self, outcome: str, message: str) -> None:
        async def write() -> None:
            async with self._shop.database.transaction(self._claim.org_id) as session:
                await progress.hand_back(session, self._claim, outcome, message)

        await self._lease.insist(write)

    def metrics(self, said: report.Metrics) -> NewEvent:
        data: dict[str, Any] = {"epoch": said.epoch, "values": said.values}
        if said.non_finite:
            data["nonFinite"] = said.non_finite
        return self.event(EventType.METRICS, data, said.step)

    def event(self, type: str, data: dict[str, Any], step: int | None = None) -> NewEvent:
        return NewEvent(type, data, step, self._claim.number, clock.now())

    def _remove(self, folders: Iterable[str]) -> None:
        for folder in folders:
            shutil.rmtree(self._shop.settings.data_dir / folder, ignore_errors=True)

    def _relative(self, path: str) -> str:
        return str(Path(path).resolve().relative_to(self._shop.settings.data_dir.resolve()))


def start_message(said: report.Started) -> dict[str, Any]:
    return {
        "level": "info",
        "message": f"Training on {said.training_cases} cases, {said.training_tokens} tokens an "
        f"epoch: {said.total_steps} steps, {said.device}, {said.dtype}.",
        "versions": said.versions,
        "device": said.device,
        "dtype": said.dtype,
        "threads": said.threads,
        "processes": said.processes,
        "trainingTokens": said.training_tokens,
        "truncatedCases": said.truncated_cases,
    }


def newest_of(said: report.Metrics, event: NewEvent) -> dict[str, Any]:
    assert event.at is not None  # noqa: S101 - set where it was made
    return {
        "attempt": event.attempt,
        "step": said.step,
        "epoch": said.epoch,
        "at": event.at.isoformat(),
        "values": said.values,
        "nonFinite": said.non_finite,
        "progress": said.progress.model_dump(),
    }
