"""OpenAI's own SDK drives the simulated OpenAI and the simulated Azure: what it believes is true.

The strict client refuses answers that lack a required field or hold an unknown word.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import openai
import pytest
import uvicorn
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.types.fine_tuning import FineTuningJob
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.simulators.azure import AzureSimulator
from app.simulators.openai import OpenAISimulator
from app.simulators.runs import Plan
from tests.support import chat_lines, item_lines, pair_lines

KEY, AZURE_KEY = "sk-simulated-key-1234567890", "azure-simulated-key-1234567890"
QUICK = Plan(validating=0.02, queued=0.02, steps=6, step_seconds=0.01)
SLOW = Plan(validating=0.02, queued=0.02, steps=600, step_seconds=0.05)
BASE = "gpt-4.1-nano-2025-04-14"
TERMINAL = {"succeeded", "failed", "cancelled"}


@pytest.fixture
async def simulated() -> AsyncIterator[tuple[OpenAISimulator, AsyncOpenAI]]:
    simulator = OpenAISimulator(QUICK, seed=1)
    async with simulator.served() as url, strict(f"{url}/v1") as client:
        yield simulator, client


@pytest.fixture
async def azure() -> AsyncIterator[tuple[AzureSimulator, str]]:
    simulator = AzureSimulator(QUICK, seed=1)
    simulator.processing = 0
    async with simulator.served() as url:
        yield simulator, url


def strict(url: str, key: str = KEY) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=url, api_key=key, max_retries=0, _strict_response_validation=True, timeout=5
    )


async def upload(client: AsyncOpenAI, content: str) -> str:
    made = await client.files.create(file=("cases.jsonl", content.encode()), purpose="fine-tune")
    return made.id


async def until(
    client: AsyncOpenAI, id: str, done: Callable[[FineTuningJob], bool] | None = None
) -> FineTuningJob:
    for _ in range(200):
        job = await client.fine_tuning.jobs.retrieve(id)
        if done(job) if done else job.status in TERMINAL:
            return job
        await asyncio.sleep(0.02)
    raise TimeoutError(job.status)


async def test_files(simulated: tuple[OpenAISimulator, AsyncOpenAI]) -> None:
    _, client = simulated
    content = chat_lines(12)
    first, second = await upload(client, content), await upload(client, chat_lines(10))
    assert (await client.files.retrieve(first)).bytes == len(content)
    assert (await client.files.wait_for_processing(first)).status == "processed"
    assert [one.id async for one in client.files.list(limit=1, purpose="fine-tune")] == [
        second,
        first,
    ]
    assert [one.id async for one in client.files.list(order="asc")] == [first, second]
    assert not [one async for one in client.files.list(purpose="batch")]
    assert (await client.files.content(first)).content == content.encode()
    assert (await client.files.delete(first)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(first)


async def test_a_supervised_job(simulated: tuple[OpenAISimulator, AsyncOpenAI]) -> None:
    _, client = simulated
    made = await client.fine_tuning.jobs.create(
        model=BASE,
        training_file=await upload(client, chat_lines(20)),
        validation_file=await upload(client, chat_lines(10, "item")),
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        metadata={"k": "v"},
        seed=7,
        suffix="trial",
    )
    assert (made.status, made.seed, made.metadata) == ("validating_files", 7, {"k": "v"})
    assert made.fine_tuned_model is None
    assert not made.result_files
    done = await until(client, made.id)
    assert done.status == "succeeded"
    assert done.hyperparameters.n_epochs == 2
    assert isinstance(done.hyperparameters.batch_size, int)
    assert done.fine_tuned_model
    assert "trial" in done.fine_tuned_model
    assert done.finished_at
    assert done.trained_tokens
    result = await client.files.content(done.result_files[0])
    assert result.content
    assert (await client.files.retrieve(done.result_files[0])).purpose == "fine-tune-results"
    with pytest.raises(openai.BadRequestError):
        await client.fine_tuning.jobs.cancel(made.id)


async def test_its_events_and_checkpoints_come_in_pages(
    simulated: tuple[OpenAISimulator, AsyncOpenAI],
) -> None:
    _, client = simulated
    made = await client.fine_tuning.jobs.create(
        model=BASE, training_file=await upload(client, chat_lines(20))
    )
    await until(client, made.id)
    events = [one async for one in client.fine_tuning.jobs.list_events(made.id, limit=3)]
    assert len({one.id for one in events}) == len(events) >= QUICK.steps + 4
    assert "completed" in events[0].message  # the newest first
    steps = [one.data for one in events if one.type == "metrics"]
    assert [one["step"] for one in steps] == list(range(QUICK.steps, 0, -1))  # type: ignore[index]
    first = await client.fine_tuning.jobs.list_events(made.id, limit=1)
    assert first.has_more
    saved = [one async for one in client.fine_tuning.jobs.checkpoints.list(made.id, limit=1)]
    assert [one.step_number for one in saved] == [6, 4, 2]
    assert (
        saved[0].fine_tuned_model_checkpoint
        == (await client.fine_tuning.jobs.retrieve(made.id)).fine_tuned_model
    )
    assert saved[1].fine_tuned_model_checkpoint.endswith(":ckpt-step-4")
    assert saved[1].metrics.train_loss


async def test_preferences_and_graders(simulated: tuple[OpenAISimulator, AsyncOpenAI]) -> None:
    _, client = simulated
    pairs = await client.fine_tuning.jobs.create(
        model=BASE,
        training_file=await upload(client, pair_lines(20)),
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "n_epochs": 1}}},
    )
    assert pairs.method
    assert pairs.method.dpo
    assert pairs.method.dpo.hyperparameters
    assert pairs.method.dpo.hyperparameters.beta == 0.1
    questions = await client.fine_tuning.jobs.create(
        model="o4-mini-2025-04-16",
        training_file=await upload(client, item_lines(20)),
        validation_file=await upload(client, item_lines(10, "thing")),
        method={
            "type": "reinforcement",
            "reinforcement": {
                "grader": {
                    "type": "string_check",
                    "name": "right",
                    "input": "{{ sample.output_text }}",
                    "reference": "{{ item.word }}",
                    "operation": "eq",
                },
                "hyperparameters": {"eval_interval": 2, "reasoning_effort": "low"},
            },
        },
    )
    assert questions.method
    assert questions.method.reinforcement
    assert questions.method.reinforcement.grader.type == "string_check"
    for made in (pairs, questions):
        done = await until(client, made.id)
        assert done.status == "succeeded", done.error


async def test_lists_are_filtered_and_come_in_pages(
    simulated: tuple[OpenAISimulator, AsyncOpenAI],
) -> None:
    simulator, client = simulated
    file = await upload(client, chat_lines(20))
    made = []
    for number in range(4):
        job = await client.fine_tuning.jobs.create(
            model=BASE,
            training_file=file,
            metadata={"k": "odd" if number % 2 else "even"} if number < 3 else None,
        )
        made.append(job.id)
    jobs = client.fine_tuning.jobs
    simulator.requests.clear()
    assert [one.id async for one in jobs.list(limit=1)] == made[::-1]
    assert len(simulator.requests) == 4
    found = [one.id async for one in jobs.list(limit=1, metadata={"k": "even"})]
    assert found == [made[2], made[0]]
    assert [one.id async for one in jobs.list(extra_query={"metadata": "null"})] == [made[3]]
    assert not [one async for one in jobs.list(metadata={"k": "none"})]


async def test_pausing_resuming_cancelling(
    simulated: tuple[OpenAISimulator, AsyncOpenAI],
) -> None:
    simulator, client = simulated
    simulator.plan = Plan(validating=60, queued=0, steps=600, step_seconds=0.05)
    jobs = client.fine_tuning.jobs
    made = await jobs.create(model=BASE, training_file=await upload(client, chat_lines(20)))
    with pytest.raises(openai.BadRequestError):
        await jobs.pause(made.id)
    simulator.move(61)
    # `paused` is in OpenAI's examples but not in its list of words.
    with pytest.raises(openai.APIResponseValidationError):
        await jobs.pause(made.id)
    async with AsyncOpenAI(base_url=client.base_url, api_key=KEY) as lenient:
        assert (await lenient.fine_tuning.jobs.retrieve(made.id)).status == "paused"  # type: ignore[comparison-overlap]
    assert (await jobs.resume(made.id)).status == "queued"
    assert (await jobs.cancel(made.id)).status in ("running", "cancelled")
    assert (await until(client, made.id)).status == "cancelled"


async def test_bad_data_and_its_reason(simulated: tuple[OpenAISimulator, AsyncOpenAI]) -> None:
    _, client = simulated
    made = await client.fine_tuning.jobs.create(
        model=BASE, training_file=await upload(client, chat_lines(3))
    )
    done = await until(client, made.id)
    assert done.status == "failed"
    assert done.error
    assert (done.error.code, done.error.param) == ("invalid_training_file", "training_file")
    events = [one async for one in client.fine_tuning.jobs.list_events(made.id)]
    assert events[0].level == "error"


async def test_models_and_chat(simulated: tuple[OpenAISimulator, AsyncOpenAI]) -> None:
    _, client = simulated
    made = await client.fine_tuning.jobs.create(
        model=BASE, training_file=await upload(client, chat_lines(20))
    )
    name = (await until(client, made.id)).fine_tuned_model or ""
    assert {name, BASE} <= {one.id async for one in client.models.list()}
    assert (await client.models.retrieve(name)).owned_by == "org-simulated"
    said = await client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": "Good day"}]
    )
    assert "Good day" in (said.choices[0].message.content or "")
    assert said.usage
    stream = await client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": "Good day"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "Good day" in "".join(words)
    assert chunks[-1].usage
    assert (await client.models.delete(name)).deleted
    with pytest.raises(openai.NotFoundError) as gone:
        await client.models.retrieve(name)
    assert gone.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model=name, messages=[])


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, asyncio.Queue[tuple[dict[str, str], bytes]]]]:
    """A server that takes webhooks: its URL, and what arrives."""
    arrived: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def take(request: Request) -> Response:
        arrived.put_nowait((dict(request.headers), await request.body()))
        return Response(status_code=204)

    app = Starlette(routes=[Route("/hook", take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/hook", arrived
    finally:
        server.should_exit = True
        await task


async def test_a_webhook_arrives_and_is_unwrapped(
    simulated: tuple[OpenAISimulator, AsyncOpenAI],
) -> None:
    _, client = simulated
    async with listening() as (url, arrived):
        made = await client.webhooks.create(
            name="mine", url=url, event_types=["fine_tuning.job.succeeded"]
        )
        assert made.signing_secret.startswith("whsec_")
        assert [one.id async for one in client.webhooks.list()] == [made.id]
        job = await client.fine_tuning.jobs.create(
            model=BASE, training_file=await upload(client, chat_lines(20))
        )
        headers, body = await asyncio.wait_for(arrived.get(), 5)
        event = client.webhooks.unwrap(body, headers, secret=made.signing_secret)
        assert event.type == "fine_tuning.job.succeeded"
        assert event.data.id == job.id
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(body + b" ", headers, secret=made.signing_secret)
        assert headers["webhook-id"].startswith("wh_")
        assert json.loads(body)["object"] == "event"
        assert (await client.webhooks.delete(made.id)).deleted


async def test_refusals_have_their_classes_and_are_not_tried_again(
    simulated: tuple[OpenAISimulator, AsyncOpenAI],
) -> None:
    simulator, client = simulated
    simulator.requests.clear()
    async with AsyncOpenAI(base_url=client.base_url, api_key=KEY) as eager:
        with pytest.raises(openai.NotFoundError) as missing:
            await eager.fine_tuning.jobs.retrieve("ftjob-none")
        assert (missing.value.type, missing.value.code) == ("invalid_request_error", "not_found")
        assert missing.value.request_id
        with pytest.raises(openai.BadRequestError) as unknown:
            await eager.fine_tuning.jobs.create(model=BASE, training_file="file-none")
        assert unknown.value.param == "training_file"
        with pytest.raises(openai.NotFoundError):
            await eager.fine_tuning.jobs.list(after="ftjob-none")
    async with AsyncOpenAI(base_url=client.base_url, api_key="wrong") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.fine_tuning.jobs.list()
    assert len(simulator.requests) == 4


async def test_trouble_is_tried_again(simulated: tuple[OpenAISimulator, AsyncOpenAI]) -> None:
    simulator, client = simulated
    async with AsyncOpenAI(base_url=client.base_url, api_key=KEY, max_retries=1) as patient:
        simulator.cheats.throttle, simulator.cheats.retry_after = 1, 0.01
        assert await patient.models.list()
        simulator.cheats.throttle = 2
        with pytest.raises(openai.RateLimitError):
            await patient.models.list()
        simulator.cheats.errors = 2
        with pytest.raises(openai.InternalServerError):
            await patient.models.list()


@pytest.mark.parametrize("surface", ["v1", "classic"])
async def test_azure(surface: str, azure: tuple[AzureSimulator, str]) -> None:
    simulator, url = azure
    simulator.plan = SLOW
    client: AsyncOpenAI = (
        strict(f"{url}/openai/v1", AZURE_KEY)
        if surface == "v1"
        else AsyncAzureOpenAI(
            azure_endpoint=url, api_version="2025-04-01-preview", api_key=AZURE_KEY, max_retries=0
        )
    )
    async with client:
        jobs = client.fine_tuning.jobs
        file = await upload(client, chat_lines(20))
        made = await jobs.create(
            model=BASE,
            training_file=file,
            suffix="trial",
            extra_body={"trainingType": "globalstandard"},
        )
        other = await jobs.create(model=BASE, training_file=file)
        assert [one.id async for one in jobs.list(limit=1)] == [other.id, made.id]
        await until(client, made.id, lambda job: bool(simulator.runs[job.id].points))
        assert (await jobs.retrieve(made.id)).status == "running"
        await jobs.cancel(made.id)
        assert (await until(client, made.id)).status == "cancelled"
        events = [one async for one in jobs.list_events(made.id, limit=2)]
        assert "cancelled" in events[0].message
        assert len({one.id for one in events}) == len(events) > 3
        with pytest.raises(openai.BadRequestError):
            await jobs.cancel(made.id)
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="none", messages=[])
        assert missing.value.code == ("notFound" if surface == "classic" else "DeploymentNotFound")
    prefix = "/openai/v1/" if surface == "v1" else "/openai/"
    assert all(one.split()[1].startswith(prefix) for one in simulator.requests)


async def test_azure_refuses_strangers(azure: tuple[AzureSimulator, str]) -> None:
    _, url = azure
    async with strict(f"{url}/openai/v1", "wrong") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.fine_tuning.jobs.list()


async def test_azure_keeps_webhooks_elsewhere(azure: tuple[AzureSimulator, str]) -> None:
    simulator, url = azure
    async with AsyncOpenAI(base_url=f"{url}/openai/v1/dashboard", api_key=AZURE_KEY) as client:
        made = await client.webhooks.create(
            name="mine", url="https://mine.example", event_types=["fine_tuning.job.failed"]
        )
        assert made.signing_secret == simulator.endpoints[made.id].secret
        assert (await client.webhooks.delete(made.id)).deleted
