"""Jobs at a provider, through the API, the driver and the ledger."""

import asyncio

from tests.providers.conftest import Stage


async def test_a_job_at_a_provider_is_in_the_ledger_from_end_to_end(stage: Stage) -> None:
    credential = await stage.connect()
    assert credential["hint"] == "…7890"
    job = await stage.submit(suffix="trial")
    async with stage.driver():
        done = await stage.until(job, "SUCCEEDED")
    assert done["providerStatus"] == "succeeded"
    assert done["lastEvidence"]["source"] == "poll"
    assert done["model"]["provider"] == "OPENAI"
    assert [point["step"] for point in done["metrics"]] == list(range(1, 13))
    assert done["metrics"][-1]["trainingLoss"] < done["metrics"][0]["trainingLoss"]
    assert [row["step"] for row in done["checkpoints"]["nodes"]] == [12, 8, 4]
    assert done["progress"] == {"step": 12, "totalSteps": 12, "percent": 100.0}
    assert done["resultFiles"]
    assert done["trainedTokens"]
    assert done["cost"]
    statuses = await stage.statuses(job)
    assert statuses[0] == "pending"
    assert statuses[-1] == "succeeded"
    order = ["pending", "validating", "queued", "running", "succeeded"]
    assert statuses == [status for status in order if status in statuses]
    keys = [(e["type"], e["step"]) for e in await stage.events(job) if e["step"] is not None]
    assert len(set(keys)) == len(keys)
    chat = await stage.api.http.post(
        "/v1/chat/completions",
        json={
            "model": done["model"]["name"],
            "messages": [{"role": "user", "content": "Good day"}],
        },
    )
    assert "Good day" in chat.json()["choices"][0]["message"]["content"]


async def test_cancelling(stage: Stage) -> None:
    await stage.connect()
    job = await stage.submit()
    async with stage.driver():
        await stage.until(job, lambda found: found["providerJobId"] is not None)
        await stage.api.execute(
            "mutation ($j: ID!) { cancelJob(input: {id: $j}) { userErrors { message } } }", j=job
        )
        await stage.until(job, "CANCELLED")
    run = next(iter(stage.simulator.runs.values()))
    run.advance(stage.simulator.now() + 3600)
    assert run.phase == "cancelled"


async def test_cancelled_before_it_is_sent_nothing_is_sent(stage: Stage) -> None:
    await stage.connect()
    job = await stage.submit()
    await stage.api.execute(
        "mutation ($j: ID!) { cancelJob(input: {id: $j}) { userErrors { message } } }", j=job
    )
    assert (await stage.job(job))["status"] == "CANCELLED"
    async with stage.driver():
        await asyncio.sleep(0.5)
    assert stage.simulator.creates == 0
