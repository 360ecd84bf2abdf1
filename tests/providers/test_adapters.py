"""Every adapter against its provider's simulator: the same expectations of all."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from app.providers.base import OVER, Account, Adapter, Data, Order, Placing, Sighting, Status
from app.providers.errors import (
    ProviderBusy,
    ProviderDenied,
    ProviderMissing,
    ProviderUnreachable,
    Unsupported,
    UrlNotAllowed,
)
from app.providers.openai import points_of
from app.providers.urls import Allowed
from app.simulators.runs import Plan
from app.simulators.simulator import Simulator
from tests.providers.places import PLACES, Place, place
from tests.support import chat_lines, pair_lines


@pytest.fixture(params=sorted(PLACES))
async def served(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Place, Simulator, Adapter]]:
    async with place(request.param) as (simulator, adapter, _):
        yield PLACES[request.param], simulator, adapter


def data(
    folder: Path,
    content: str,
    method: str = "supervised",
    role: str = "training",
    base_model: str = "",
) -> Data:
    path = folder / f"{role}-{method}.jsonl"
    path.write_text(content)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Data(path, method, digest, content.count("\n"), role, base_model)  # type: ignore[arg-type]


async def order(where: Place, adapter: Adapter, folder: Path, marker: str, **more: object) -> Order:
    training = await adapter.upload(data(folder, chat_lines(20), base_model=where.base_model))
    validation = await adapter.upload(
        data(folder, chat_lines(10, "item"), role="validation", base_model=where.base_model)
    )
    fields = {"suffix": "trial", "seed": 5, "hyperparameters": where.hyperparameters} | more
    return Order(
        marker=marker,
        base_model=where.base_model,
        method="supervised",
        training=training,
        validation=validation,
        case_count=20,
        validation_count=10,
        **fields,  # type: ignore[arg-type]
    )


async def until(adapter: Adapter, id: str, *wanted: Status, seconds: float = 10) -> Sighting:
    for _ in range(int(seconds / 0.05)):
        found = await adapter.get(id)
        if found.status in wanted:
            return found
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{id} is {found.raw}")


async def test_a_job_runs_to_its_model(
    served: tuple[Place, Simulator, Adapter], tmp_path: Path
) -> None:
    where, _, adapter = served
    await adapter.check()
    made = await adapter.create(await order(where, adapter, tmp_path, "ftjob-AAAA1111"))
    assert made.marker == "ftjob-AAAA1111"
    assert made.status in (Status.PENDING, Status.VALIDATING, Status.QUEUED, Status.RUNNING)
    done = await until(adapter, made.id, *OVER)
    assert done.status is Status.SUCCEEDED
    assert done.model
    assert done.method == "supervised"
    assert where.base_model in done.base_model or done.base_model in where.base_model
    assert done.created_at
    assert done.finished_at
    assert (done.resolved or {}).get("n_epochs") == where.hyperparameters.get("n_epochs")
    found = await adapter.find("ftjob-AAAA1111")
    assert found
    assert found.id == made.id
    assert await adapter.find("ftjob-BBBB2222") is None
    assert made.id in [one.id for one in await adapter.listing(10)]


async def test_its_steps_and_checkpoints_are_told_once_each(
    served: tuple[Place, Simulator, Adapter], tmp_path: Path
) -> None:
    where, _, adapter = served
    made = await adapter.create(await order(where, adapter, tmp_path, "ftjob-AAAA1111"))
    done = await until(adapter, made.id, *OVER)
    news = await adapter.news(done, None)
    assert len({item.key for item in news}) == len(news)
    capable = adapter.capabilities
    points = {item.step: item for item in news if item.kind == "metrics"}
    if not points:
        points = {
            item.step: item
            for result in await adapter.results(done)
            for item in points_of(result.content)
        }
    if capable.metrics:
        assert points[12].values["training_loss"] < points[1].values["training_loss"]  # type: ignore[operator]
        assert sorted(points) == list(range(1, 13))  # type: ignore[type-var]
    if capable.messages == "events":
        assert [item for item in news if item.kind == "message"]
    checkpoints = [item for item in news if item.kind == "checkpoint"]
    assert bool(checkpoints) == capable.checkpoints
    again = await adapter.news(done, news[-1].key if news else None)
    assert {item.key for item in again} <= {item.key for item in news}


async def test_preferences(served: tuple[Place, Simulator, Adapter], tmp_path: Path) -> None:
    where, _, adapter = served
    if "dpo" not in adapter.capabilities.methods:
        pytest.skip("it takes no preferences")
    training = await adapter.upload(data(tmp_path, pair_lines(20), "dpo"))
    asked = Order("ftjob-CCCC3333", where.base_model, "dpo", training, case_count=20)
    done = await until(adapter, (await adapter.create(asked)).id, *OVER)
    assert done.status is Status.SUCCEEDED, done
    assert done.method == "dpo"


async def test_cancelling(served: tuple[Place, Simulator, Adapter], tmp_path: Path) -> None:
    where, _, adapter = served
    made = await adapter.create(await order(where, adapter, tmp_path, "ftjob-DDDD4444"))
    await adapter.cancel(made.id)
    done = await until(adapter, made.id, *OVER)
    assert done.status is Status.CANCELLED
    await adapter.cancel(made.id)


async def test_pausing(served: tuple[Place, Simulator, Adapter], tmp_path: Path) -> None:
    where, simulator, adapter = served
    made = await adapter.create(await order(where, adapter, tmp_path, "ftjob-EEEE5555"))
    if not adapter.capabilities.pause:
        with pytest.raises(Unsupported):
            await adapter.pause(made.id)
        return
    await until(adapter, made.id, Status.RUNNING)
    for _ in range(100):
        if simulator.runs[made.id].points:
            break
        await asyncio.sleep(0.02)
        await adapter.get(made.id)
    await adapter.pause(made.id)
    await until(adapter, made.id, Status.PAUSED)
    await adapter.pause(made.id)
    await adapter.resume(made.id)
    assert (await until(adapter, made.id, *OVER)).status is Status.SUCCEEDED


async def test_bad_data_fails_the_job_with_its_reason(
    served: tuple[Place, Simulator, Adapter], tmp_path: Path
) -> None:
    where, simulator, adapter = served
    asked = await order(where, adapter, tmp_path, "ftjob-FFFF6666")
    made = await adapter.create(asked)
    simulator.runs[made.id].failure = ("bad_data", "Line 3 is not an example.", "training_file")
    done = await until(adapter, made.id, *OVER)
    assert done.status is Status.FAILED
    assert done.error
    assert "Line 3" in done.error["message"]


async def test_a_lost_answer_leaves_a_job_to_be_found(
    served: tuple[Place, Simulator, Adapter], tmp_path: Path
) -> None:
    where, simulator, adapter = served
    asked = await order(where, adapter, tmp_path, "ftjob-GGGG7777")
    simulator.cheats.lose_answers = 1
    with pytest.raises(ProviderUnreachable) as lost:
        await adapter.create(asked)
    assert lost.value.sent
    found = await adapter.find("ftjob-GGGG7777")
    assert found
    assert simulator.creates == 1
    if adapter.capabilities.repeatable_create:
        assert (await adapter.create(asked)).id == found.id
    assert len(simulator.runs) == 1


async def test_trouble_is_typed(served: tuple[Place, Simulator, Adapter], tmp_path: Path) -> None:
    where, simulator, adapter = served
    simulator.plan = Plan(queued=600)
    made = await adapter.create(await order(where, adapter, tmp_path, "ftjob-HHHH8888"))
    simulator.cheats.errors = 2  # retried
    await adapter.get(made.id)
    simulator.cheats.throttle, simulator.cheats.retry_after = 1, 0
    await adapter.get(made.id)
    simulator.cheats.throttle, simulator.cheats.retry_after = 1, 3600
    with pytest.raises(ProviderBusy) as busy:
        await adapter.get(made.id)
    assert busy.value.seconds == 3600
    simulator.cheats.vanished = [made.id]
    adapter.http._pace._closed_until = 0  # the pause that was asked for
    with pytest.raises(ProviderMissing):
        await adapter.get(made.id)
    simulator.cheats.vanished, simulator.cheats.word = [], "contemplating"
    seen = await adapter.get(made.id)
    assert (seen.status, seen.raw) == (None, "contemplating")


async def test_a_model_is_made_callable_and_answers(
    served: tuple[Place, Simulator, Adapter], tmp_path: Path
) -> None:
    where, _, adapter = served
    made = await adapter.create(await order(where, adapter, tmp_path, "ftjob-JJJJ9999"))
    done = await until(adapter, made.id, *OVER)
    assert done.model
    placing = Placing("luthier-dep-1", done.model, where.base_model)
    placed = await adapter.deploy(placing)
    assert (await adapter.deploy(placing)).reference == placed.reference
    for _ in range(100):
        if placed.status == "ready":
            break
        await asyncio.sleep(0.05)
        placed = await adapter.deployment(placed.reference)
    assert placed.status == "ready"
    question = {"model": "ours", "messages": [{"role": "user", "content": "Good day"}]}
    async with adapter.chat(placed.target, question) as reply:
        whole = b"".join([chunk async for chunk in reply.chunks])
    assert reply.status == 200, whole
    said = orjson.loads(whole)
    assert "Good day" in said["choices"][0]["message"]["content"]
    assert said["object"] == "chat.completion"
    async with adapter.chat(placed.target, {**question, "stream": True}) as reply:
        streamed = b"".join([chunk async for chunk in reply.chunks]).decode()
    assert reply.content_type.startswith("text/event-stream")
    lines = [line[6:] for line in streamed.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    assert "Good day" in "".join(delta.get("content") or "" for delta in deltas)
    await adapter.undeploy(placed.reference)
    await adapter.undeploy(placed.reference)


async def test_a_wrong_key_is_denied_and_not_quoted(
    served: tuple[Place, Simulator, Adapter],
) -> None:
    where, _, adapter = served
    wrong = {name: f"wrong-secret-{name}-000" for name in adapter.account.secrets}
    account = Account({**adapter.account.secrets, **wrong}, adapter.account.settings)
    other = where.adapter(account, adapter.http._client, adapter.allowed)
    with pytest.raises(ProviderDenied) as denied:
        await other.check()
    assert not any(secret in str(denied.value) for secret in wrong.values())


async def test_a_key_is_sent_nowhere_else(served: tuple[Place, Simulator, Adapter]) -> None:
    where, _, adapter = served
    for url in ("https://evil.example", "http://127.0.0.1:9", "https://user@api.openai.com"):
        for name in adapter.urls:
            account = Account(adapter.account.secrets, {**adapter.account.settings, name: url})
            with pytest.raises(UrlNotAllowed):
                where.adapter(account, adapter.http._client, Allowed())
