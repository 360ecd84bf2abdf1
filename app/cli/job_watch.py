"""A job as it runs: followed through the log, drawn as progress, losses and messages."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.cli import documents, show
from app.client import ApiError, Client, LinkState

OVER = ("SUCCEEDED", "FAILED", "CANCELLED")
# What `jobs watch` exits with.
EXIT_STATUS = {"SUCCEEDED": 0, "FAILED": 1, "CANCELLED": 3, "PAUSED": 4}

_SPARK_WIDTH = 32
_PLAIN_LINES = 10  # training losses printed in a whole run where nothing can be redrawn
_SPEED_OVER = 20  # steps

OnEvent = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass
class Watched:
    """What is known of a job from its events so far."""

    name: str = ""
    status: str = "PENDING"
    total: int | None = None
    step: int = 0
    training: dict[int, float] = field(default_factory=dict)
    validation: dict[int, float] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    tokens_per_second: float | None = None
    trouble: str = ""
    _times: dict[int, float] = field(default_factory=dict)

    def knows(self, job: dict[str, Any]) -> None:
        """Take over what only the job's row says."""
        self.name, self.status = job["name"], job["status"]
        progress, resolved = job["progress"] or {}, job["resolvedHyperparameters"] or {}
        self.total = progress.get("totalSteps") or resolved.get("total_steps") or self.total

    def take(self, event: dict[str, Any]) -> None:
        data = event["data"]
        match event["type"]:
            case "STATUS":
                self.status = str(data.get("after", self.status)).upper()
            case "ATTEMPT_STARTED":
                self._rewind(data.get("fromStep") or 0)
            case "METRICS":
                self._measure(event["step"], data.get("values") or {}, event["at"])

    def _rewind(self, step: int) -> None:
        """A new attempt begins here: what the last one did beyond is done again."""
        self.step = step
        self._times.clear()
        for series in (self.training, self.validation, self.scores):
            for gone in [at for at in series if at > step]:
                del series[gone]

    def _measure(self, step: int, values: dict[str, Any], at: str) -> None:
        self.step = step
        self._times[step] = show.moment(at).timestamp()
        if (loss := values.get("training_loss")) is not None:
            self.training[step] = loss
        if (loss := values.get("validation_loss")) is not None:
            self.validation[step] = loss
        if (score := values.get("score")) is not None:
            self.scores[step] = score
        self.tokens_per_second = values.get("tokens_per_second") or self.tokens_per_second

    @property
    def remaining(self) -> timedelta | None:
        """The time left at the speed of the last steps."""
        recent = list(self._times.items())[-_SPEED_OVER:]
        if self.total is None or self.status != "RUNNING" or len(recent) < 2:
            return None
        (first, began), (last, ended) = recent[0], recent[-1]
        if last <= first:
            return None
        return timedelta(seconds=(ended - began) / (last - first) * max(0, self.total - last))


async def follow(
    client: Client,
    job_id: str,
    on_event: OnEvent,
    *,
    after: str = "0",
    stay: bool = False,
    on_state: Callable[[LinkState], None] | None = None,
) -> dict[str, Any]:
    """Every event, until the job is over, or paused unless `stay`; then the job as it is."""
    while True:
        async with aclosing(client.watch_job(job_id, after, on_state=on_state)) as events:
            async for event in events:
                after = event["cursor"]
                await on_event(event)
                paused = event["type"] == "STATUS" and event["data"].get("after") == "paused"
                if paused and not stay:
                    job = await job_now(client, job_id)
                    if job["status"] == "PAUSED" and job["requestedAction"] is None:
                        return job
        job = await job_now(client, job_id)
        if job["status"] in OVER:
            return job
        await asyncio.sleep(1)  # restarted meanwhile


async def job_now(client: Client, job_id: str) -> dict[str, Any]:
    job = (await client.execute(documents.JOB_NOW, {"id": job_id}))["job"]
    if job is None:
        raise ApiError(f"There is no job {job_id}.", "JOB_NOT_FOUND")
    return dict(job)


class View:
    """Draws a job. In a terminal the last lines are redrawn; elsewhere lines are only added."""

    def __init__(self, client: Client, job_id: str, console: Console | None = None) -> None:
        self._client, self._job_id = client, job_id
        self._console = console or show.console()
        self.watched = Watched()

    async def run(self, *, stay: bool = False) -> dict[str, Any]:
        """Until the job is over, or paused. Returns the job."""
        self.watched.knows(await job_now(self._client, self._job_id))
        watch = follow(self._client, self._job_id, self._take, stay=stay, on_state=self._link)
        if not self._console.is_terminal:
            return await watch
        with Live(
            console=self._console, get_renderable=self._draw, refresh_per_second=8, transient=True
        ):
            job = await watch
        self._console.print(self._draw())
        return job

    async def _take(self, event: dict[str, Any]) -> None:
        seen = self.watched
        seen.take(event)
        if event["type"] != "METRICS":
            self._console.print(show.event_line(event), soft_wrap=True)
            return
        if seen.total is None:
            job = await job_now(self._client, self._job_id)
            seen.total = (job["resolvedHyperparameters"] or {}).get("total_steps")
        if not self._console.is_terminal and self._worth_a_line(event):
            self._console.print(show.event_line(event), soft_wrap=True)

    def _worth_a_line(self, event: dict[str, Any]) -> bool:
        seen, step = self.watched, event["step"]
        if event["data"].get("values", {}).get("score") is not None:
            return False  # its score has a line of its own, and the rest was shown
        every = max(1, (seen.total or 100) // _PLAIN_LINES)
        return step in seen.validation or step in (1, seen.total) or step % every == 0

    def _link(self, state: LinkState) -> None:
        said = "" if state.up else f"connection lost ({state.reason}); coming back"
        if said and not self.watched.trouble and not self._console.is_terminal:
            show.complain(said)
        self.watched.trouble = said

    def _draw(self) -> RenderableType:
        seen = self.watched
        head = Text.assemble((show.clean(seen.name, True), "bold"), "  ", show.status(seen.status))
        if seen.trouble:
            head.append(f"  {show.clean(seen.trouble, True)}", "yellow")
        head.no_wrap, head.overflow = True, "ellipsis"
        return Group(head, self._bar(), *self._losses())

    def _bar(self) -> RenderableType:
        seen = self.watched
        if not seen.total:
            return Text("" if seen.status in OVER else "waiting for the first step", "dim")
        grid = Table.grid(padding=(0, 2, 0, 0))
        facts = [f"{seen.step}/{seen.total}", f"{100 * seen.step / seen.total:.0f} %"]
        if seen.remaining is not None:
            facts.append(f"ETA {show.duration(seen.remaining.total_seconds())}")
        if seen.tokens_per_second:
            facts.append(f"{seen.tokens_per_second:,.0f} tok/s")
        bar = ProgressBar(
            seen.total, seen.step, _SPARK_WIDTH, complete_style="cyan", finished_style="green"
        )
        grid.add_row(bar, *facts)
        return grid

    def _losses(self) -> list[RenderableType]:
        grid = Table.grid(padding=(0, 2, 0, 0))
        for name, series in (
            ("training loss", self.watched.training),
            ("validation loss", self.watched.validation),
        ):
            if values := [series[step] for step in sorted(series)]:
                # By orders of magnitude: a loss falls fast first, and what comes later counts too.
                scaled = [math.log(max(value, 1e-9)) for value in values]
                line = show.sparkline(scaled, _SPARK_WIDTH)
                grid.add_row(
                    Text(line.ljust(_SPARK_WIDTH), "cyan"),
                    name,
                    Text(show.loss(values[-1]), "bold"),
                    Text(f"from {show.loss(values[0])}", "dim"),
                )
        if self.watched.scores:
            scores = [self.watched.scores[step] for step in sorted(self.watched.scores)]
            line = show.sparkline(scores, _SPARK_WIDTH)
            grid.add_row(
                Text(line.ljust(_SPARK_WIDTH), "green"),
                "score",
                Text(show.number(scores[-1]), "bold"),
                Text(f"best {show.number(max(scores))}", "dim"),
            )
        return [grid] if grid.row_count else []
