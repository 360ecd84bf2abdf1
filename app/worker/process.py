"""A training process: started, listened to line by line, asked to leave, made to leave."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from app.core.settings import Settings
from app.training import report
from app.training.config import MODEL_ENDPOINT, TrainingConfig
from app.training.environment import command, default_threads, environment
from app.training.report import Report

log = logging.getLogger(__name__)

_LONGEST_LINE = 1 << 20
# Nothing of ours that is secret may reach the process: it runs models that users bring.
_WITHHELD = ("LUTHIER_", "PG", "AWS_", "OPENAI_", "AZURE_", "GOOGLE_", "WANDB_")


def bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}


class LocalExecutor:
    """Training on this machine. Each slot of the worker has GPUs of its own, where there are enough
    of them."""

    def __init__(self, settings: Settings, gpus: Sequence[str]) -> None:
        slots = settings.worker_slots
        self.processes_per_job = settings.processes_per_job or max(1, len(gpus) // max(1, slots))
        if gpus:
            self.processes_per_job = min(self.processes_per_job, len(gpus))
        self._gpus, self._slots = gpus, slots
        self._free = list(range(slots))

    async def submit(self, config: TrainingConfig) -> "TrainingProcess":
        slot = self._free.pop(0)
        try:
            if config.threads is None:
                threads = max(1, default_threads() // (self._slots * config.processes))
                config = config.model_copy(update={"threads": threads})
            process = await TrainingProcess.start(config, self._gpus_of(slot, config.processes))
        except BaseException:
            self._free.append(slot)
            raise
        process.when_over(lambda: self._free.append(slot))
        return process

    def _gpus_of(self, slot: int, count: int) -> list[str]:
        first = slot * self.processes_per_job
        return [self._gpus[(first + i) % len(self._gpus)] for i in range(count) if self._gpus]


class TrainingProcess:
    """One `python -m app.training`, or several with their launcher. It dies with this process (on
    Linux), and is its own group."""

    def __init__(self, process: asyncio.subprocess.Process, reports: asyncio.StreamReader) -> None:
        self._process, self._reports = process, reports
        self._when_over: Callable[[], None] | None = None

    @staticmethod
    async def start(config: TrainingConfig, gpus: Sequence[str] = ()) -> "TrainingProcess":
        """Write the config into its run folder and start. Its stderr goes to training.log there."""
        config.run_dir.mkdir(parents=True, exist_ok=True)
        file = config.run_dir / "config.json"
        file.write_text(config.model_dump_json(indent=2))
        read_end, write_end = os.pipe()
        variables = bare_environment() | environment(config.threads, config.allow_hub)
        if gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        if config.model_endpoint:
            variables[MODEL_ENDPOINT] = config.model_endpoint.model_dump_json()
        alone = config.processes == 1
        if alone:
            variables[report.REPORT_FD] = str(write_end)
        try:
            with (config.run_dir / "training.log").open("ab") as errors:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *command(str(file), config.processes),
                    stdin=asyncio.subprocess.DEVNULL,
                    # A launcher hands nothing down but the standard streams.
                    stdout=errors if alone else write_end,
                    stderr=errors,
                    pass_fds=(write_end,) if alone else (),
                    start_new_session=True,
                    env=variables,
                )
        finally:
            os.close(write_end)
        reports = asyncio.StreamReader(limit=_LONGEST_LINE)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reports), os.fdopen(read_end, "rb", 0)
        )
        return TrainingProcess(process, reports)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def reports(self) -> AsyncIterator[Report]:
        """Every report until the process has closed its end."""
        while line := await self._reports.readline():
            try:
                yield report.parse(line)
            except ValidationError:
                log.warning("a line of the training process is no report: %.200r", line)

    def ask_to_leave(self) -> None:
        """Save a checkpoint and leave."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self) -> int:
        status = await self._process.wait()
        if self._when_over:
            self._when_over()
            self._when_over = None
        return status

    def when_over(self, then: Callable[[], None]) -> None:
        """Have it called once it was waited for."""
        self._when_over = then


def log_tail(run_dir: Path, size: int = 2_000) -> str:
    """The end of a training process's stderr, for the worker's own log."""
    try:
        with (run_dir / "training.log").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
