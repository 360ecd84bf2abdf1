"""Kill -9 of anything, at any moment: the job goes on, and its stream has no gap and no repeat."""

import asyncio
import random
from typing import Any

import psutil
import pytest

from tests.flows.stack import TINY, Stack, step_reached, until
from tests.support import Api, chat_lines

pytestmark = [pytest.mark.train, pytest.mark.timeout(400)]

HYPERPARAMETERS = {
    "nEpochs": 10,
    "batchSize": 4,
    "learningRate": 0.003,
    "checkpointInterval": 10,
    "evalInterval": 25,
}


async def submit(owner: Api, **more: Any) -> str:
    """A job of 60 steps that takes some seconds, with the same seed every time."""
    return await owner.job_id(
        baseModel=TINY,
        trainingData=await owner.dataset_version(chat_lines(24)),
        validationData=await owner.dataset_version(chat_lines(4, "item")),
        seed=5,
        method={"supervised": {"hyperparameters": HYPERPARAMETERS | more}},
    )


@pytest.fixture(scope="module")
async def undisturbed(stack: Stack) -> list[Any]:
    """The values of every step of a run that nobody disturbs."""
    async with Api(stack.url, stack.key) as owner:
        found = await until(owner, await submit(owner), "SUCCEEDED")
    return values(found)


def values(found: dict[str, Any]) -> list[Any]:
    return [
        (p["step"], p["trainingLoss"], p["validationLoss"], p["gradientNorm"], p["learningRate"])
        for p in found["metrics"]
    ]


async def the_log_is_whole(owner: Api, job: str) -> list[dict[str, Any]]:
    """Every event once, in order; returns them."""
    events: list[dict[str, Any]] = []
    after = "0"
    while True:
        answer = await owner.execute(
            "query ($j: ID!, $a: String) { job(id: $j) { events(first: 200, after: $a) {"
            " nodes { cursor type attempt step data } pageInfo { hasNextPage endCursor } } } }",
            j=job,
            a=after,
        )
        page = answer["job"]["events"]
        events += page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    assert [event["cursor"] for event in events] == [f"s{n + 1}" for n in range(len(events))]
    attempts = [event["attempt"] for event in events if event["type"] == "METRICS"]
    assert attempts == sorted(attempts)
    return events


async def followed(owner: Api, job: str, seen: list[str]) -> None:
    """Collect cursors of the live stream, coming back with the last one whenever it breaks."""
    query = "subscription ($j: ID!, $a: String) { jobEvents(jobId: $j, after: $a) { cursor } }"
    while True:
        try:
            async with owner.subscribe(query, j=job, a=seen[-1] if seen else "0") as events:
                async for event in events:
                    seen.append(event["jobEvents"]["cursor"])
                return
        except OSError:
            await asyncio.sleep(0.1)
        except Exception as broken:
            if "ConnectionClosed" not in type(broken).__name__:
                raise
            await asyncio.sleep(0.1)


def training_process(stack: Stack) -> psutil.Process | None:
    for worker in stack.workers:
        for child in psutil.Process(worker.pid).children(recursive=True):
            if "app.training" in child.cmdline():
                return child
    return None


async def attempt_begun(owner: Api, job: str, number: int) -> None:
    """Wait until this attempt trains: what is shown before may be the last one's progress."""
    query = "query ($j: ID!) { job(id: $j) { attempts { number fromStep } } }"
    async with asyncio.timeout(60):
        while True:
            attempts = (await owner.execute(query, j=job))["job"]["attempts"]
            if any(a["number"] == number and a["fromStep"] for a in attempts):
                return
            await asyncio.sleep(0.05)


async def test_a_job_that_is_killed_twice_and_paused_loses_nothing(
    owner: Api, stack: Stack, undisturbed: list[Any]
) -> None:
    job = await submit(owner)
    seen: list[str] = []
    viewer = asyncio.create_task(followed(owner, job, seen))
    steps = [random.randint(first, first + 8) for first in (11, 24, 38)]
    print(f"disturb it after steps {steps}")  # noqa: T201 - shown when the test fails

    await step_reached(owner, job, steps[0])
    process = training_process(stack)
    assert process is not None
    process.kill()

    await attempt_begun(owner, job, 2)
    await step_reached(owner, job, steps[1])
    stack.kill_worker()
    stack.start_worker()

    await attempt_begun(owner, job, 3)
    await step_reached(owner, job, steps[2])
    paused = await owner.act("pauseJob", job)
    assert paused["job"]["requestedAction"] == "PAUSE"
    found: Any = await until(owner, job, "PAUSED")
    assert found["requestedAction"] is None
    assert found["checkpoints"]["nodes"][0]["step"] == found["progress"]["step"]
    assert (await owner.act("resumeJob", job))["job"]["status"] == "QUEUED"

    found = await until(owner, job, "SUCCEEDED", "FAILED")
    assert found["status"] == "SUCCEEDED", found["error"]
    attempts = found["attempts"]
    assert [a["outcome"] for a in attempts] == ["lost", "lost", "paused", "succeeded"]
    assert all(attempt["fromStep"] > 0 for attempt in attempts[1:])
    assert values(found) == undisturbed
    await asyncio.wait_for(viewer, 20)
    events = await the_log_is_whole(owner, job)
    assert seen == [event["cursor"] for event in events]


@pytest.mark.soak
async def test_a_worker_that_leaves_hands_its_job_over(
    owner: Api, stack: Stack, undisturbed: list[Any]
) -> None:
    job = await submit(owner)
    await step_reached(owner, job, 15)
    stack.stop_worker()
    stack.start_worker()
    found = await until(owner, job, "SUCCEEDED", "FAILED")
    attempts: Any = found["attempts"]
    assert [a["outcome"] for a in attempts] == ["released", "succeeded"]
    assert values(found) == undisturbed


@pytest.mark.soak
async def test_a_cancelled_job_stops_and_can_be_restarted(
    owner: Api, stack: Stack, undisturbed: list[Any]
) -> None:
    job = await submit(owner)
    await step_reached(owner, job, 15)
    assert (await owner.act("cancelJob", job))["job"]["requestedAction"] == "CANCEL"
    await until(owner, job, "CANCELLED")
    assert training_process(stack) is None
    assert (await owner.act("restartJob", job, fromScratch=True))["job"]["status"] == "QUEUED"
    found = await until(owner, job, "SUCCEEDED")
    assert values(found) == undisturbed


async def test_a_job_whose_bytes_were_changed_fails_and_says_so(owner: Api, stack: Stack) -> None:
    version = await owner.dataset_version(chat_lines(13, "planted"))
    answer = await owner.execute(
        "query ($v: ID!) { datasetVersion(id: $v) { sha256 } viewer { organization { id } } }",
        v=version,
    )
    folder = stack.folder / "files" / answer["viewer"]["organization"]["id"]
    (folder / answer["datasetVersion"]["sha256"]).write_text(chat_lines(13, "other") + "\n")
    job = await owner.job_id(baseModel=TINY, trainingData=version)
    found: Any = await until(owner, job, "FAILED", "SUCCEEDED")
    assert found["error"]["code"] == "data_changed"


@pytest.mark.soak
@pytest.mark.timeout(1500)
async def test_random_kills_again_and_again(
    owner: Api, stack: Stack, undisturbed: list[Any]
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    dice = random.Random(seed)
    lost = 0
    for round in range(12):
        job = await submit(owner)
        seen: list[str] = []
        viewer = asyncio.create_task(followed(owner, job, seen))
        for _ in range(dice.randint(1, 2)):
            await asyncio.sleep(dice.uniform(0.2, 14))
            victim = dice.choice(["worker", "training", "api", "all"])
            if victim in ("api", "all"):
                stack.kill_api()
            if victim in ("worker", "all"):
                stack.kill_worker()
            if victim == "training" and (process := training_process(stack)):
                process.kill()
            if victim in ("api", "all"):
                stack.start_api()
            if victim in ("worker", "all"):
                stack.start_worker()
        found: Any = await until(owner, job, "SUCCEEDED", "FAILED", seconds=180)
        assert found["status"] == "SUCCEEDED", (round, found["error"])
        assert values(found) == undisturbed
        lost += sum(a["outcome"] == "lost" for a in found["attempts"])
        await asyncio.wait_for(viewer, 30)
        events = await the_log_is_whole(owner, job)
        assert seen == [event["cursor"] for event in events]
    print(f"12 jobs, {lost} attempts lost, every stream whole, every loss the same")  # noqa: T201
