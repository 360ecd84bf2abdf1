"""What Google's own SDKs can drive is a faithful simulator."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.auth.transport import requests as transport
from google.genai import Client, errors, types
from google.oauth2 import credentials as oauth
from google.oauth2 import service_account as accounts

from app.simulators.runs import Plan
from app.simulators.vertex import VertexSimulator, service_account

# The SDK warns of itself, and aiohttp of the SDK.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The SDK's tuning implementation"),
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession"),
]
QUICK = Plan(validating=0.1, queued=0.1, steps=6, step_seconds=0.05)


@pytest.fixture
async def served() -> AsyncIterator[tuple[VertexSimulator, Client, str]]:
    simulator = VertexSimulator(QUICK, seed=1)
    async with simulator.served() as url:
        token = simulator.accounts.issue()
        client = Client(
            vertexai=True,
            project="acme",
            location="us-central1",
            credentials=oauth.Credentials(token=token),  # type: ignore[no-untyped-call]
            http_options=types.HttpOptions(base_url=url),
        )
        yield simulator, client, url
        await client.aio.aclose()
        client.close()


def content(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text}]}


def supervised(number: int) -> dict[str, Any]:
    return {"contents": [content(f"Question {number}"), content(f"Answer {number}", "model")]}


def preference(number: int) -> dict[str, Any]:
    completions = [
        {"score": score, "completion": content(f"Answer {number} {score}", "model")}
        for score in (1, 0)
    ]
    return {"contents": [content(f"Question {number}")], "completions": completions}


def put(simulator: VertexSimulator, name: str, line: Callable[[int], dict[str, Any]]) -> str:
    lines = "\n".join(json.dumps(line(number)) for number in range(12))
    simulator.storage.put("data", name, lines.encode())
    return f"gs://data/{name}"


async def ended(client: Client, name: str | None) -> types.TuningJob:
    assert name
    for _ in range(100):
        job = await client.aio.tunings.get(name=name)
        if job.has_ended:
            return job
        await asyncio.sleep(0.05)
    raise TimeoutError(name)


async def test_supervised_tuning_to_a_model_that_answers(
    served: tuple[VertexSimulator, Client, str],
) -> None:
    simulator, client, _ = served
    job = await client.aio.tunings.tune(
        base_model="gemini-2.5-flash",
        training_dataset=types.TuningDataset(gcs_uri=put(simulator, "train.jsonl", supervised)),
        config=types.CreateTuningJobConfig(
            validation_dataset=types.TuningValidationDataset(
                gcs_uri=put(simulator, "valid.jsonl", supervised)
            ),
            tuned_model_display_name="trial",
            epoch_count=2,
            learning_rate_multiplier=0.5,
            adapter_size=types.AdapterSize.ADAPTER_SIZE_FOUR,
            labels={"team": "blue"},
        ),
    )
    assert job.state is types.JobState.JOB_STATE_PENDING
    done = await ended(client, job.name)
    assert done.has_succeeded
    assert done.labels == {"team": "blue"}
    assert done.supervised_tuning_spec
    told = done.supervised_tuning_spec.hyper_parameters
    assert told
    assert (told.epoch_count, told.adapter_size) == (2, types.AdapterSize.ADAPTER_SIZE_FOUR)
    assert done.tuning_data_stats
    counted = done.tuning_data_stats.supervised_tuning_data_stats
    assert counted
    assert (counted.tuning_step_count, counted.tuning_dataset_example_count) == (6, 12)
    assert done.tuning_job_metadata
    assert done.tuning_job_metadata.completed_step_count == 6
    assert done.end_time
    assert done.tuned_model
    assert [row.step for row in done.tuned_model.checkpoints or []] == [2, 4, 6]
    for model in (done.tuned_model.endpoint, "gemini-2.5-flash"):
        assert model
        said = await client.aio.models.generate_content(model=model, contents="Good day")
        assert "Good day" in (said.text or "")


async def test_the_tuned_model_is_tuned_further_by_preferences(
    served: tuple[VertexSimulator, Client, str],
) -> None:
    simulator, client, _ = served
    first = await client.aio.tunings.tune(
        base_model="gemini-2.5-flash",
        training_dataset=types.TuningDataset(gcs_uri=put(simulator, "train.jsonl", supervised)),
    )
    done = await ended(client, first.name)
    assert done.tuned_model
    assert done.tuned_model.model
    job = await client.aio.tunings.tune(
        base_model=done.tuned_model.model,
        training_dataset=types.TuningDataset(gcs_uri=put(simulator, "pairs.jsonl", preference)),
        config=types.CreateTuningJobConfig(
            method=types.TuningMethod.PREFERENCE_TUNING,
            beta=0.2,
            epoch_count=1,
            export_last_checkpoint_only=True,
        ),
    )
    done = await ended(client, job.name)
    assert done.has_succeeded
    assert done.preference_optimization_spec
    assert done.tuned_model
    assert len(done.tuned_model.checkpoints or []) == 1


async def test_jobs_are_listed_by_page_and_label_and_cancelled(
    served: tuple[VertexSimulator, Client, str],
) -> None:
    simulator, client, _ = served
    simulator.plan = Plan(queued=600)
    uri = put(simulator, "train.jsonl", supervised)
    names = []
    for number in range(3):
        job = await client.aio.tunings.tune(
            base_model="gemini-2.5-flash",
            training_dataset=types.TuningDataset(gcs_uri=uri),
            config=types.CreateTuningJobConfig(labels={"number": str(number)}),
        )
        names.append(job.name)
    pages = await client.aio.tunings.list(config=types.ListTuningJobsConfig(page_size=2))
    assert [job.name async for job in pages] == names[::-1]
    some = await client.aio.tunings.list(
        config=types.ListTuningJobsConfig(filter='labels.number="1"')
    )
    assert [job.name async for job in some] == [names[1]]
    assert names[0]
    await client.aio.tunings.cancel(name=names[0])
    done = await ended(client, names[0])
    assert done.state is types.JobState.JOB_STATE_CANCELLED
    assert done.error
    assert done.error.code == 1


async def test_refusals_are_googles(served: tuple[VertexSimulator, Client, str]) -> None:
    simulator, client, _ = served
    for model, uri, code, status in (
        ("gemini-0", put(simulator, "train.jsonl", supervised), 400, "INVALID_ARGUMENT"),
        ("gemini-2.5-flash", "gs://data/nothing.jsonl", 400, "INVALID_ARGUMENT"),
    ):
        with pytest.raises(errors.ClientError) as refused:
            await client.aio.tunings.tune(
                base_model=model, training_dataset=types.TuningDataset(gcs_uri=uri)
            )
        assert (refused.value.code, refused.value.status) == (code, status)
    with pytest.raises(errors.ClientError) as missing:
        await client.aio.tunings.get(name="projects/acme/locations/us-central1/tuningJobs/1")
    assert missing.value.code == 404
    simulator.accounts.revoke()
    with pytest.raises(errors.ClientError) as denied:
        await client.aio.tunings.list()
    assert denied.value.code == 401


async def test_a_service_account_gets_its_token(
    served: tuple[VertexSimulator, Client, str],
) -> None:
    simulator, _, url = served

    def credentials(number: int) -> Any:
        told = json.loads(service_account("acme", f"{url}/token", number))
        return accounts.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
            told, scopes=["https://www.googleapis.com/auth/cloud-platform"]
        )

    simulator.accounts.trust(service_account("acme"))
    known = credentials(0)
    await asyncio.to_thread(known.refresh, transport.Request())
    client = Client(
        vertexai=True,
        project="acme",
        location="us-central1",
        credentials=known,
        http_options=types.HttpOptions(base_url=url),
    )
    pages = await client.aio.tunings.list()
    assert [job async for job in pages] == []
    await client.aio.aclose()
    client.close()
    with pytest.raises(Exception, match="account not found"):
        await asyncio.to_thread(
            credentials(1).refresh,
            transport.Request(),
        )
