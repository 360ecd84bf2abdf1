"""The training program in a real process, and what it says."""

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from app.training.__main__ import main
from app.training.environment import environment
from app.training.report import (
    Checkpoint,
    Examples,
    Failed,
    Finished,
    Message,
    Metrics,
    Report,
    Started,
    Stopped,
    parse,
)
from tests.support import ROOT

TIMEOUT = 120


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Outcome:
    """All that one process said, and how it ended."""

    code: int
    stderr: str
    lines: list[str]
    reports: list[Report] = field(init=False)

    def __post_init__(self) -> None:
        self.reports = [parse(line) for line in self.lines]

    @property
    def started(self) -> Started:
        (report,) = (r for r in self.reports if isinstance(r, Started))
        return report

    @property
    def metrics(self) -> list[Metrics]:
        return [r for r in self.reports if isinstance(r, Metrics)]

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return [r for r in self.reports if isinstance(r, Checkpoint)]

    @property
    def messages(self) -> list[str]:
        return [r.message for r in self.reports if isinstance(r, Message)]

    @property
    def finished(self) -> Finished:
        assert self.code == 0, self.stderr[-3000:]
        assert not isinstance(self.reports[-1], Stopped | Failed)
        (report,) = (r for r in self.reports if isinstance(r, Finished))
        return report

    @property
    def examples(self) -> Examples:
        (report,) = (r for r in self.reports if isinstance(r, Examples))
        return report

    @property
    def stopped(self) -> Stopped:
        assert self.code == 3, self.stderr[-3000:]
        assert isinstance(self.reports[-1], Stopped)
        return self.reports[-1]

    @property
    def failed(self) -> Failed:
        assert self.code == 1, self.stderr[-3000:]
        assert isinstance(self.reports[-1], Failed)
        return self.reports[-1]


# Loading the libraries takes most of the time of so short a run, so one process has done it and
# each training process is a copy of it. Jobs of the flows begin as those of users do.
_COPIES = multiprocessing.get_context("forkserver")
_COPIES.set_forkserver_preload(["app.training.sft", "app.training.dpo", "app.training.grpo"])


def _train(file: Path, variables: dict[str, str], stderr: Path, reports: Connection) -> None:
    """What `python -m app.training` does in its process."""
    os.environ.update(variables, LUTHIER_REPORT_FD=str(reports.fileno()))
    with stderr.open("w") as written:
        os.dup2(written.fileno(), 2)
    os.chdir(ROOT)
    sys.exit(main([str(file)]))


class Training:
    """A training process that is running."""

    def __init__(self, folder: Path, **config: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "config.json"
        file.write_text(json.dumps(config, default=str))
        self._stderr = folder / "stderr"
        variables = {**os.environ, **environment(1)}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment(1).items():  # read when the first copy is asked for
                patch.setenv(name, value)
            reading, writing = _COPIES.Pipe(duplex=False)
            self.process = _COPIES.Process(
                target=_train, args=(file, variables, self._stderr, writing)
            )
            self.process.start()
        writing.close()
        self._reports = os.fdopen(os.dup(reading.fileno()))
        reading.close()
        self._lines: list[str] = []

    def wait_for(self, wanted: Callable[[Report], bool]) -> Report:
        """Read on until a report is as wanted."""
        for line in self._reports:
            self._lines.append(line)
            report = parse(line)
            if wanted(report):
                return report
        raise AssertionError(f"the process ended first: {self._stderr.read_text()[-3000:]}")

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()

    def end(self) -> Outcome:
        self._lines += self._reports
        self.process.join(TIMEOUT)
        code = self.process.exitcode
        assert code is not None, "it said all, and did not end"
        return Outcome(code, self._stderr.read_text(), self._lines)

    def clean_up(self) -> None:
        self.process.kill()
        self.process.join()
        self._reports.close()


Start = Callable[..., Training]


def base_config(tiny_model: Path, chats: Path, run_dir: Path) -> dict[str, Any]:
    return {
        "job_id": "ftjob_test",
        "attempt": 1,
        "run_dir": run_dir,
        "base_model": tiny_model,
        "base_model_name": "tiny",
        "training_file": chats / "train.jsonl",
        "training_sha256": sha256(chats / "train.jsonl"),
        "method": "supervised",
        "seed": 7,
        # Two runs that are compared must not measure the processor twice and differ.
        "dtype": "float32",
        "threads": 1,
    }


def with_validation(chats: Path) -> dict[str, Any]:
    file = chats / "valid.jsonl"
    return {"validation_file": file, "validation_sha256": sha256(file)}


CLOCKS = {"tokens_per_second"}


def values_from(metrics: list[Metrics], step: int) -> dict[int, dict[str, Any]]:
    """What may be compared between two runs: everything but the clock."""
    return {
        m.step: {name: v for name, v in m.values.items() if name not in CLOCKS}
        for m in metrics
        if m.step >= step
    }


def at_step(step: int) -> Callable[[Report], bool]:
    return lambda report: isinstance(report, Metrics) and report.step == step


def resuming(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "resume_from": checkpoint.path,
        "resume_manifest_sha256": checkpoint.manifest_sha256,
    }


QUEUES = ["billing", "shipping", "account"]


def _pair(number: int) -> dict[str, Any]:
    right, wrong = QUEUES[number % 3], QUEUES[(number + 1) % 3]
    question = {"role": "user", "content": f"ticket {number}: a question about {right}"}
    return {
        "input": {"messages": [question]},
        "preferred_output": [{"role": "assistant", "content": f"To the {right} queue."}],
        "non_preferred_output": [{"role": "assistant", "content": f"No idea, {wrong}?"}],
    }


def pair_files(folder: Path) -> dict[str, Any]:
    """The part of a configuration that names 32 pairs to learn, and 6 to validate with."""
    config: dict[str, Any] = {"method": "dpo"}
    for name, (first, last) in {"training": (0, 32), "validation": (32, 38)}.items():
        file = folder / f"{name}.jsonl"
        write_rows(file, [_pair(n) for n in range(first, last)])
        config |= {f"{name}_file": file, f"{name}_sha256": sha256(file)}
    return config
