"""Jobs that were made elsewhere, taken into the ledger; and models that end."""

import asyncio
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.core import clock
from app.providers.base import Adapter, Order
from app.providers.registry import Providers
from tests.providers.conftest import Stage
from tests.providers.test_adapters import data
from tests.support import chat_lines

IMPORT = """mutation ($i: ImportJobsInput!) { importJobs(input: $i) {
  imported { id status providerJobId trainingData { id } createdAt } known { id }
  userErrors { code message path } } }"""


@pytest.fixture
async def elsewhere(stage: Stage, tmp_path: Path) -> str:
    """The id of a job that somebody else made at the provider."""
    providers = Providers([stage.url])
    adapter: Adapter = providers.adapter("openai", stage.place.account(stage.url), "somebody")
    training = await adapter.upload(data(tmp_path, chat_lines(20)))
    made = await adapter.create(Order("not-ours", stage.place.base_model, "supervised", training))
    await providers.close()
    return made.id


async def test_a_job_made_elsewhere_comes_with_all_that_happened(
    stage: Stage, elsewhere: str
) -> None:
    await stage.connect()
    answer = (await stage.api.execute(IMPORT, i={"provider": "OPENAI"}))["importJobs"]
    assert answer["userErrors"] == []
    (job,) = answer["imported"]
    assert job["providerJobId"] == elsewhere
    assert job["trainingData"] is None
    async with stage.driver():
        done = await stage.until(job["id"], "SUCCEEDED")
    assert [point["step"] for point in done["metrics"]] == list(range(1, 13))
    assert done["model"]["name"].startswith("ft:")
    assert stage.simulator.creates == 1
    again = (await stage.api.execute(IMPORT, i={"provider": "OPENAI"}))["importJobs"]
    assert (again["imported"], [row["id"] for row in again["known"]]) == ([], [job["id"]])


async def test_one_job_by_its_id_and_ten_imports_at_once(stage: Stage, elsewhere: str) -> None:
    await stage.connect()
    asked = {"provider": "OPENAI", "providerJobIds": [elsewhere]}
    answers = await asyncio.gather(*(stage.api.execute(IMPORT, i=asked) for _ in range(10)))
    assert sum(len(answer["importJobs"]["imported"] or []) for answer in answers) == 1
    asked["providerJobIds"] = ["ftjob-nobody"]
    refused = (await stage.api.execute(IMPORT, i=asked))["importJobs"]["userErrors"]
    assert refused[0]["path"] == ["providerJobIds"]


async def test_our_own_jobs_are_not_imported(stage: Stage) -> None:
    await stage.connect()
    job = await stage.submit()
    async with stage.driver():
        await stage.until(job, lambda now: now["providerJobId"] is not None)
    answer = (await stage.api.execute(IMPORT, i={"provider": "OPENAI"}))["importJobs"]
    assert answer["imported"] == []


async def test_without_a_credential_nothing_is_imported(stage: Stage) -> None:
    refused = (await stage.api.execute(IMPORT, i={"provider": "OPENAI"}))["importJobs"]
    assert refused["userErrors"][0]["path"] == ["provider"]


async def sunsets(stage: Stage, wanted: int, seconds: float = 15) -> list[dict[str, Any]]:
    query = 'subscription { modelSunsets(after: "0") { provider model ends gone message } }'
    found: list[dict[str, Any]] = []
    async with stage.api.subscribe(query) as events, asyncio.timeout(seconds):
        async for event in events:
            found.append(event["modelSunsets"])
            if len(found) == wanted:
                return found
    raise AssertionError(found)


async def test_models_that_end_are_told_of_in_time_and_once(stage: Stage) -> None:
    await stage.connect()
    async with stage.driver():
        found = await sunsets(stage, 4)
    assert {row["model"] for row in found} == {
        "gpt-4.1-2025-04-14",
        "gpt-4.1-mini-2025-04-14",
        "gpt-4o-2024-08-06",
        "gpt-4o-mini-2024-07-18",
    }
    left = (date(2027, 1, 14) - clock.now().date()).days
    assert all(row["ends"] == "2027-01-14" for row in found)
    assert all(f"in {left} days" in row["message"] for row in found)
    listed = await stage.api.execute(
        "{ baseModels(provider: OPENAI) { nodes { name shutsDownOn pricePerMillionTokens } } }"
    )
    ends = {row["name"]: row["shutsDownOn"] for row in listed["baseModels"]["nodes"]}
    assert ends["gpt-4o-mini-2024-07-18"] == "2027-01-14"
    assert ends["gpt-4.1-nano-2025-04-14"] is None
    warned = await stage.api.submit(
        baseModel="gpt-4o-mini-2024-07-18", provider="OPENAI", dryRun=True
    )
    assert any(f"in {left} days" in words for words in warned["warnings"])
    clock.move(timedelta(days=left + 1))
    try:
        refused = await stage.api.submit(baseModel="gpt-4o-mini-2024-07-18", provider="OPENAI")
        assert refused["userErrors"][0]["path"] == ["baseModel"]
        assert "ended on 2027-01-14" in refused["userErrors"][0]["message"]
    finally:
        clock.move(-timedelta(days=left + 1))


async def test_a_model_that_is_listed_no_more_is_told_of(stage: Stage) -> None:
    await stage.connect()
    async with stage.driver():
        await sunsets(stage, 4)
        stage.simulator.cheats.expired_models = ["gpt-4o-mini-2024-07-18"]
        await stage.connect()  # makes the radar look at once
        (gone,) = [row for row in await sunsets(stage, 5) if row["gone"]]
    assert gone["model"] == "gpt-4o-mini-2024-07-18"
    listed = await stage.api.execute(
        "{ baseModels(provider: OPENAI) { nodes { name missingSince } } }"
    )
    missing = {row["name"] for row in listed["baseModels"]["nodes"] if row["missingSince"]}
    assert missing == {"gpt-4o-mini-2024-07-18"}


async def test_what_a_provider_cannot_do_is_refused_before_it_is_asked(stage: Stage) -> None:
    await stage.connect()
    for fields, path in (
        ({"method": {"supervised": {"hyperparameters": {"loraRank": 8}}}}, "loraRank"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"hardware": "cuda"}, "hardware"),
        ({"baseModel": "o4-mini-2025-04-16"}, "method"),
    ):
        asked = {"baseModel": stage.place.base_model, "provider": "OPENAI", **fields}
        refused = (await stage.api.submit(**asked))["userErrors"]
        assert refused, fields
        assert path in str(refused[0]), refused
    assert not [one for one in stage.simulator.requests if one.startswith("POST /v1/fine_tuning")]


async def test_where_a_base_model_is_known_the_provider_need_not_be_said(stage: Stage) -> None:
    await stage.connect()
    made = await stage.api.submit(baseModel=stage.place.base_model)
    found = await stage.job(made["job"]["id"])
    assert found["provider"] == "OPENAI"


async def test_a_finished_model_can_be_tuned_further(stage: Stage) -> None:
    await stage.connect()
    first = await stage.submit()
    async with stage.driver():
        model = (await stage.until(first, "SUCCEEDED"))["model"]
        second = await stage.api.job_id(baseModel=model["id"])
        done = await stage.until(second, "SUCCEEDED")
    assert done["provider"] == "OPENAI"
    run = stage.simulator.jobs[done["providerJobId"]]  # type: ignore[attr-defined]
    assert run.asked["model"] == model["name"]
