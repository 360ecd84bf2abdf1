"""Every method from data to a model, through GraphQL, with a pause on the way."""

from typing import Any

import pytest

from tests.flows.stack import TINY, step_reached, until
from tests.support import Api, pair_lines

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]


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
