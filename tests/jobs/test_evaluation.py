"""Jobs whose checkpoints are judged: what is recorded, refused and warned of, and how a score
arrives."""

import json
from typing import Any

import pytest

from app.core import clock
from app.core.database import Database
from app.jobs import scores
from tests.jobs import work
from tests.jobs.test_methods import CHECK, CHECK_KEPT, JUDGE, changed, refusal
from tests.support import Api, chat_line, chat_lines, item_lines, pair_lines

NAMED = {"name": "check", "grader": CHECK}


def judged_by(*graders: Any, **more: Any) -> dict[str, Any]:
    return {"graders": list(graders) or [NAMED], **more}


@pytest.mark.parametrize("method", ["supervised", "dpo", "reinforcement"])
async def test_it_is_recorded_for_every_method(api: Api, method: str) -> None:
    lines = {"supervised": chat_lines, "dpo": pair_lines, "reinforcement": item_lines}[method]
    given = judged_by(
        {**NAMED, "weight": 2}, data=await api.upload(item_lines(8, "held")), maxCases=5
    )
    payload = await api.submit(
        trainingData=await api.dataset_version(lines(60)),
        validationData=await api.dataset_version(lines(8, "item")),
        method={method: {"grader": CHECK} if method == "reinforcement" else {}},
        evaluation=given,
    )
    assert payload["userErrors"] == []
    assert payload["warnings"] == []
    data = await api.execute(
        "query ($j: ID!) { job(id: $j) { evaluation { graders { name grader weight } samples"
        " maxCompletionTokens temperature maxCases data { format caseCount } } } }",
        j=payload["job"]["id"],
    )
    assert data["job"]["evaluation"] == {
        "graders": [{"name": "check", "grader": CHECK_KEPT, "weight": 2.0}],
        "samples": 1,
        "maxCompletionTokens": "auto",
        "temperature": 0.0,
        "maxCases": 5,
        "data": {"format": "REINFORCEMENT", "caseCount": 8},
    }


@pytest.mark.parametrize(
    ("given", "path", "why"),
    [
        ({"graders": []}, ["graders"], "at least 1"),
        ({"graders": [NAMED, NAMED]}, [], "named 'check'"),
        ({"graders": [{**NAMED, "weight": 0}]}, ["graders", "0", "weight"], "greater than 0"),
        (
            {"graders": [NAMED, {"name": "b", "grader": changed(reference="{{ x }}")}]},
            ["graders", "1", "grader", "stringCheck", "reference"],
            "no reference",
        ),
        ({"samples": 17}, ["samples"], "16"),
        ({"samples": 2}, [], "temperature 0"),
        ({"temperature": 2.5}, ["temperature"], "2"),
        ({"maxCases": 0}, ["maxCases"], "1"),
        ({"maxCompletionTokens": 9000}, ["maxCompletionTokens"], "8192"),
    ],
)
async def test_what_is_wrong_is_refused_with_its_place(
    api: Api, given: dict[str, Any], path: list[str], why: str
) -> None:
    data = await api.dataset_version(item_lines(4, "held"))
    code, found, message = await refusal(api, evaluation={**judged_by(data=data), **given})
    assert (code, found) == ("INVALID_INPUT", ["evaluation", *path])
    assert why in message


async def test_held_out_cases_that_cannot_be_used_are_refused(api: Api) -> None:
    chats = await api.dataset_version(chat_lines(4, "held"))
    code, path, message = await refusal(api, evaluation=judged_by(data=chats))
    assert (code, path) == ("INVALID_INPUT", ["evaluation", "data"])
    assert "reinforcement" in message
    upload = await api.upload(chat_lines(4, "held"))
    code, _, _ = await refusal(api, evaluation=judged_by(data=upload))
    assert code == "DATASET_INVALID"
    code, _, _ = await refusal(api, evaluation=judged_by(data="dsv_nowhere"))
    assert code == "DATASET_VERSION_NOT_FOUND"
    asks = changed(reference="{{ item.answer }}")
    data = await api.dataset_version(item_lines(4, "held"))
    given = judged_by(NAMED, {"name": "asks", "grader": asks}, data=data)
    code, path, message = await refusal(api, evaluation=given)
    assert (code, path) == ("INVALID_INPUT", ["evaluation", "graders", "1", "grader"])
    assert "item.answer" in message
    given = judged_by(NAMED, {"name": "judge", "grader": JUDGE}, data=data)
    code, path, message = await refusal(api, evaluation=given)
    assert (code, path) == ("MODEL_NOT_FOUND", ["evaluation", "graders", "1", "grader"])
    assert "'big'" in message


async def test_leaks_and_missing_fields_are_warned_of(api: Api) -> None:
    """A question counts as known wherever in a conversation it is answered."""
    learnt = chat_line("Where does held 2 go?", "Somewhere.")
    odd = json.dumps({"messages": [{"role": "user", "content": "And this?"}]})
    payload = await api.submit(
        trainingData=await api.dataset_version(f"{chat_lines(60)}\n{learnt}"),
        validationData=await api.dataset_version(chat_lines(8, "item")),
        evaluation=judged_by(data=await api.upload(f"{item_lines(4, 'held')}\n{odd}")),
        dryRun=True,
    )
    assert payload["userErrors"] == []
    missing, leak = payload["warnings"]
    assert "{{ item.word }}" in missing
    assert "1 of 5 held-out cases lack (line 5)" in missing
    assert "1 held-out case is in the training data too (line 3" in leak


async def test_a_score_streams_beside_the_loss(
    api: Api, worker_database: Database, database_url: str
) -> None:
    data = await api.dataset_version(item_lines(4, "held"))
    job = await api.job_id(evaluation=judged_by(data=data))
    claim = await work.take(worker_database, database_url, job)
    await work.start(worker_database, claim)
    said = {
        "score": 0.5,
        "graders": [{"name": "check", "score": 0.5, "errors": 1}],
        "cases": 4,
        "errors": 1,
        "seconds": 1.5,
        "samples": [],
        "reason": None,
    }
    document = (
        'subscription ($j: ID!) { jobMetrics(jobId: $j, after: "0") { points { step trainingLoss'
        " score graderScores { name score } } } }"
    )
    async with api.subscribe(document, j=job) as batches:
        await work.measure(worker_database, claim, {7: {"training_loss": 1.25}})
        [point] = (await anext(batches))["jobMetrics"]["points"]
        assert (point["trainingLoss"], point["score"]) == (1.25, None)
        await work.save(worker_database, claim, 7)
        at = clock.now()
        for _ in range(2):  # the answer to the first commit was lost
            async with worker_database.transaction(claim.org_id) as session:
                await scores.add(session, claim, 7, at, said)
        [point] = (await anext(batches))["jobMetrics"]["points"]
        assert point == {
            "step": 7,
            "trainingLoss": 1.25,
            "score": 0.5,
            "graderScores": [{"name": "check", "score": 0.5}],
        }
    found = await api.execute(
        "query ($j: ID!) { job(id: $j) { checkpoints { nodes { step score } } metrics { step score"
        " trainingLoss } events(types: [SCORE]) { nodes { message level data } } } }",
        j=job,
    )
    assert found["job"]["checkpoints"]["nodes"] == [{"step": 7, "score": 0.5}]
    assert found["job"]["metrics"] == [{"step": 7, "score": 0.5, "trainingLoss": 1.25}]
    [event] = found["job"]["events"]["nodes"]
    assert event["message"] == "Score at step 7: 0.5000, 4 cases in 1.5 s; 1 could not be judged."
    assert event["data"]["graders"] == said["graders"]
    await work.save(worker_database, claim, 9)
    nothing = {**said, "score": None, "graders": [], "reason": "It took too long."}
    async with worker_database.transaction(claim.org_id) as session:
        await scores.add(session, claim, 9, clock.now(), nothing)
    found = await api.execute(
        "query ($j: ID!) { job(id: $j) { bestCheckpoint { step } events(types: [SCORE],"
        " level: WARN) { nodes { message } } } }",
        j=job,
    )
    assert found["job"]["bestCheckpoint"] == {"step": 7}
    assert found["job"]["events"]["nodes"] == [{"message": "No score at step 9: It took too long."}]
    await api.act("cancelJob", job)
