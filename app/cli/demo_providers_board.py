"""What the demonstration of providers shows while the jobs run: a live table, or plain lines."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli import show

_SPARK_WIDTH = 24
_OVER = ("SUCCEEDED", "FAILED", "CANCELLED")
_PLAIN_STEPS = 4  # steps printed of each job where nothing can be redrawn


@dataclass
class Row:
    """One job, as the subscriptions tell of it. `repeated` are steps that came twice."""

    provider: str
    job_id: str = ""
    status: str = "-"
    word: str = "-"
    id_there: str | None = None
    total: int = 0
    cost: float | None = None
    note: str = ""
    losses: dict[int, float] = field(default_factory=dict)
    repeated: int = 0

    @property
    def step(self) -> int:
        return max(self.losses, default=0)

    @property
    def over(self) -> bool:
        return self.status in _OVER

    def change(self, job: Mapping[str, Any]) -> bool:
        """Take in what the ledger says; whether it is worth a line."""
        before = self.status, self.word
        self.status, self.word = job["status"], job["providerStatus"] or "-"
        self.id_there, self.cost = job["providerJobId"], job["cost"]
        self.note = job["queueReason"] or ("silent for long" if job["isStale"] else "")
        return before != (self.status, self.word)

    def measure(self, points: list[dict[str, Any]]) -> None:
        for point in points:
            self.repeated += point["step"] in self.losses
            if point["trainingLoss"] is not None:
                self.losses[point["step"]] = point["trainingLoss"]


class Board:
    def __init__(self, console: Console, rows: Mapping[str, Row]) -> None:
        self.console, self.rows = console, rows
        self._began = time.monotonic()
        self._printed: dict[str, int] = {}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, words: str, style: str = "") -> None:
        line = Text.assemble((f"{self.seconds:5.1f} s  ", "dim"), (show.clean(words, True), style))
        self.console.print(line, soft_wrap=True)

    def head(self, words: str) -> None:
        self.console.print()
        self.console.print(Text(words, "bold"))

    def changed(self, row: Row) -> None:
        """A line, where there is no table that shows it."""
        if not self.console.is_terminal:
            theirs = "" if row.word == "-" else f", their word {row.word}"
            self.say(f"{row.provider:<10} {row.status.lower()}{theirs}")

    def measured(self, row: Row) -> None:
        if self.console.is_terminal or not row.total:
            return
        part = row.step * _PLAIN_STEPS // row.total
        if part > self._printed.get(row.provider, 0):
            self._printed[row.provider] = part
            loss = show.loss(row.losses[row.step])
            self.say(f"{row.provider:<10} step {row.step} of {row.total}, loss {loss}")

    def table(self) -> Table:
        made = show.table(
            "PROVIDER", "~THEIR WORD", "OURS", ">STEP", "LOSS", ">", ">COST", "~WAITS FOR"
        )
        for row in self.rows.values():
            known = [row.losses[step] for step in sorted(row.losses)]
            # By orders of magnitude: a loss falls fast first, and what comes later counts too.
            line = show.sparkline([math.log(max(one, 1e-9)) for one in known], _SPARK_WIDTH)
            show.add_row(
                made, row.provider, row.word, show.status(row.status),
                f"{row.step}/{row.total or '-'}", Text(line.ljust(_SPARK_WIDTH), "cyan"),
                show.loss(known[-1] if known else None), money(row.cost), row.note,
            )  # fmt: skip
        return made


def money(cost: float | None) -> str:
    return "-" if cost is None else f"{cost:.4f} USD"


def tail(text: str, most: int) -> str:
    """The end of a long name, where names of one kind differ."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
