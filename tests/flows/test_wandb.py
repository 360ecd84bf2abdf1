"""A job shown at Weights & Biases as well, and one that goes on without."""

import asyncio
import os
import signal
import time
from typing import Any

import pytest

from tests.flows.stack import TINY, Stack, until
from tests.support import Api, chat_lines
from tests.worker.wandb_files import exit_code, history, run_of, tracking_processes

pytestmark = [pytest.mark.train, pytest.mark.soak, pytest.mark.timeout(240)]

EVENTS = """query ($j: ID!) { job(id: $j) { metrics(maxPoints: 5000) { step trainingLoss }
  events(first: 200, level: WARN) { nodes { message } } } }"""


async def submit(owner: Api, **hyperparameters: Any) -> str:
    return await owner.job_id(
        baseModel=TINY,
        trainingData=await owner.dataset_version(chat_lines(16)),
        integrations=[{"wandb": {"project": "tickets", "name": "shown"}}],
        method={"supervised": {"hyperparameters": {"batchSize": 4, **hyperparameters}}},
    )


async def test_a_job_is_shown_there_and_goes_on_without_it(owner: Api, stack: Stack) -> None:
    job = await submit(owner, nEpochs=2)
    await until(owner, job, "SUCCEEDED")
    (file,) = (stack.folder / "runs" / job / "wandb").glob("offline-run-*/*.wandb")
    known = (await owner.execute(EVENTS, j=job))["job"]["metrics"]
    assert [(one["step"], one["training_loss"]) for one in history(file)] == [
        (one["step"], pytest.approx(one["trainingLoss"])) for one in known
    ]
    assert run_of(file).run_id == job
    assert exit_code(file) == 0

    broken = await submit(owner, nEpochs=10)
    await asyncio.to_thread(kill_tracking, stack)
    found = await until(owner, broken, "SUCCEEDED", "FAILED")
    assert found["status"] == "SUCCEEDED", found["error"]
    warnings = (await owner.execute(EVENTS, j=broken))["job"]["events"]["nodes"]
    assert [one["message"] for one in warnings if "Weights & Biases" in one["message"]] == [
        "Weights & Biases does not show all of this run: its process ended unexpectedly."
    ]


def kill_tracking(stack: Stack) -> None:
    """The process that passes the running job's metrics on."""
    deadline = time.monotonic() + 60
    while not (found := tracking_processes(stack.workers[0].pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(found.pop(), signal.SIGKILL)
