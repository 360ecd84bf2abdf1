"""What the worker needs of a place where training runs. `process.py` is this machine; a cluster's
engine would be another."""

from collections.abc import AsyncIterator
from typing import Protocol

from app.training.config import TrainingConfig
from app.training.report import Report


class Execution(Protocol):
    """One training under way."""

    def reports(self) -> AsyncIterator[Report]:
        """Every report, in order, until it is over."""

    def ask_to_leave(self) -> None:
        """Save a checkpoint and leave. Nothing happens when it is over."""

    def kill(self) -> None:
        """End it and all that belongs to it at once. Nothing happens when it is over."""

    async def wait(self) -> int:
        """Its exit status, once it is over and all it held is free again."""


class Executor(Protocol):
    processes_per_job: int
    """How many processes can share one job."""

    async def submit(self, config: TrainingConfig) -> Execution:
        """Start training. The caller waits for it to end, whatever happens."""
