"""Metrics on their way to Weights & Biases, through its own library in its own process."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.core import clock
from app.core.settings import Settings
from app.jobs.tables import Job
from app.training.hyperparameters import SupervisedHyperparameters
from app.training.report import Metrics, Progress, Started
from app.training.resolve import resolve
from app.worker.tracking import Trackers
from tests.worker.wandb_files import exit_code, history, run_of, tracking_processes

KEY = "k" * 40


class Talk:
    """A job's trackers, and what was said of them in its log."""

    def __init__(self, settings: Settings, patience: float) -> None:
        self.said: list[tuple[str, str]] = []
        self.spoke = asyncio.Event()
        self.trackers = Trackers(settings, job(), self._say, patience)

    async def _say(self, level: str, message: str) -> None:
        self.said.append((level, message))
        self.spoke.set()

    def start(self) -> None:
        self.trackers.heard(started())

    def points(self, *steps: int) -> None:
        for step in steps:
            self.trackers.heard(point(step))

    async def warned(self) -> str:
        async with asyncio.timeout(60):
            await self.spoke.wait()
        return self.said[0][1]


def started() -> Started:
    resolved = resolve(SupervisedHyperparameters(), 40, 20, 512, "cpu")
    return Started(
        resolved=resolved,
        total_steps=10,
        total_epochs=1,
        from_step=0,
        training_cases=40,
        validation_cases=0,
        training_tokens=800,
        truncated_cases=0,
        device="cpu",
        dtype="float32",
        threads=1,
        versions={},
        template_sha256="0" * 64,
        base_sha256="0" * 64,
    )


def point(step: int) -> Metrics:
    values = {"training_loss": 4 / (1 + step), "gradient_norm": None if step == 3 else 0.5}
    progress = Progress(
        step=step,
        total_steps=10,
        epoch=0.1,
        total_epochs=1,
        trained_tokens=10,
        tokens_per_second=1.0,
        remaining_seconds=1.0,
    )
    return Metrics(step=step, epoch=0.1, values=values, progress=progress)


def job(**wandb: Any) -> Job:
    return Job(
        org_id="org_1",
        id="ftjob_7",
        project_id="proj_1",
        owner_id="member_1",
        name="a job",
        status="running",
        provider="local",
        base_model="tiny",
        method="supervised",
        training_version_id="dsv_1",
        integrations=[{"wandb": {"project": "tickets", "tags": ["blue"], **wandb}}],
        created_at=clock.now(),
        updated_at=clock.now(),
    )


@pytest.fixture
async def talking(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[Talk] = []

    def talk(patience: float = 30, **settings: Any) -> Talk:
        values = {"data_dir": tmp_path, "wandb_api_key": KEY, **settings}
        made.append(Talk(Settings(**values), patience))
        return made[-1]

    yield talk
    for one in made:
        one.trackers.kill()


def runs(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("runs/ftjob_7/wandb/offline-run-*/*.wandb"))


async def test_offline_runs_hold_the_same_metrics_and_attempts_share_one(
    talking: Any, tmp_path: Path
) -> None:
    first = talking(wandb_mode="offline")
    first.start()
    first.points(1, 2, 3, 4)
    await first.trackers.close(failed=True)
    (file,) = runs(tmp_path)
    assert history(file) == [
        {"step": 1, "training_loss": 2.0, "gradient_norm": 0.5},
        {"step": 2, "training_loss": 4 / 3, "gradient_norm": 0.5},
        {"step": 3, "training_loss": 1.0},
        {"step": 4, "training_loss": 0.8, "gradient_norm": 0.5},
    ]
    run = run_of(file)
    assert (run.run_id, run.project, run.display_name) == ("ftjob_7", "tickets", "ftjob_7")
    assert list(run.tags) == ["luthier", "ftjob_7", "tiny", "blue"]
    assert run.host == "luthier", "nothing of this machine is told"
    assert exit_code(file) == 1

    second = talking(wandb_mode="offline")
    second.start()
    second.points(3, 4, 5)  # a crash rewinds the steps
    await second.trackers.close(failed=False)
    (other,) = (found for found in runs(tmp_path) if found != file)
    assert run_of(other).run_id == run.run_id
    assert [one["step"] for one in history(other)] == [3, 4, 5]
    assert exit_code(other) == 0
    assert first.said == second.said == []
    told = [found for found in tmp_path.rglob("*") if found.is_file()]
    assert not [found for found in told if KEY.encode() in found.read_bytes()]


async def test_out_of_reach_it_is_one_warning_without_the_key(
    talking: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    talk = talking(patience=3, wandb_mode="online")
    talk.start()
    talk.points(1, 2)
    assert "connection refused" in await talk.warned() or "Failed" in talk.said[0][1]
    talk.points(*range(3, 20_000))  # nobody listens, and nothing piles up
    await talk.trackers.close(failed=False)
    assert [level for level, _ in talk.said] == ["warn"]
    assert KEY not in str(talk.said)
    assert KEY not in (tmp_path / "runs/ftjob_7/wandb.log").read_text()


async def test_one_that_crashes_or_hangs_is_left_behind(talking: Any) -> None:
    crashed, hung = (talking(patience=3, wandb_mode="offline") for _ in range(2))
    for talk, how in ((crashed, signal.SIGKILL), (hung, signal.SIGSTOP)):
        before = tracking_processes(os.getpid())
        talk.start()
        os.kill(await asyncio.to_thread(newcomer, before), how)
    begun = time.monotonic()
    for step in range(1, 12_000):
        hung.points(step)
    assert time.monotonic() - begun < 5, "it waited for the other side"
    await asyncio.gather(*(talk.trackers.close(failed=False) for talk in (crashed, hung)))
    assert [level for level, _ in crashed.said + hung.said] == ["warn", "warn"]
    assert "ended unexpectedly" in crashed.said[0][1]
    assert "in time" in hung.said[0][1]


def newcomer(before: set[int]) -> int:
    """The tracking process that has been started since."""
    deadline = time.monotonic() + 30
    while not (found := tracking_processes(os.getpid()) - before):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found.pop()
