"""Trouble at the provider, and what it must not do to a job."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from app.core import clock
from app.simulators.runs import Plan
from tests.providers.conftest import Stage

SLOW = Plan(validating=0.1, queued=0.1, steps=12, step_seconds=600)


async def test_an_hour_without_an_answer_changes_no_status(stage: Stage) -> None:
    stage.simulator.plan = SLOW
    await stage.connect()
    job = await stage.submit()
    async with stage.driver():
        await stage.until(job, "RUNNING")
        stage.simulator.cheats.down = True
        try:
            for minutes in (5, 10, 15, 15, 15):
                clock.move(timedelta(minutes=minutes))
                await asyncio.sleep(0.4)
            found = await stage.until(
                job, lambda now: now["isStale"] and "does not answer" in now["queueReason"]
            )
            assert found["status"] == "RUNNING"
            assert found["error"] is None
            assert "No word from OpenAI for 60 min" in found["queueReason"]
            stage.simulator.cheats.down = False
            stage.simulator.move(3 * 3600)
            clock.move(timedelta(hours=1))
            found = await stage.until(job, "SUCCEEDED")
        finally:
            clock.move(timedelta(hours=-2))
    assert [point["step"] for point in found["metrics"]] == list(range(1, 13))
    assert not found["isStale"]
    warnings = [e for e in await stage.events(job) if e["level"] == "WARN"]
    assert len([e for e in warnings if "does not answer" in e["message"]]) == 1


async def test_a_storm_of_429s_and_500s_costs_only_time(stage: Stage) -> None:
    await stage.connect()
    job = await stage.submit()
    stage.simulator.cheats.throttle, stage.simulator.cheats.retry_after = 6, 0.1
    async with stage.driver():
        await stage.until(job, lambda found: found["providerJobId"] is not None)
        stage.simulator.cheats.errors = 8
        await stage.until(job, "SUCCEEDED", 60)
    assert stage.simulator.creates == 1


async def test_a_create_whose_answer_was_lost_makes_one_job(stage: Stage) -> None:
    await stage.connect()
    job = await stage.submit()
    stage.simulator.cheats.lose_answers = 1
    async with stage.driver():
        found = await stage.until(job, "SUCCEEDED")
    assert len(stage.simulator.runs) == 1
    assert stage.simulator.creates == 1
    assert found["providerJobId"] in stage.simulator.runs


async def test_a_create_that_never_arrived_is_sent_again(stage: Stage) -> None:
    await stage.connect()
    job = await stage.submit()
    async with stage.driver():
        stage.simulator.cheats.errors = 0
        stage.simulator.cheats.lose_creates = 1
        found = await stage.until(job, "SUCCEEDED", 60)
    assert len(stage.simulator.runs) == 1
    assert found["status"] == "SUCCEEDED"


async def test_a_word_nobody_knows_is_kept_and_warned_of(stage: Stage) -> None:
    stage.simulator.plan = Plan(validating=0.1, queued=0.1, steps=12, step_seconds=0.4)
    await stage.connect()
    job = await stage.submit()
    async with stage.driver():
        await stage.until(job, "RUNNING")
        stage.simulator.cheats.word = "contemplating"
        found = await stage.until(job, lambda now: now["providerStatus"] == "contemplating")
        assert found["status"] == "RUNNING"
        stage.simulator.cheats.word = None
        await stage.until(job, "SUCCEEDED")
    said = [e["message"] for e in await stage.events(job) if e["level"] == "WARN"]
    assert len([words for words in said if "contemplating" in words]) == 1


async def test_a_job_that_vanishes_is_believed_only_after_a_day(stage: Stage) -> None:
    stage.simulator.plan = SLOW
    await stage.connect()
    job = await stage.submit()
    async with stage.driver():
        id = (await stage.until(job, "RUNNING"))["providerJobId"]
        stage.simulator.cheats.vanished = [id]
        try:
            clock.move(timedelta(minutes=11))
            found = await stage.until(job, lambda now: "no job" in (now["queueReason"] or ""))
            assert found["status"] == "RUNNING"
            clock.move(timedelta(hours=25))
            found = await stage.until(job, "FAILED")
        finally:
            clock.move(-timedelta(hours=25, minutes=11))
    assert found["error"]["code"] == "vanished"


async def test_a_key_that_is_denied_waits_for_a_better_one(stage: Stage) -> None:
    await stage.connect()
    job = await stage.submit()
    stage.simulator.key_prefix = "sk-new-"  # type: ignore[attr-defined]
    async with stage.driver():
        found = await stage.until(job, lambda now: "says" in (now["queueReason"] or ""))
        assert found["status"] in ("PENDING", "VALIDATING")
        fields = {"apiKey": "sk-new-1234567890abcdef", "baseUrl": f"{stage.url}/v1"}
        answer = await stage.api.execute(
            "mutation ($i: SetProviderCredentialInput!) { setProviderCredential(input: $i) {"
            " userErrors { message } } }",
            i={"credential": {"openai": fields}},
        )
        assert answer["setProviderCredential"]["userErrors"] == []
        await stage.until(job, "SUCCEEDED")


async def test_bad_data_fails_the_job_with_the_providers_reason(stage: Stage) -> None:
    await stage.connect()
    data = await stage.api.dataset_version(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    job = await stage.submit(trainingData=data)
    async with stage.driver():
        found = await stage.until(job, "FAILED")
    assert found["error"]["code"] == "invalid_training_file"
    assert "at least 10" in found["error"]["message"]
    assert found["error"]["param"] == "training_file"


async def test_a_restarted_job_is_another_one_at_the_provider(stage: Stage) -> None:
    await stage.connect()
    job = await stage.submit()
    async with stage.driver():
        first = await stage.until(job, lambda now: now["providerJobId"] is not None)
        await stage.api.execute(
            "mutation ($j: ID!) { cancelJob(input: {id: $j}) { userErrors { message } } }", j=job
        )
        await stage.until(job, "CANCELLED")
        answer = await stage.api.execute(
            "mutation ($j: ID!) { restartJob(input: {id: $j}) { userErrors { message } } }", j=job
        )
        assert answer["restartJob"]["userErrors"] == []
        found = await stage.until(job, "SUCCEEDED")
    assert found["providerJobId"] != first["providerJobId"]
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["cancelled", "succeeded"]


async def test_pause_and_resume(stage: Stage) -> None:
    stage.simulator.plan = Plan(validating=0.1, queued=0.1, steps=12, step_seconds=1)
    await stage.connect()
    job = await stage.submit()
    async with stage.driver():
        await stage.until(job, lambda now: (now["progress"] or {}).get("step", 0) > 0)
        await stage.api.execute(
            "mutation ($j: ID!) { pauseJob(input: {id: $j}) { userErrors { message } } }", j=job
        )
        await stage.until(job, "PAUSED")
        for run in stage.simulator.runs.values():  # nothing more has to come in time
            run.plan = replace(run.plan, step_seconds=0.05)
        await stage.api.execute(
            "mutation ($j: ID!) { resumeJob(input: {id: $j}) { userErrors { message } } }", j=job
        )
        found = await stage.until(job, "SUCCEEDED")
    assert [point["step"] for point in found["metrics"]] == list(range(1, 13))
    assert found["requestedAction"] is None
