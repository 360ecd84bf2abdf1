"""One suite for every place where a model can be tuned, our own workers among them."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from app.simulators.runs import Plan
from app.simulators.simulator import Simulator
from tests.flows.simulated import Where, where
from tests.flows.stack import until
from tests.flows.test_flow import answers, deploy, undeploy
from tests.providers.places import PLACES
from tests.support import Api, chat_lines

pytestmark = [pytest.mark.train, pytest.mark.timeout(180)]

SLOW = Plan(validating=0.2, queued=0.2, steps=12, step_seconds=0.6)
EVENTS = """subscription ($j: ID!, $a: String) { jobEvents(jobId: $j, after: $a) {
  cursor type step level message data } }"""
MORE = """query ($j: ID!) { job(id: $j) { provider providerJobId providerStatus isStale queueReason
  lastEvidence { source at } cost trainingData { id } checkpoints { nodes { id step } }
  resolvedHyperparameters startedAt finishedAt } }"""


# Our own workers train for real, which takes a minute: `make soak` has them too.
@pytest.fixture(params=[pytest.param("local", marks=pytest.mark.soak), *sorted(PLACES)])
async def here(
    request: pytest.FixtureRequest,
    owner: Api,
    simulators: dict[str, tuple[Simulator, str]],
) -> Where:
    return await where(owner, request.param, simulators)


@pytest.fixture
def slow(here: Where) -> Iterator[Where]:
    """The same, with jobs that last long enough to be met while they run."""
    if here.simulator is None:
        yield here
        return
    usual, here.simulator.plan = here.simulator.plan, SLOW
    yield here
    here.simulator.plan = usual


async def submit(owner: Api, here: Where, **more: Any) -> str:
    training = await owner.upload(chat_lines(24))
    validation = await owner.upload(chat_lines(12, "item"))
    return await owner.job_id(
        baseModel=here.base_model,
        provider=here.enum,
        trainingFile=training,
        validationFile=validation,
        suffix="trial",
        seed=11,
        method={"supervised": {"hyperparameters": {"nEpochs": 2}}},
        **more,
    )


async def ask(owner: Api, verb: str, job: str) -> dict[str, Any]:
    answer = await owner.execute(
        f"mutation ($j: ID!) {{ {verb}(input: {{id: $j}}) {{ job {{ status requestedAction }}"
        " userErrors { code message } } }",
        j=job,
    )
    return dict(answer[verb])


async def test_from_data_to_answers(owner: Api, here: Where) -> None:
    job = await submit(owner, here)
    seen: list[dict[str, Any]] = []
    async with owner.subscribe(EVENTS, j=job, a="0") as events:
        async for event in events:
            seen.append(event["jobEvents"])
    assert [event["cursor"] for event in seen] == [f"s{n + 1}" for n in range(len(seen))]
    statuses = [event["data"]["after"] for event in seen if event["type"] == "STATUS"]
    order = ["pending", "validating", "queued", "running", "succeeded"]
    assert statuses == [status for status in order if status in statuses]
    assert {"pending", "validating", "succeeded"} <= set(statuses)

    done = await until(owner, job, "SUCCEEDED")
    found = (await owner.execute(MORE, j=job))["job"]
    assert found["provider"] == here.enum
    assert found["trainingData"]
    assert found["finishedAt"]
    assert found["lastEvidence"]["at"]
    assert not found["isStale"]
    assert found["resolvedHyperparameters"]["n_epochs"] == 2
    if here.name != "local":
        assert found["providerJobId"]
        assert found["providerStatus"]

    points: Any = done["metrics"]
    steps = [event["step"] for event in seen if event["type"] == "METRICS"]
    if here.has_metrics:
        assert (
            points[-1]["trainingLoss"] < next(p for p in points if p["step"] == 1)["trainingLoss"]
        )
        assert sorted(set(steps)) == [point["step"] for point in points]
        progress: Any = done["progress"]
        assert steps[-1] == progress["totalSteps"]
    assert bool(found["checkpoints"]["nodes"]) == here.has_checkpoints

    model: Any = done["model"]
    if here.needs_deployment:
        refused = await owner.http.post(
            "/v1/chat/completions",
            json={"model": model["name"], "messages": [{"role": "user", "content": "hi"}]},
        )
        assert refused.status_code == 409
    deployment = await deploy(owner, model["id"])
    if here.name == "local":
        await answers(owner, model["name"])
    else:
        await says(owner, model["name"])
    await undeploy(owner, deployment)


async def test_cancelling_a_job_that_is_being_worked_on(owner: Api, slow: Where) -> None:
    here = slow
    job = await submit(owner, here)
    await until(owner, job, "VALIDATING", "QUEUED", "RUNNING", "SUCCEEDED")
    answer = await ask(owner, "cancelJob", job)
    assert answer["userErrors"] == []
    done = await until(owner, job, "CANCELLED")
    assert done["model"] is None
    again = await ask(owner, "cancelJob", job)
    assert again["userErrors"] == []
    resumed = await ask(owner, "resumeJob", job)
    assert resumed["userErrors"][0]["code"] == "INVALID_TRANSITION"


async def test_pausing_and_going_on(owner: Api, slow: Where) -> None:
    here = slow
    job = await submit(owner, here)
    await until(owner, job, "RUNNING")
    if not here.can_pause:
        refused = await ask(owner, "pauseJob", job)
        assert refused["userErrors"][0]["code"] == "UNSUPPORTED"
        await ask(owner, "cancelJob", job)
        await until(owner, job, "CANCELLED")
        return
    for _ in range(200):
        now = await owner.execute("query ($j: ID!) { job(id: $j) { progress { step } } }", j=job)
        if now["job"]["progress"] and now["job"]["progress"]["step"] >= 1:
            break
        await asyncio.sleep(0.05)
    await ask(owner, "pauseJob", job)
    await until(owner, job, "PAUSED")
    await ask(owner, "resumeJob", job)
    done = await until(owner, job, "SUCCEEDED")
    steps = [point["step"] for point in done["metrics"]]  # type: ignore[attr-defined]
    assert steps == list(range(steps[0], steps[-1] + 1))


async def test_a_create_whose_answer_is_lost_makes_one_job(owner: Api, here: Where) -> None:
    if here.simulator is None:
        return
    runs, creates = len(here.simulator.runs), here.simulator.creates
    here.simulator.cheats.lose_answers = 1
    job = await submit(owner, here)
    await until(owner, job, "SUCCEEDED")
    assert here.simulator.cheats.lose_answers == 0
    assert len(here.simulator.runs) == runs + 1
    capable = PLACES[here.name].adapter.capabilities
    assert here.simulator.creates == creates + (2 if capable.repeatable_create else 1)


async def says(owner: Api, model: str) -> None:
    """It answers, and the streamed answer is the same."""
    asked = {"model": model, "messages": [{"role": "user", "content": "Good day"}]}
    whole = await owner.http.post("/v1/chat/completions", json=asked)
    assert whole.status_code == 200, whole.text
    assert "Good day" in whole.json()["choices"][0]["message"]["content"]
    streamed = await owner.http.post("/v1/chat/completions", json={**asked, "stream": True})
    assert "Good day" in streamed.text
    assert streamed.text.rstrip().endswith("[DONE]")
