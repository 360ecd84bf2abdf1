"""A training process: started, listened to line by line, asked to leave, made to leave."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import ValidationError

from app.training import report
from app.training.config import TrainingConfig
from app.training.environment import environment
from app.training.report import Report

log = logging.getLogger(__name__)

_LONGEST_LINE = 1 << 20
# Nothing of ours that is secret may reach the process: it runs models that users bring.
_WITHHELD = ("LUTHIER_", "PG", "AWS_", "OPENAI_", "AZURE_", "GOOGLE_", "WANDB_")


def bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}


class TrainingProcess:
    """One `python -m app.training`. It dies with this one (on Linux), and is its own group."""

    def __init__(self, process: asyncio.subprocess.Process, reports: asyncio.StreamReader) -> None:
        self._process, self._reports = process, reports

    @staticmethod
    async def start(config: TrainingConfig) -> "TrainingProcess":
        """Write the config into its run folder and start. Its stderr goes to training.log there."""
        config.run_dir.mkdir(parents=True, exist_ok=True)
        file = config.run_dir / "config.json"
        file.write_text(config.model_dump_json(indent=2))
        read_end, write_end = os.pipe()
        try:
            with (config.run_dir / "training.log").open("ab") as errors:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "app.training",
                    str(file),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    pass_fds=(write_end,),
                    start_new_session=True,
                    env=bare_environment()
                    | environment(config.threads, config.allow_hub)
                    | {report.REPORT_FD: str(write_end)},
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
        return await self._process.wait()


def log_tail(run_dir: Path, size: int = 2_000) -> str:
    """The end of a training process's stderr, for the worker's own log."""
    try:
        with (run_dir / "training.log").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
