"""From data to answers: submit, train for real, watch live, deploy, chat."""

import asyncio
import csv
import io
import json
from typing import Any

import psutil
import pytest

from tests.flows.stack import TINY, Stack, until
from tests.flows.test_run_grader import graded
from tests.support import Api, chat_lines

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

EVENTS = """subscription ($j: ID!, $a: String) { jobEvents(jobId: $j, after: $a) {
  cursor type step attempt message data } }"""


async def test_a_job_goes_from_data_to_answers(owner: Api, stack: Stack) -> None:
    training = await owner.upload(chat_lines(24))
    validation = await owner.upload(chat_lines(6, "item"))
    job = await owner.job_id(
        baseModel=TINY,
        trainingFile=training,
        validationFile=validation,
        suffix="flow",
        seed=11,
        method={
            "supervised": {"hyperparameters": {"nEpochs": 4, "batchSize": 4, "learningRate": 0.005}}
        },
    )
    seen: list[dict[str, Any]] = []
    async with owner.subscribe(EVENTS, j=job, a="0") as events:
        async for event in events:
            seen.append(event["jobEvents"])

    assert [event["cursor"] for event in seen] == [f"s{n + 1}" for n in range(len(seen))]
    statuses = [event["data"]["after"] for event in seen if event["type"] == "STATUS"]
    assert statuses == ["pending", "validating", "queued", "running", "succeeded"]
    steps = [event["step"] for event in seen if event["type"] == "METRICS"]
    assert steps == list(range(25))

    found = await until(owner, job, "SUCCEEDED")
    points: Any = found["metrics"]
    assert points[-1]["trainingLoss"] < points[1]["trainingLoss"] * 0.7
    assert points[-1]["validationLoss"] < points[0]["validationLoss"]
    assert found["progress"] == {"step": 24, "totalSteps": 24, "percent": 100.0}
    assert [point["step"] for point in points] == list(range(25))

    files: Any = found["resultFiles"]
    content = await owner.http.get(f"/v1/files/{files[0]['id']}/content")
    rows = list(csv.DictReader(io.StringIO(content.text)))
    assert [int(row["step"]) for row in rows] == list(range(25))
    assert float(rows[-1]["training_loss"]) == points[-1]["trainingLoss"]

    model: Any = found["model"]
    assert model["name"].startswith(f"ft:{TINY}:")
    assert ":flow:" in model["name"]
    deployment = await deploy(owner, model["id"])
    await answers(owner, model["name"])
    await answers(owner, TINY)
    await judges(owner, model["name"])
    await a_dead_server_comes_back(owner, stack)
    await answers(owner, model["name"])
    await undeploy(owner, deployment)
    refused = await owner.http.post("/v1/chat/completions", json=question(model["name"]))
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "model_not_deployed"


async def a_dead_server_comes_back(owner: Api, stack: Stack) -> None:
    changes = "subscription { deploymentChanges { statusThen deployment { id } } }"
    async with owner.subscribe(changes) as stream:
        await asyncio.sleep(0.5)
        kill_servers(stack)
        seen = [(await anext(stream))["deploymentChanges"]["statusThen"] for _ in range(2)]
    assert seen == ["STARTING", "READY"]


async def deploy(owner: Api, model: str) -> str:
    changes = 'subscription { deploymentChanges(after: "0") { statusThen deploymentId'
    answer = await owner.execute(
        "mutation ($m: ID!) { deployModel(input: {modelId: $m}) { deployment { id }"
        " userErrors { message } } }",
        m=model,
    )
    deployment = str(answer["deployModel"]["deployment"]["id"])
    async with owner.subscribe(changes + " deployment { error { message } } } }") as stream:
        async for event in stream:
            change = event["deploymentChanges"]
            if change["deploymentId"] != deployment:
                continue
            assert change["statusThen"] != "FAILED", change
            if change["statusThen"] == "READY":
                return deployment
    raise AssertionError("the stream of deployments never ends by itself")


async def undeploy(owner: Api, deployment: str) -> None:
    await owner.execute(
        "mutation ($d: ID!) { undeployModel(input: {deploymentId: $d})"
        " { userErrors { message } } }",
        d=deployment,
    )
    for _ in range(100):
        answer = await owner.execute(
            "query ($d: ID!) { node(id: $d) { ... on Deployment { status } } }", d=deployment
        )
        if answer["node"]["status"] == "STOPPED":
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it was not taken down")


def question(model: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Where does case 4 go?"}]
    return {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0, **more}


async def answers(owner: Api, model: str) -> None:
    """It answers, and the streamed answer is the same."""
    whole = await owner.http.post("/v1/chat/completions", json=question(model))
    assert whole.status_code == 200, whole.text
    said = whole.json()
    assert said["model"] == model
    assert said["usage"]["completion_tokens"] <= 8
    streamed = ""
    async with owner.http.stream(
        "POST", "/v1/chat/completions", json=question(model, stream=True)
    ) as reply:
        async for line in reply.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                streamed += choice["delta"].get("content") or ""
    assert streamed == said["choices"][0]["message"]["content"]


async def judges(owner: Api, model: str) -> None:
    """It is asked by a grader, whatever so small a model may answer to that."""
    judge = {
        "name": "judge",
        "model": model,
        "input": [{"role": "USER", "content": [{"text": "Rate {{ sample.output_text }}"}]}],
        "samplingParams": {"maxCompletionsTokens": 8},
    }
    found = await graded(owner, {"scoreModel": judge})
    [used] = found["tokenUsage"]
    assert used["model"] == model
    assert used["tokens"] > 0
    assert not found["errors"]["modelGraderServerError"]


def kill_servers(stack: Stack) -> None:
    """Kill -9 the processes that hold models, which only this stack has."""
    for worker in stack.workers:
        for child in psutil.Process(worker.pid).children(recursive=True):
            if "app.serving" in child.cmdline():
                child.kill()
