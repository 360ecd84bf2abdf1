"""Every method from data to a model, through GraphQL, with a pause on the way."""

from typing import Any

import pytest

from tests.flows.stack import TINY, step_reached, until
from tests.support import Api, chat_lines, item_lines, pair_lines

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]


@pytest.mark.soak
async def test_preferences_become_a_model(owner: Api) -> None:
    job = await owner.job_id(
        baseModel=TINY,
        trainingData=await owner.dataset_version(pair_lines(24)),
        validationData=await owner.dataset_version(pair_lines(6, "item")),
        seed=5,
        method={
            "dpo": {
                "hyperparameters": {
                    "nEpochs": 3,
                    "batchSize": 4,
                    "learningRate": 0.005,
                    "beta": 0.5,
                    "evalInterval": 6,
                    "checkpointInterval": 6,
                }
            }
        },
    )
    await step_reached(owner, job, 4)
    await owner.act("pauseJob", job)
    await until(owner, job, "PAUSED")
    await owner.act("resumeJob", job)
    found: dict[str, Any] = await until(owner, job, "SUCCEEDED", "FAILED")
    assert found["status"] == "SUCCEEDED", found["error"]
    assert found["model"]["kind"] == "lora"

    answer = await owner.execute(
        "query ($j: ID!) { job(id: $j) { manifest { method templateSha256 hyperparameters }"
        " metrics { step chosenReward rejectedReward rewardMargin rewardAccuracy"
        " validationRewardMargin validationRewardAccuracy validationLoss reward kl } } }",
        j=job,
    )
    manifest, points = answer["job"]["manifest"], answer["job"]["metrics"]
    assert (manifest["method"], manifest["hyperparameters"]["beta"]) == ("dpo", 0.5)
    assert len(manifest["templateSha256"]) == 64
    assert [point["step"] for point in points] == list(range(19))
    assert [p["step"] for p in points if p["validationLoss"] is not None] == [0, 6, 12, 18]
    assert points[0]["validationRewardMargin"] == 0
    assert points[-1]["validationRewardMargin"] > 0.5
    assert points[-1]["rewardMargin"] == pytest.approx(
        points[-1]["chosenReward"] - points[-1]["rejectedReward"], abs=1e-5
    )
    assert points[-1]["rewardAccuracy"] == 1
    assert {points[-1]["reward"], points[-1]["kl"]} == {None}


LENGTH = """
def grade(sample, item):
    return min(1.0, len(sample["output_text"]) / item["wanted"])
"""
POLITE = {
    "name": "polite",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.word }}",
    "operation": "ILIKE",
}
GRADER = {
    "multi": {
        "name": "both",
        "calculateOutput": "0.9 * length + 0.1 * polite",
        "graders": [{"python": {"name": "length", "source": LENGTH}}, {"stringCheck": POLITE}],
    }
}


@pytest.mark.soak
async def test_rewards_become_a_model(owner: Api) -> None:
    hyperparameters = {
        "nEpochs": 2,
        "batchSize": 4,
        "computeMultiplier": 1,
        "maxCompletionTokens": 8,
        "learningRate": 0.01,
        "evalInterval": 3,
        "checkpointInterval": 3,
    }
    job = await owner.job_id(
        baseModel=TINY,
        trainingData=await owner.dataset_version(item_lines(12)),
        validationData=await owner.dataset_version(item_lines(4, "item")),
        seed=5,
        method={"reinforcement": {"grader": GRADER, "hyperparameters": hyperparameters}},
    )
    await step_reached(owner, job, 2)
    await owner.act("pauseJob", job)
    await until(owner, job, "PAUSED")
    await owner.act("resumeJob", job)
    found: dict[str, Any] = await until(owner, job, "SUCCEEDED", "FAILED")
    assert found["status"] == "SUCCEEDED", found["error"]
    assert found["model"]["kind"] == "lora"

    answer = await owner.execute(
        "query ($j: ID!) { job(id: $j) { grader resolvedHyperparameters"
        " checkpoints { nodes { step score } } metrics { step reward rewardStd"
        " rewardZeroStdFraction validationReward kl completionLength graderErrorFraction"
        " graderRewards { name reward validationReward } } } }",
        j=job,
    )
    job_now = answer["job"]
    assert set(job_now["grader"]["graders"]) == {"length", "polite"}
    assert job_now["resolvedHyperparameters"]["samples"] == 4
    points = job_now["metrics"]
    assert [point["step"] for point in points] == list(range(7))
    assert all(point["reward"] is not None for point in points[1:])
    judged = [point for point in points if point["validationReward"] is not None]
    assert [point["step"] for point in judged] == [0, 3, 6]
    scores = {node["step"]: node["score"] for node in job_now["checkpoints"]["nodes"]}
    assert scores[6] == judged[-1]["validationReward"]
    last = points[-1]
    assert 0 < last["completionLength"] <= 8
    assert last["graderErrorFraction"] == 0
    parts = {part["name"]: part["reward"] for part in last["graderRewards"]}
    assert last["reward"] == pytest.approx(0.9 * parts["length"] + 0.1 * parts["polite"], abs=1e-5)


@pytest.mark.soak
async def test_a_job_goes_on_from_a_checkpoint_of_another(owner: Api) -> None:
    """Supervised first, then preferences on top: the usual order."""
    small = {"nEpochs": 1, "batchSize": 4, "learningRate": 0.005}
    first = await owner.job_id(
        baseModel=TINY,
        trainingData=await owner.dataset_version(chat_lines(16)),
        method={
            "supervised": {"hyperparameters": {**small, "loraRank": 4, "checkpointInterval": 2}}
        },
    )
    await until(owner, first, "SUCCEEDED", "FAILED")
    answer = await owner.execute(
        "query ($j: ID!) { job(id: $j) { checkpoints { nodes { id step } } model { id } } }",
        j=first,
    )
    checkpoint = next(n["id"] for n in answer["job"]["checkpoints"]["nodes"] if n["step"] == 2)
    pairs = await owner.dataset_version(pair_lines(16))

    refused = await owner.submit(
        baseModel=answer["job"]["model"]["id"],
        trainingData=pairs,
        method={"dpo": {"hyperparameters": {**small, "loraRank": 8}}},
    )
    [error] = refused["userErrors"]
    assert error["path"] == ["method", "dpo", "hyperparameters", "loraRank"]

    second = await owner.job_id(
        baseModel=checkpoint,
        trainingData=pairs,
        method={"dpo": {"hyperparameters": small}},
    )
    found = await until(owner, second, "SUCCEEDED", "FAILED")
    assert found["status"] == "SUCCEEDED", found["error"]
    answer = await owner.execute(
        "query ($j: ID!) { job(id: $j) { baseModel startsFrom { name baseModel }"
        " resolvedHyperparameters manifest { startSha256 } model { kind baseModel } } }",
        j=second,
    )
    job = answer["job"]
    assert (job["baseModel"], job["startsFrom"]["baseModel"]) == (TINY, TINY)
    assert job["startsFrom"]["name"].endswith("ckpt-step-2")
    assert job["resolvedHyperparameters"]["lora_rank"] == 4
    assert len(job["manifest"]["startSha256"]) == 64
    assert job["model"] == {"kind": "lora", "baseModel": TINY}
