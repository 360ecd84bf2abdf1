"""The model of a job with graders is its best checkpoint, not its last one."""

import pytest

from tests.flows.stack import TINY, Stack, until
from tests.support import Api, chat_lines, item_lines

pytestmark = [pytest.mark.train, pytest.mark.timeout(240)]

# The longer the better; and it fails on one of the cases. The model learns to answer briefly, so
# that its answers get worse while its validation loss falls.
LENGTH = """
def grade(sample, item):
    return min(1.0, len(sample["output_text"]) / (200 if item["word"] == "held" else item["no"]))
"""
EVALUATION = {
    "graders": [
        {"name": "length", "grader": {"python": {"name": "length", "source": LENGTH}}},
        {
            "name": "polite",
            "weight": 0.1,
            "grader": {
                "stringCheck": {
                    "name": "polite",
                    "input": "{{ sample.output_text }}",
                    "reference": "{{ item.word }}",
                    "operation": "ILIKE",
                }
            },
        },
    ],
    "maxCompletionTokens": 32,
}
JOB = """query ($j: ID!) { job(id: $j) { id status cursor
  evaluation { graders { name weight } samples maxCompletionTokens maxCases data { caseCount } }
  manifest { evaluationSha256 evaluation } model { id name step checkpointId }
  bestCheckpoint { id step score } latestMetrics { step score }
  checkpoints { nodes { id step score metrics { validationLoss } } }
  metrics { step score validationLoss trainingLoss graderScores { name score } }
  events(first: 200, types: [SCORE, MODEL]) { nodes { type step level message data } } } }"""


async def test_the_best_score_is_chosen_over_the_lowest_loss(owner: Api, stack: Stack) -> None:
    held_out = item_lines(5, "held") + "\n" + item_lines(1, "odd")
    job = await owner.job_id(
        baseModel=TINY,
        trainingFile=await owner.upload(chat_lines(16)),
        validationFile=await owner.upload(chat_lines(6, "item")),
        evaluation={**EVALUATION, "data": await owner.upload(held_out)},
        suffix="judged",
        seed=3,
        method={
            "supervised": {
                "hyperparameters": {
                    "nEpochs": 15,
                    "batchSize": 4,
                    "adapter": "FULL",
                    "learningRate": 0.003,
                    "checkpointInterval": 12,
                }
            }
        },
        checkpointRetention={"last": 2, "bestByLoss": 1, "bestByScore": 0},
    )
    await until(owner, job, "SUCCEEDED")
    found = (await owner.execute(JOB, j=job))["job"]
    checkpoints = found["checkpoints"]["nodes"]
    points = {point["step"]: point for point in found["metrics"]}
    scored = {step: p["score"] for step, p in points.items() if p["score"] is not None}
    losses = {step: points[step]["validationLoss"] for step in scored}
    best, lowest = max(scored, key=scored.__getitem__), min(losses, key=losses.__getitem__)
    assert list(scored) == [12, 24, 36, 48, 60]
    assert best < lowest

    # The rule that keeps none by score keeps the one that may become the model.
    kept = {node["step"]: node for node in checkpoints}
    assert {best, lowest} <= kept.keys()
    assert found["bestCheckpoint"] == {
        "id": kept[best]["id"],
        "step": best,
        "score": scored[best],
    }
    model = found["model"]
    assert (model["step"], model["checkpointId"]) == (best, kept[best]["id"])
    assert (await owner.http.get(f"/v1/models/{model['id']}/content")).status_code == 200
    runs = stack.folder / "runs" / job
    assert not list(runs.glob("*/model"))  # nobody names the last weights but their checkpoint
    refused = await owner.execute(
        "mutation ($i: DeleteCheckpointInput!) { deleteCheckpoint(input: $i)"
        " { userErrors { code } } }",
        i={"id": kept[best]["id"]},
    )
    assert refused["deleteCheckpoint"]["userErrors"] == [{"code": "CHECKPOINT_IN_USE"}]

    # Beside the loss, in one point.
    point = points[best]
    assert None not in (point["trainingLoss"], point["validationLoss"])
    parts = {part["name"]: part["score"] for part in point["graderScores"]}
    assert point["score"] == pytest.approx((parts["length"] + 0.1 * parts["polite"]) / 1.1)
    assert found["latestMetrics"] == {"step": 60, "score": scored[60]}

    *events, made = found["events"]["nodes"]
    assert [(event["type"], event["step"]) for event in events] == [("SCORE", s) for s in scored]
    first = events[0]["data"]
    assert (first["cases"], first["errors"], first["score"]) == (6, 1, scored[12])
    assert "KeyError" in first["samples"][-1]["error"]
    assert "1 could not be judged" in events[0]["message"]
    assert f"step {best} has the best score" in made["message"]

    assert found["evaluation"]["data"] == {"caseCount": 6}
    assert found["manifest"]["evaluation"]["max_completion_tokens"] == 32
    assert len(found["manifest"]["evaluationSha256"]) == 64
