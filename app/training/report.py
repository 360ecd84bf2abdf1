"""The wire protocol of a training process: one JSON object per line, in one direction.

The process writes with `Reporter`, its supervisor reads with `parse`. Importable without torch.
"""

import math
import os
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.training.errors import FailureCode
from app.training.resolve import ResolvedHyperparameters

REPORT_FD = "LUTHIER_REPORT_FD"
EXIT_FINISHED, EXIT_FAILED, EXIT_STOPPED = 0, 1, 3

Values = dict[str, float | None]


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Started(_Report):
    """Sent once, before the first step; `training_tokens` is exact and per epoch."""

    type: Literal["started"] = "started"
    resolved: ResolvedHyperparameters
    total_steps: int
    total_epochs: int
    from_step: int
    training_cases: int
    validation_cases: int
    training_tokens: int
    truncated_cases: int
    device: str
    dtype: str
    threads: int
    processes: int = 1
    versions: dict[str, str]
    base_sha256: str | None
    template_sha256: str


class Progress(_Report):
    step: int
    total_steps: int
    epoch: float
    total_epochs: int
    trained_tokens: int
    tokens_per_second: float | None
    remaining_seconds: float | None


class Metrics(_Report):
    """All values of one step, once; step 0 holds the validation before training."""

    type: Literal["metrics"] = "metrics"
    step: int
    epoch: float
    values: Values
    non_finite: list[str] = []
    progress: Progress


class Checkpoint(_Report):
    """Sent when the checkpoint is on disk, with its manifest, and can be resumed from."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    epoch: float
    path: str
    manifest_sha256: str
    size_bytes: int
    metrics: Values


class GraderScore(_Report):
    """One grader's mean over the answers; `errors` counts those it could not judge."""

    name: str
    score: float | None
    errors: int


class ScoredSample(_Report):
    """One answer, with what each grader gave for it; texts are cut."""

    prompt: str
    answer: str
    score: float
    graders: dict[str, float | None]
    error: str | None = None


class Score(_Report):
    """A checkpoint was judged on held-out cases; without a score, `reason` says why.

    `samples` are some of the best and of the worst answers, the best first.
    """

    type: Literal["score"] = "score"
    step: int
    score: float | None
    graders: list[GraderScore] = []
    cases: int
    errors: int = 0
    seconds: float
    samples: list[ScoredSample] = []
    reason: str | None = None


class Message(_Report):
    type: Literal["message"] = "message"
    level: Literal["info", "warn", "error"]
    message: str


class Finished(_Report):
    type: Literal["finished"] = "finished"
    model_path: str
    kind: Literal["lora", "full"]
    manifest_sha256: str
    size_bytes: int
    trained_tokens: int
    step: int
    metrics: Values


class Example(_Report):
    """One line of a file. `tokens` are those that the loss counts, and `loss` is their mean: null
    where it is no number, or where nothing of the line is learnt."""

    split: Literal["training", "validation"]
    line: int
    loss: float | None
    tokens: int
    truncated: bool


class Examples(_Report):
    """How well the finished model knows its data. Comes after `finished`, or not at all; `lines`
    counts all there are, measured or not."""

    type: Literal["examples"] = "examples"
    examples: list[Example]
    lines: int


class Stopped(_Report):
    """Obeyed SIGTERM. `checkpoint_path` is null when no step was done: start as before."""

    type: Literal["stopped"] = "stopped"
    step: int
    checkpoint_path: str | None


class Failed(_Report):
    type: Literal["failed"] = "failed"
    code: FailureCode
    message: str
    param: str | None = None


Report = Annotated[
    Started | Metrics | Checkpoint | Score | Message | Finished | Examples | Stopped | Failed,
    Field(discriminator="type"),
]
_ADAPTER: TypeAdapter[Report] = TypeAdapter(Report)


def parse(line: str | bytes) -> Report:
    """Read one line; raises `pydantic.ValidationError` for anything that is no report."""
    return _ADAPTER.validate_json(line)


def finite(values: Mapping[str, float]) -> tuple[Values, list[str]]:
    """Replace what JSON cannot carry by null, and name it."""
    clean: Values = {}
    non_finite = []
    for name, value in values.items():
        clean[name] = value if math.isfinite(value) else None
        if clean[name] is None:
            non_finite.append(name)
    return clean, non_finite


class Reporter:
    """Writes reports to a descriptor of its own, past every buffer.

    Of several processes only the first one speaks; the `silent` others tell why they fail.
    """

    def __init__(self, fd: int, silent: bool = False) -> None:
        self._fd, self._silent = fd, silent

    @classmethod
    def claim(cls, silent: bool = False) -> "Reporter":
        """Take the report descriptor named in the environment away from everybody else.

        Libraries print to standard output whenever they like, and by default that is where the
        reports go; so standard output becomes standard error, and children inherit neither.
        """
        fd = os.dup(int(os.environ.get(REPORT_FD, "1")))
        os.dup2(2, 1)
        return cls(fd, silent)

    def send(self, report: Report) -> None:
        """Write one line; a supervisor that no longer reads ends the process."""
        if self._silent and not isinstance(report, Failed):
            return
        line = report.model_dump_json().encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except BrokenPipeError:
            os._exit(EXIT_FAILED)

    def message(self, level: Literal["info", "warn", "error"], message: str) -> None:
        self.send(Message(level=level, message=message))
