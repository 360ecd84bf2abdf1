"""Passing a job's metrics on to Weights & Biases. Training never waits for it: what it does not
take in time is left out, and a failure of it is one warning in the job's log."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from app.core.settings import Settings
from app.jobs.tables import Job
from app.tracking.protocol import OUTPUT, Begin, End, Point, Shown
from app.training import report
from app.worker.process import bare_environment

log = logging.getLogger(__name__)

_MOST = 10_000  # points that wait
_PATIENCE = 10.0

Say = Callable[[str, str], Awaitable[None]]


class Trackers:
    """One for each place that the job's owner wants it shown at."""

    def __init__(self, settings: Settings, job: Job, say: Say, patience: float = _PATIENCE) -> None:
        """`patience`: seconds the service has to answer at first, and for what is left when the
        job is over."""
        self._settings, self._job, self._say, self._patience = settings, job, say, patience
        self._all: list[_Tracker] = []

    def heard(self, said: report.Report) -> None:
        """Never blocks."""
        match said:
            case report.Started():
                for one in self._job.integrations or []:
                    begin = _begin(self._settings, self._job, one["wandb"], said, self._patience)
                    self._all.append(_Tracker(begin, self._say))
            case report.Metrics():
                for tracker in self._all:
                    tracker.add(Point(step=said.step, values=said.values))
            case _:
                pass

    async def close(self, *, failed: bool) -> None:
        """Give them a moment to say the rest."""
        await asyncio.gather(*(tracker.close(failed) for tracker in self._all))
        self._all = []

    def kill(self) -> None:
        for tracker in self._all:
            tracker.kill()


class _Tracker:
    def __init__(self, begin: Begin, say: Say) -> None:
        self._say, self._patience = say, begin.patience
        self._lines: asyncio.Queue[BaseModel] = asyncio.Queue(_MOST)
        self._lost = 0
        self._process: Process | None = None
        self._task = asyncio.create_task(self._work(begin), name=f"wandb-{begin.run_id}")

    def add(self, point: Point) -> None:
        try:
            self._lines.put_nowait(point)
        except asyncio.QueueFull:
            self._lost += 1

    async def close(self, failed: bool) -> None:
        try:
            async with asyncio.timeout(self._patience):
                ending = asyncio.create_task(self._lines.put(End(failed=failed)))
                await asyncio.wait({ending, self._task}, return_when=asyncio.FIRST_COMPLETED)
                ending.cancel()
                await asyncio.shield(self._task)
        except TimeoutError:
            self.kill()
            await self._warn("it did not take the last values in time")
        finally:
            self.kill()

    def kill(self) -> None:
        self._task.cancel()
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _work(self, begin: Begin) -> None:
        try:
            trouble = await self._talk(begin)
        except Exception:
            log.exception("the metrics of %s could not be passed on", begin.run_id)
            trouble = "its process could not be used"
        if trouble is None and self._lost:
            trouble = f"it was too slow, and {self._lost} points are missing there"
        if trouble:
            await self._warn(trouble)

    async def _warn(self, trouble: str) -> None:
        with contextlib.suppress(Exception):  # whoever lost the lease has nothing to say any more
            await self._say("warn", f"Weights & Biases does not show all of this run: {trouble}.")

    async def _talk(self, begin: Begin) -> str | None:
        """Returns what went wrong."""
        process = self._process = await _start(Path(begin.folder))
        hearing = asyncio.create_task(self._hear(process))
        assert process.stdin is not None  # noqa: S101 - a pipe
        line: BaseModel = begin
        with contextlib.suppress(ConnectionError):
            while True:
                process.stdin.write(line.model_dump_json().encode() + b"\n")
                await process.stdin.drain()
                if isinstance(line, End):
                    break
                line = await self._next(hearing)
        with contextlib.suppress(ConnectionError):
            process.stdin.close()
        trouble = await hearing
        if await process.wait() and trouble is None:
            trouble = "its process ended unexpectedly"
        return trouble

    async def _next(self, hearing: "asyncio.Task[str | None]") -> BaseModel:
        """The next line to send. Raises ConnectionError when nobody listens any more."""
        waiting = asyncio.create_task(self._lines.get())
        try:
            await asyncio.wait({waiting, hearing}, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                raise ConnectionResetError
            return waiting.result()
        finally:
            waiting.cancel()

    async def _hear(self, process: Process) -> str | None:
        assert process.stdout is not None  # noqa: S101 - a pipe
        async for line in process.stdout:
            try:
                said = OUTPUT.validate_json(line)
            except ValidationError:
                continue
            if not isinstance(said, Shown):
                return said.message
            with contextlib.suppress(Exception):
                await self._say("info", f"Shown at Weights & Biases: {said.url}")
        return None


def _begin(
    settings: Settings, job: Job, wanted: dict[str, Any], started: report.Started, patience: float
) -> Begin:
    folder = settings.data_dir.resolve() / "runs" / job.id
    return Begin(
        project=wanted["project"],
        entity=wanted.get("entity"),
        name=wanted.get("name") or job.id,
        tags=list(dict.fromkeys(["luthier", job.id, job.base_model[:64], *wanted["tags"]])),
        run_id=job.id,
        config={
            "method": job.method,
            "base_model": job.base_model,
            "seed": job.seed,
            "training_data": job.training_version_id,
            "validation_data": job.validation_version_id,
            **started.resolved.model_dump(mode="json", exclude_none=True),
        },
        folder=str(folder),
        patience=patience,
        mode=settings.wandb_mode,
        api_key=settings.wandb_api_key,
    )


async def _start(folder: Path) -> Process:
    """Its stderr goes to wandb.log in the folder. Of our secrets it gets its own key alone."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    with (folder / "wandb.log").open("ab") as errors:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.tracking",
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
            start_new_session=True,
            env=bare_environment() | own,
        )
