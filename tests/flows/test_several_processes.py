"""Workers with labels, one of which trains each job in two processes: the same losses as in one."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.flows.stack import TINY, Stack, step_reached, until
from tests.support import Api, chat_lines

pytestmark = [pytest.mark.train, pytest.mark.timeout(240)]
LABEL = "pair"
HARDWARE = "{ hardware { kind labels slots busySlots memoryFreeBytes utilization workerId } }"
JOB = """query ($j: ID!) { job(id: $j) { status queueReason manifest { processes }
  progress { step estimatedFinishAt } } }"""


async def submit(owner: Api, epochs: int = 8, **more: Any) -> str:
    return await owner.job_id(
        baseModel=TINY,
        trainingFile=await owner.upload(chat_lines(40)),
        validationFile=await owner.upload(chat_lines(4, "item")),
        seed=5,
        method={
            "supervised": {
                "hyperparameters": {
                    "nEpochs": epochs,
                    "batchSize": 4,
                    "learningRate": 0.003,
                    "adapter": "FULL",  # in float32 everywhere, whatever a busy machine measures
                    "evalInterval": 30,
                }
            }
        },
        **more,
    )


async def reason(owner: Api, job: str, wanted: str) -> None:
    """Wait until the job is queued, and waits for this."""
    found: dict[str, Any] = {}
    for _ in range(600):
        found = (await owner.execute(JOB, j=job))["job"]
        if found["queueReason"] == wanted:
            return
        await asyncio.sleep(0.1)
    raise TimeoutError(found)


async def pair(owner: Api) -> list[dict[str, Any]]:
    """The parts of the worker with the label."""
    parts: list[dict[str, Any]] = (await owner.execute(HARDWARE))["hardware"]
    return [part for part in parts if LABEL in part["labels"]]


@pytest.mark.soak
async def test_two_processes_train_as_one_and_labels_are_kept(owner: Api, stack: Stack) -> None:
    alone = await submit(owner)
    await step_reached(owner, alone, 0)  # the worker without the label has taken it
    worker = stack.start_worker(
        LUTHIER_WORKER_LABELS=json.dumps([LABEL]), LUTHIER_PROCESSES_PER_JOB="2"
    )
    try:
        for _ in range(300):
            if await pair(owner):
                break
            await asyncio.sleep(0.1)
        job = await submit(owner, hardware=LABEL)
        await step_reached(owner, job, 4)
        [part] = await pair(owner)
        assert (part["kind"], part["slots"], part["busySlots"]) == ("cpu", 1, 1)
        assert int(part["memoryFreeBytes"]) > 0
        await owner.act("pauseJob", job)
        found: Any = await until(owner, job, "PAUSED")
        paused_at = found["progress"]["step"]
        assert found["checkpoints"]["nodes"][0]["step"] == paused_at
        assert 4 <= paused_at < 80
        await owner.act("resumeJob", job)
        await step_reached(owner, job, paused_at + 5)
        now = (await owner.execute(JOB, j=job))["job"]
        if finish := now["progress"]["estimatedFinishAt"]:  # unless it is over already
            left = datetime.fromisoformat(finish) - datetime.now(UTC)
            assert timedelta(seconds=-5) < left < timedelta(seconds=60)
        found = await until(owner, job, "SUCCEEDED", "FAILED")
        assert found["status"] == "SUCCEEDED", found["error"]
        assert [a["outcome"] for a in found["attempts"]] == ["paused", "succeeded"]
        assert (await owner.execute(JOB, j=job))["job"]["manifest"] == {"processes": 2}
        single = await until(owner, alone, "SUCCEEDED", "FAILED")
        assert losses(found) == [pytest.approx(loss, rel=1e-3) for loss in losses(single)]
        assert found["trainedTokens"] == single["trainedTokens"]

        next_one = await submit(owner, epochs=50, hardware=LABEL)
        await step_reached(owner, next_one, 1)
        stack.stop_worker()
        gone = f"Waiting for a worker with the label {LABEL}; none is live."
        await reason(owner, next_one, gone)
        payload = await owner.submit(baseModel=TINY, hardware=LABEL)
        assert payload["userErrors"][0]["code"] == "HARDWARE_UNKNOWN"
        await owner.act("cancelJob", next_one)
    finally:
        if worker.poll() is None:
            stack.stop_worker()


def losses(found: Any) -> list[float]:
    return [p["trainingLoss"] for p in found["metrics"] if p["trainingLoss"] is not None]
