"""Training processes as the worker starts them: several for one job, which end together."""

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from app.core.settings import Settings
from app.training import report
from app.training.config import CONFIG, MODEL_ENDPOINT
from app.worker.process import LocalExecutor, TrainingProcess
from tests.training.conftest import chats  # noqa: F401 - a fixture
from tests.training.training_helpers import base_config

pytestmark = [pytest.mark.train, pytest.mark.timeout(180)]


def settings(**more: object) -> Settings:
    return Settings(_env_file=None, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "gpus", "processes", "given"),
    [
        ({}, [], 1, [[]]),
        ({"processes_per_job": 3}, [], 3, [[]]),
        ({}, ["0", "1"], 2, [["0", "1"]]),
        ({"worker_slots": 2}, ["4", "5", "6", "7"], 2, [["4", "5"], ["6", "7"]]),
        ({"worker_slots": 3}, ["0", "1"], 1, [["0"], ["1"], ["0"]]),
        ({"processes_per_job": 8}, ["0", "1"], 2, [["0", "1"]]),
    ],
)
def test_each_slot_has_gpus_of_its_own_where_there_are_enough(
    more: dict[str, int], gpus: list[str], processes: int, given: list[list[str]]
) -> None:
    executor = LocalExecutor(settings(**more), gpus)
    assert executor.processes_per_job == processes
    assert [executor._gpus_of(slot, processes) for slot in range(len(given))] == given


async def begun(process: TrainingProcess, step: int) -> list[psutil.Process]:
    """Wait until this step is done; the processes that train."""
    async for said in process.reports():
        assert not isinstance(said, report.Failed), said
        if isinstance(said, report.Metrics) and said.step >= step:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "app.training" in child.cmdline()]


def all_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not alive


@pytest.mark.soak
async def test_several_processes_end_together(
    tiny_model: Path,
    chats: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    executor = LocalExecutor(settings(processes_per_job=2), [])
    config = CONFIG.validate_python(
        base_config(tiny_model, chats, tmp_path)
        | {
            "base_model": str(tiny_model),
            "processes": 2,
            "model_endpoint": {"base_url": "http://127.0.0.1:9/v1", "token": "kept-secret"},
            "hyperparameters": {"n_epochs": 50, "batch_size": 4},
        }
    )
    process = await executor.submit(config)
    ranks = await begun(process, 2)
    assert len(ranks) == 2
    assert ["kept-secret" in rank.environ()[MODEL_ENDPOINT] for rank in ranks] == [True, True]
    assert "kept-secret" not in (config.run_dir / "config.json").read_text()
    last = max(ranks, key=lambda rank: int(rank.environ()["RANK"]))
    os.kill(last.pid, signal.SIGKILL)
    endings = [said async for said in process.reports() if said.type in ("failed", "finished")]
    assert endings == []  # nobody's fault: the worker will start the job again
    assert await process.wait() != 0
    assert await asyncio.to_thread(all_gone, ranks)

    process = await executor.submit(config)  # the slot is free again
    ranks = await begun(process, 1)
    begin = time.monotonic()
    process.kill()
    await process.wait()
    assert await asyncio.to_thread(all_gone, ranks)
    assert time.monotonic() - begin < 10


@pytest.mark.soak
async def test_several_processes_leave_when_they_are_asked_to(
    tiny_model: Path,
    chats: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """In their first steps, when torch may still be at work for the last one."""
    executor = LocalExecutor(settings(processes_per_job=2), [])
    for number in range(6):
        config = CONFIG.validate_python(
            base_config(tiny_model, chats, tmp_path / str(number))
            | {"base_model": str(tiny_model), "processes": 2}
            | {"hyperparameters": {"n_epochs": 50, "batch_size": 4}}
        )
        process = await executor.submit(config)
        ranks = await begun(process, 1)
        process.ask_to_leave()
        said = [one async for one in process.reports()]
        assert isinstance(said[-1], report.Stopped)
        assert Path(said[-1].checkpoint_path or "").is_dir()
        async with asyncio.timeout(20):
            await process.wait()
        assert await asyncio.to_thread(all_gone, ranks)


@pytest.mark.soak
async def test_what_fails_in_several_processes_says_so_and_ends(
    tiny_model: Path,
    chats: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    executor = LocalExecutor(settings(processes_per_job=2), [])
    config = CONFIG.validate_python(
        base_config(tiny_model, chats, tmp_path)
        | {"base_model": str(tiny_model), "processes": 2}
        | {"hyperparameters": {"n_epochs": 50, "batch_size": 3}}
    )
    process = await executor.submit(config)
    said = [one async for one in process.reports()]
    assert isinstance(said[-1], report.Failed)
    assert said[-1].param == "batch_size"
    async with asyncio.timeout(20):
        assert await process.wait() != 0
