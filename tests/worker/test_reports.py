"""A training process's reports come into the log whole, in order, and soon."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from app.catalog.base_models import BaseModels
from app.core.database import Database
from app.core.settings import Settings
from app.events import log
from app.events.log import Fenced, LoggedEvent
from app.files.store import FolderStore
from app.training import report
from app.worker import reports
from app.worker.lease import Lease
from app.worker.process import TrainingProcess
from app.worker.record import JobRecord, Workshop
from tests.events.tools import everything, execute, numbers, until
from tests.jobs.work import take
from tests.support import Api


class Run:
    """A claimed job, and the pipe that its training process would write to."""

    def __init__(self, database: Database, org_id: str, job_id: str, job: JobRecord) -> None:
        self.database, self.org_id, self.job_id, self.job = database, org_id, job_id, job
        self.starts = 0
        self.read_end, self.write_end = os.pipe()

    async def listen(self) -> report.Report | None:
        pipe = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(pipe), os.fdopen(self.read_end, "rb", 0)
        )
        process: object = None
        said = TrainingProcess(process, pipe).reports()  # type: ignore[arg-type]
        return await reports.record(self.job, said, self._started)

    async def _started(self, _: report.Started) -> None:
        self.starts += 1

    async def say(self, *said: report.Report) -> None:
        lines = b"".join(one.model_dump_json().encode() + b"\n" for one in said)
        while lines:
            lines = lines[await asyncio.to_thread(os.write, self.write_end, lines) :]

    def leave(self) -> None:
        os.close(self.write_end)

    async def steps(self) -> list[int | None]:
        found: list[LoggedEvent] = await everything(self.database, self.org_id, self.job_id)
        assert numbers(found) == list(range(1, len(found) + 1))
        return [event.step for event in found if event.type == "metrics"]


@pytest.fixture
async def run(
    api: Api, worker_database: Database, database_url: str, settings: Settings
) -> AsyncIterator[Run]:
    job_id = await api.job_id()
    claim = await take(worker_database, database_url, job_id)
    lease = Lease(worker_database, claim, 300)
    store = FolderStore(settings.data_dir / "files")
    shop = Workshop(settings, worker_database, store, BaseModels(settings), {}, b"")
    yield Run(worker_database, claim.org_id, job_id, JobRecord(shop, claim, lease))
    await lease.release()


def measured(step: int) -> report.Metrics:
    progress = report.Progress(
        step=step,
        total_steps=5_000,
        epoch=0.5,
        total_epochs=1,
        trained_tokens=step,
        tokens_per_second=None,
        remaining_seconds=None,
    )
    return report.Metrics(step=step, epoch=0.5, values={"training_loss": 1.5}, progress=progress)


async def test_a_lone_report_does_not_wait_for_others(run: Run) -> None:
    listening = asyncio.create_task(run.listen())
    for step in (1, 2):
        await run.say(measured(step))

        async def written(step: int = step) -> bool:
            return step in await run.steps()

        await until(written)
    run.leave()
    assert await listening is None


async def test_a_flood_is_written_whole_and_in_order(run: Run) -> None:
    """More than the pipe and the worker hold: the process waits until it is taken."""
    listening = asyncio.create_task(run.listen())
    last = report.Stopped(step=4_000, checkpoint_path=None)
    await run.say(*(measured(step) for step in range(1, 4_001)), last)
    run.leave()
    assert await listening == last
    assert await run.steps() == list(range(1, 4_001))
    async with run.database.transaction(run.org_id) as session:
        head = (await log.heads(session, [run.job_id]))[run.job_id]
    assert head.latest is not None
    assert head.latest["step"] == head.latest["progress"]["step"] == 4_000


async def test_a_worker_that_lost_its_claim_writes_nothing_and_stops(run: Run) -> None:
    await execute(run.database, run.org_id, "UPDATE streams SET epoch = epoch + 1")
    listening = asyncio.create_task(run.listen())
    await run.say(*(measured(step) for step in range(1, 100)))
    with pytest.raises(Fenced):
        await listening
    assert await run.steps() == []
    run.leave()


@pytest.mark.parametrize(
    "last",
    [
        report.Stopped(step=1, checkpoint_path=None),
        report.Failed(code="internal_error", message="It broke."),
    ],
)
async def test_a_process_that_said_its_last_word_is_not_waited_for(
    run: Run, last: report.Report
) -> None:
    """However long it takes to end."""
    listening = asyncio.create_task(run.listen())
    await run.say(measured(1), last)
    assert await asyncio.wait_for(listening, 10) == last
    assert await run.steps() == [1]
    run.leave()
