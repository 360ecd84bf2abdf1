"""A finished job, run again: the same losses, and a comparison that says so."""

import random
from typing import Any

import pytest

from tests.flows.stack import TINY, until
from tests.support import Api, chat_lines, item_lines

pytestmark = [pytest.mark.train, pytest.mark.timeout(180)]

COMPARE = """query ($ids: [ID!]!) { compareJobs(ids: $ids) {
  jobs { id } settings { name values same } results { name values same }
  curves { metric firstDifferentStep series { jobId points { step value } } } } }"""
MANIFEST = """query ($j: ID!) { job(id: $j) { rerunOf seed hyperparameters resolvedHyperparameters
  trainingData { sha256 } manifest { luthier trainingSha256 validationSha256 baseModel method
    baseSha256 templateSha256 hyperparameters seed device dtype threads versions
    hardware hourlyCost } } }"""


EVALUATION = {
    "graders": [
        {
            "name": "near",
            "grader": {
                "textSimilarity": {
                    "name": "near",
                    "input": "{{ sample.output_text }}",
                    "reference": "{{ item.word }}",
                    "evaluationMetric": "FUZZY_MATCH",
                }
            },
        }
    ],
    "maxCompletionTokens": 12,
}


async def rerun(owner: Api, job: str, **more: Any) -> dict[str, Any]:
    made = await owner.execute(
        "mutation ($i: RerunJobInput!) { rerunJob(input: $i) { job { id rerunOf }"
        " userErrors { __typename code path } } }",
        i={"id": job, **more},
    )
    payload: dict[str, Any] = made["rerunJob"]
    return payload


async def test_a_rerun_repeats_every_loss_to_the_last_digit(owner: Api) -> None:
    job = await owner.job_id(
        baseModel=TINY,
        trainingFile=await owner.upload(chat_lines(20)),
        validationFile=await owner.upload(chat_lines(6, "item")),
        evaluation={**EVALUATION, "data": await owner.upload(item_lines(4, "held"))},
        method={"supervised": {"hyperparameters": {"nEpochs": 3, "learningRate": 0.004}}},
    )
    refused = await rerun(owner, job)
    assert refused["userErrors"][0]["code"] == "JOB_STILL_LIVE"
    first = await until(owner, job, "SUCCEEDED")

    made = await rerun(owner, job, idempotencyKey="once more")
    assert made["userErrors"] == []
    assert await rerun(owner, job, idempotencyKey="once more") == made
    again = made["job"]["id"]
    assert made["job"]["rerunOf"] == job != again
    second = await until(owner, again, "SUCCEEDED")

    losses = [
        [(p["step"], p["trainingLoss"], p["validationLoss"], p["gradientNorm"]) for p in points]
        for points in (first["metrics"], second["metrics"])
        if isinstance(points, list)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 16

    one, other = [(await owner.execute(MANIFEST, j=id))["job"] for id in (job, again)]
    assert one["manifest"] == other["manifest"]
    assert one["manifest"]["trainingSha256"] == one["trainingData"]["sha256"]
    assert one["manifest"]["seed"] == one["seed"] == other["seed"]
    assert {"torch", "transformers", "trl", "python"} <= one["manifest"]["versions"].keys()
    assert one["hyperparameters"]["batch_size"] == "auto"
    assert other["hyperparameters"]["batch_size"] == one["resolvedHyperparameters"]["batch_size"]

    found = (await owner.execute(COMPARE, ids=[job, again]))["compareJobs"]
    assert [one["name"] for one in found["settings"] if not one["same"]] == []
    assert {"evaluation.graders", "evaluationData"} <= {one["name"] for one in found["settings"]}
    assert {"training_loss", "validation_loss", "score", "score/near"} <= {
        curve["metric"] for curve in found["curves"]
    }
    results = {one["name"]: one["values"] for one in found["results"]}
    assert results["highest.score"][0] == results["highest.score"][1] > 0
    assert all(curve["firstDifferentStep"] is None for curve in found["curves"])


@pytest.mark.soak
async def test_a_comparison_names_what_differs_and_from_where(owner: Api) -> None:
    file = await owner.upload(chat_lines(16))
    rates = [0.004, 0.001]
    random.shuffle(rates)
    jobs = [
        await owner.job_id(
            baseModel=TINY,
            trainingFile=file,
            seed=5,
            method={"supervised": {"hyperparameters": {"nEpochs": 2, "learningRate": rate}}},
        )
        for rate in rates
    ]
    for job in jobs:
        await until(owner, job, "SUCCEEDED")
    found = (await owner.execute(COMPARE, ids=jobs))["compareJobs"]
    assert [job["id"] for job in found["jobs"]] == jobs
    different = {one["name"]: one["values"] for one in found["settings"] if not one["same"]}
    assert different == {"hyperparameters.learning_rate": rates}
    curves = {curve["metric"]: curve for curve in found["curves"]}
    assert curves["learning_rate"]["firstDifferentStep"] == 1
    assert curves["training_loss"]["firstDifferentStep"] == 2  # the first step comes before any
    assert [len(series["points"]) for series in curves["training_loss"]["series"]] == [8, 8]
    results = {one["name"]: one for one in found["results"]}
    assert results["status"]["same"]
    assert not results["last.training_loss"]["same"]
