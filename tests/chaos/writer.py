"""The load: a worker whose numbers are made up. It claims attempts, holds leases, and writes its
jobs' events and states as the real one does, fenced and repeated until it is certain.

    python -m tests.chaos.writer FOLDER

Everything it writes carries a mark, never used twice; those that it knows to be committed are
written to a file, so that the log can be held against it.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.attempts import queue
from app.attempts.queue import Claim
from app.catalog.base_models import BaseModels
from app.core import ids
from app.core.database import CONNECTION_ERRORS, Database
from app.core.settings import Settings
from app.events.doorbell import Doorbell
from app.events.log import Fenced, NewEvent
from app.events.types import EventType
from app.files.store import FolderStore
from app.jobs.progress import WorkOrder
from app.jobs.states import JobStatus, RequestedAction
from app.training import report
from app.worker import hardware
from app.worker.lease import Lease
from app.worker.record import JobRecord, Workshop, newest_of

ZOMBIE = "written after its claim was lost"
_TICK = 0.25
_TOTAL = 1_000_000
_LEFT = text(
    "SELECT count(*) FROM jobs WHERE status IN ('pending', 'validating', 'queued', 'running')"
)


class Marks:
    """Numbers that no other process of this round uses, and those known to be in the log."""

    def __init__(self, folder: Path) -> None:
        number = len(list(folder.glob("marks-*.jsonl")))
        self._next: Iterator[int] = count(number * 10_000_000 + 1)
        path = folder / f"marks-{number}.jsonl"
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def new(self) -> int:
        return next(self._next)

    def committed(self, marks: list[int]) -> None:
        os.write(self._file, json.dumps(marks).encode() + b"\n")


class Run:
    """One attempt. `epochs` holds the newest claim on each job, of this process's runs."""

    def __init__(
        self, crew: "Crew", claim: Claim, lease_seconds: float, epochs: dict[str, int]
    ) -> None:
        self._crew, self._claim, self._epochs = crew, claim, epochs
        self._dice = random.Random(f"{crew.seed} {claim.subject_id} {claim.number}")
        self._long = claim.subject_id in crew.long
        self._lease = Lease(crew.shop.database, claim, lease_seconds)
        self._record = JobRecord(crew.shop, claim, self._lease)
        self._step = 0

    async def run(self) -> None:
        with contextlib.suppress(Fenced):  # it is another's now
            try:
                order = await self._record.begin()
                if order is not None:
                    await self._work(order)
            finally:
                await self._lease.release()

    async def _work(self, order: WorkOrder) -> None:
        if order.job.status == JobStatus.PENDING:
            await self._record.reached(JobStatus.VALIDATING)
            await self._record.reached(JobStatus.QUEUED)
        await self._record.reached(JobStatus.RUNNING)
        self._step = order.checkpoint.step if order.checkpoint else 0
        await self._save()  # losing its worker again and again at one place would fail the job
        ticks = self._dice.randint(3, 12)
        while (not self._crew.finishing.is_set()) if self._long else ticks:
            ticks -= 1
            for events in self._tick():
                await self._flush(events)
            wish = await self._record.wish()
            if wish in (RequestedAction.PAUSE, RequestedAction.CANCEL):
                pausing = wish is RequestedAction.PAUSE
                status = JobStatus.PAUSED if pausing else JobStatus.CANCELLED
                await self._record.end(status, status.value)
                return
            await asyncio.sleep(_TICK)
        await self._save()
        chance = 0.0 if self._long else self._dice.random()
        if chance < 0.6:
            await self._record.succeed(order, self._finished())
        elif chance < 0.8:
            error = {"code": "user_error", "message": "The data were no good.", "param": None}
            await self._record.end(JobStatus.FAILED, "failed", error)
        elif chance < 0.9:
            await self._record.hand_back("released", "The worker leaves.")
        else:
            await self._oversleep()

    def _tick(self) -> list[list[NewEvent]]:
        """What a training process says in this time, in the worker's batches; now and then much."""
        chance = self._dice.random()
        if self._long and chance < 0.012:  # more than the streams' ring buffers hold
            return [[self._measured() for _ in range(100)] for _ in range(12)]
        if self._long and chance < 0.05:  # more than a connection may have waiting
            return [[self._said(4_000) for _ in range(50)] for _ in range(5)]
        events = [self._measured() for _ in range(self._dice.randint(1, 5))]
        if self._dice.random() < 0.5:
            events.insert(self._dice.randrange(len(events)), self._said(80))
        return [events]

    async def _flush(self, events: list[NewEvent]) -> None:
        metrics = [event for event in events if event.type == EventType.METRICS]
        latest = newest_of(self._metrics(), metrics[-1]) if metrics else None
        await self._record.flush(events, latest)
        self._crew.marks.committed([mark_of(event.data) for event in events])

    def _measured(self) -> NewEvent:
        self._step += 1
        return self._record.metrics(self._metrics())

    def _metrics(self) -> report.Metrics:
        mark = self._crew.marks.new()
        progress = report.Progress(
            step=self._step,
            total_steps=_TOTAL,
            epoch=1.0,
            total_epochs=1,
            trained_tokens=self._step * 100,
            tokens_per_second=None,
            remaining_seconds=None,
        )
        values: report.Values = {"training_loss": mark / 7, "mark": mark}
        return report.Metrics(step=self._step, epoch=1.0, values=values, progress=progress)

    def _said(self, size: int, words: str = "") -> NewEvent:
        data = {"level": "info", "message": words or "." * size, "mark": self._crew.marks.new()}
        return self._record.event(EventType.MESSAGE, data)

    async def _save(self) -> None:
        self._step += 1
        await self._record.checkpoint(
            report.Checkpoint(
                step=self._step,
                epoch=1.0,
                path=self._path("checkpoint"),
                manifest_sha256="0" * 64,
                size_bytes=1,
                metrics={},
            )
        )

    def _finished(self) -> report.Finished:
        return report.Finished(
            model_path=self._path("model"),
            kind="lora",
            manifest_sha256="0" * 64,
            size_bytes=1,
            trained_tokens=1,
            step=self._step,
            metrics={},
        )

    def _path(self, name: str) -> str:
        folder = self._crew.shop.settings.data_dir / "runs" / self._claim.subject_id
        return str(folder / str(self._claim.epoch) / name)

    async def _oversleep(self) -> None:
        """The lease runs out, another takes the job over, and then this one wakes up."""
        await self._lease.release()
        for _ in range(200):
            await asyncio.sleep(0.1)
            if self._epochs[self._claim.subject_id] > self._claim.epoch:
                await self._record.flush([self._said(0, ZOMBIE)], None)


class Crew:
    def __init__(self, settings: Settings, folder: Path) -> None:
        plan = json.loads((folder / "plan.json").read_text())
        self.seed, self.long = plan["seed"], set(plan["jobs"])
        self.org_id: str = plan["org_id"]
        self.marks = Marks(folder)
        self.finishing = asyncio.Event()
        self._finish_file = folder / "finish"
        assert settings.database_url is not None
        url = settings.database_url.get_secret_value()
        database = Database(url, "luthier_worker", settings.database_pool)
        bell = settings.broadcast_url
        self._doorbell = Doorbell(bell.get_secret_value() if bell else url)
        database.after_commit = self._doorbell.ring
        store = FolderStore(settings.data_dir / "files")
        self.shop = Workshop(
            settings, database, store, BaseModels(settings), hardware.describe(), b""
        )
        self._epochs: dict[str, int] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._id = ids.new(ids.WORKER)

    async def work(self) -> None:
        """Until told to finish, and nothing is left to do."""
        await self._doorbell.start()
        left = True
        while left or not self.finishing.is_set():
            if self._finish_file.exists():
                self.finishing.set()
            with contextlib.suppress(*CONNECTION_ERRORS, SQLAlchemyError):
                while await self._claim():
                    pass
                left = await self._anything_left()
            await asyncio.sleep(0.25)
        await asyncio.gather(*self._runs)
        await self._doorbell.stop()

    async def _claim(self) -> bool:
        seconds = self.shop.settings.lease_seconds
        async with self.shop.database.transaction(None) as session:
            claim = await queue.claim(
                session, self._id, ids.JOB, ["local"], timedelta(seconds=seconds)
            )
        if claim is None:
            return False
        self._epochs[claim.subject_id] = claim.epoch
        run = asyncio.create_task(Run(self, claim, seconds, self._epochs).run())
        self._runs.add(run)
        run.add_done_callback(self._ended)
        return True

    def _ended(self, run: "asyncio.Task[None]") -> None:
        self._runs.discard(run)
        if not run.cancelled() and run.exception():
            os._exit(_told(run))

    async def _anything_left(self) -> bool:
        async with self.shop.database.transaction(self.org_id) as session:
            return bool(await (await session.connection()).scalar(_LEFT))


def _told(run: "asyncio.Task[None]") -> int:
    """A run that breaks is a fault of the record's, and must not pass unseen."""
    run.print_stack(file=sys.stderr)
    print(repr(run.exception()), file=sys.stderr, flush=True)  # noqa: T201
    return 1


def mark_of(data: dict[str, Any]) -> int:
    """The mark of an event's data."""
    values = data.get("values", data)
    return int(values["mark"])


async def main(folder: Path) -> None:
    await Crew(Settings(_env_file=None), folder).work()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
