"""What is Together's own: markers in suffixes, uploads in three steps, rows of metrics, traffic."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest

from app.core import ids
from app.providers.base import OVER, Account, Data, Order, Placing, Status
from app.providers.errors import (
    ProviderBusy,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
)
from app.providers.openai import points_of
from app.providers.together import Together
from app.providers.together.cases import lines_of
from app.providers.together.jobs import checkpoints, event, sighting
from app.providers.together.metrics import csv_of, points
from app.providers.together.suffixes import (
    LONGEST_OWN_SUFFIX,
    LONGEST_SUFFIX,
    marked_suffix,
    unmarked,
)
from app.providers.urls import Allowed
from app.simulators.runs import Plan
from app.simulators.together import TogetherSimulator
from tests.providers.places import PLACES, place
from tests.providers.test_adapters import until
from tests.support import chat_lines, pair_lines

MODEL = PLACES["together"].base_model
World = tuple[TogetherSimulator, Together]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with place("together") as (simulator, adapter, _):
        assert isinstance(simulator, TogetherSimulator)
        assert isinstance(adapter, Together)
        yield simulator, adapter


def data(folder: Path, content: str, method: str = "supervised") -> Data:
    path = folder / "cases.jsonl"
    path.write_text(content)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Data(path, method, digest, content.count("\n") + 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "marker",
    ["ftjob-AAAA1111", "ftjob-0JKq7ZxY1bDmNpQrStUvW.99", "other_one-2.3", "lt-x", ids.new(ids.JOB)],
    ids=[
        "ours",
        "another-start",
        "underscore",
        "short",
        "new",
    ],  # the same in each process of xdist
)
@pytest.mark.parametrize("suffix", [None, "trial", "salt-lt-1", "a-much-too-long-suffix-of-mine"])
def test_a_marker_comes_back_from_its_suffix(marker: str, suffix: str | None) -> None:
    told = marked_suffix(marker, suffix)
    assert len(told) <= LONGEST_SUFFIX
    assert set(told) <= set(ids.ALPHABET) | {"-"}
    found, own = unmarked(told)
    assert found == marker
    assert (suffix or "").startswith(own or "")
    # A single job shows no suffix, but the name of its model.
    seen = sighting({"id": "ft-1", "model_output_name": f"acme/Llama-{told}-1a2b3c4d"}, str)
    assert seen.marker == marker


def test_suffixes_of_others_and_room_for_ours() -> None:
    assert unmarked("trial") == (None, "trial")
    assert unmarked(None) == (None, None)
    suffix = "x" * LONGEST_OWN_SUFFIX
    assert unmarked(marked_suffix(f"{ids.new(ids.JOB)}.99", suffix))[1] == suffix


def test_cases_in_its_form() -> None:
    call = {"name": "look", "parameters": {}}
    case = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "There.", "weight": 0},
        ],
        "functions": [call],
        "parallel_tool_calls": False,
    }
    made = orjson.loads(lines_of(orjson.dumps(case) + b"\n\n", "supervised"))
    assert [message["role"] for message in made["messages"]] == ["system", "user", "assistant"]
    assert made["messages"][2]["weight"] == 0
    assert made["tools"] == [{"type": "function", "function": call}]
    assert made.keys() == {"messages", "tools"}
    pair = orjson.loads(pair_lines(1))
    pair["preferred_output"] *= 2
    with pytest.raises(ProviderRefused, match="Line 1"):
        lines_of(orjson.dumps(pair), "dpo")


def test_rows_of_metrics_become_steps() -> None:
    train = {"timestamp": 1_779_196_193_564_587_000, "train/global_step": 3, "train/epoch": 0.5}
    rows = [
        {**train, "train/loss": 2.4, "train/grad_norm": 1.2, "train/learning_rate": 1e-5},
        {"train/global_step": 3, "eval/loss": 2.5, "eval/rewards/margins": 0.4},
        {"step": 4, "loss": 2.3, "unheard_of": 1.0},
        {"global_step": 5, "train_loss": 2.2, "val_loss": 2.1},
        {"loss": 1.0},
    ]
    third, fourth, fifth = points(rows)
    assert third.values == {
        "training_loss": 2.4,
        "gradient_norm": 1.2,
        "learning_rate": 1e-5,
        "validation_loss": 2.5,
        "validation_reward_margin": 0.4,
    }
    assert (third.epoch, third.at and third.at.year) == (0.5, 2026)
    assert (fourth.step, fourth.key, fourth.values) == (4, "metrics:4", {"training_loss": 2.3})
    # It was told before its evaluation was there, or may have been: then it is told again.
    assert {third.key, fifth.key} == {"metrics:3:eval", "metrics:5:eval"}
    read = points_of(csv_of([third, fourth, fifth]))
    assert read[0].values == {"training_loss": 2.4, "validation_loss": 2.5}
    assert [item.step for item in read] == [3, 4, 5]


def test_events_in_old_and_new_spelling() -> None:
    row = {"created_at": "2026-11-01T00:00:00Z", "type": "JOB_ERROR", "message": "No."}
    old, new = event(row), event({**row, "type": "job_error", "level": "legacy_ierror"})
    assert (old.key, old.level, new.level) == (new.key, "error", "error")
    assert event({**row, "type": "warning", "level": "legacy_iwarning"}).level == "warn"
    assert event({**row, "created_at": "2026-11-01T00:00:01Z"}).key != old.key


def test_a_checkpoint_is_told_again_when_it_can_be_called() -> None:
    row = {"step": 4, "path": "s3://a", "checkpoint": "adapter"}
    merged = {"step": 4, "path": "s3://b", "checkpoint": "model", "object_name": "acme/m"}
    (first,), (second,) = checkpoints([row]), checkpoints([merged, row])
    assert (first.model, first.provider_id) == (None, "s3://a")
    assert (second.model, second.provider_id) == ("acme/m", "s3://b")
    assert first.key != second.key


def test_a_job_as_it_shows_itself() -> None:
    seen = sighting(
        {
            "id": "ft-1",
            "status": "cancel_requested",
            "total_price": 1_250_000_000,
            "token_count": 900,
            "progress": {"estimate_available": True, "seconds_remaining": 60},
            "training_type": {"type": "Full"},
            "batch_size": "max",
        },
        str,
    )
    assert (seen.status, seen.ending, seen.cost) == (Status.RUNNING, True, 1.25)
    assert seen.trained_tokens == 900
    assert seen.estimated_finish
    assert seen.resolved == {"adapter": "full"}
    failed = sighting({"id": "ft-1", "status": "user_error"}, str)
    assert failed.error
    assert failed.error["code"] == "user_error"


async def test_an_upload_in_three_steps(world: World, tmp_path: Path) -> None:
    simulator, adapter = world
    cases = data(tmp_path, chat_lines(12))
    id = await adapter.upload(cases)
    assert simulator.store_requests == [("PUT", 200)]  # 400 with the credential
    assert simulator.requests[:2] == ["POST /v1/files", f"POST /v1/files/{id}/preprocess"]
    # Once more: it is there.
    assert await adapter.upload(cases) == id
    assert len(simulator.files) == len(simulator.store_requests) == 1
    # It was put, and then whoever did so ended.
    simulator.files[id].processing_since = None
    assert await adapter.upload(cases) == id
    assert simulator.state_of(simulator.files[id]) == "COMPLETED"


async def test_an_invalid_file_is_refused_with_its_report(world: World, tmp_path: Path) -> None:
    _, adapter = world
    only = {"messages": [{"role": "user", "content": "Where?"}]}
    with pytest.raises(ProviderRefused, match="no message is the assistant's") as refused:
        await adapter.upload(data(tmp_path, orjson.dumps(only).decode()))
    assert refused.value.reason == "invalid_format"


async def test_a_store_in_our_own_network_is_not_gone_to(world: World, tmp_path: Path) -> None:
    simulator, adapter = world
    url = adapter.url("base_url")
    strict = Together(adapter.account, adapter.http._client, Allowed([url]))
    with pytest.raises(ProviderUnreachable, match="not used"):
        await strict.upload(data(tmp_path, chat_lines(12)))
    assert simulator.store_requests == []


async def test_what_a_job_is_told(world: World, tmp_path: Path) -> None:
    simulator, adapter = world
    training = await adapter.upload(data(tmp_path, pair_lines(12), "dpo"))
    validation = await adapter.upload(data(tmp_path, pair_lines(8, "item"), "dpo"))
    told = {
        "n_epochs": 2,
        "batch_size": 4,
        "learning_rate": 2e-5,
        "lora_rank": 16,
        "max_length": 2048,
        "beta": 0.3,
        "early_stopping": {"patience": 6, "min_delta": 0.01},
    }
    order = Order(
        "ftjob-AAAA1111", MODEL, "dpo", training, validation, told, suffix="trial", seed=2**31 + 5
    )
    made = await adapter.create(order)
    asked = simulator.jobs[made.id].asked
    assert asked["training_method"] == {"method": "dpo", "dpo_beta": 0.3}
    assert asked["training_type"] == {"type": "Lora", "lora_r": 16, "lora_alpha": 32}
    assert (asked["max_seq_length"], asked["random_seed"], asked["n_evals"]) == (2048, 5, 8)
    assert asked["early_stopping_patience"] == 6
    assert asked["suffix"] == "trial-lt-AAAA1111"
    assert (made.marker, made.suffix, made.seed) == ("ftjob-AAAA1111", "trial", 5)
    done = await until(adapter, made.id, *OVER)
    assert done.status is Status.SUCCEEDED
    assert done.marker == "ftjob-AAAA1111"
    told.pop("early_stopping")  # of which a job shows nothing
    assert done.resolved == {**told, "adapter": "lora"}
    assert (done.cost or 0) > 0
    assert done.trained_tokens
    assert done.started_at
    items = await adapter.news(done, None)
    assert any("validation_loss" in item.values for item in items)
    results = await adapter.results(done)
    assert len(points_of(results[0].content)) == 12


async def test_full_training(world: World, tmp_path: Path) -> None:
    simulator, adapter = world
    training = await adapter.upload(data(tmp_path, chat_lines(12)))
    order = Order(
        "ftjob-AAAA1111", MODEL, "supervised", training, hyperparameters={"adapter": "full"}
    )
    made = await adapter.create(order)
    assert simulator.jobs[made.id].asked["training_type"] == {"type": "Full"}
    assert (made.resolved or {})["adapter"] == "full"


async def test_a_cancelled_job_is_first_ending(world: World, tmp_path: Path) -> None:
    simulator, adapter = world
    simulator.plan = Plan(validating=0.1, stopping=0.5)
    training = await adapter.upload(data(tmp_path, chat_lines(12)))
    made = await adapter.create(Order("ftjob-AAAA1111", MODEL, "supervised", training))
    await adapter.cancel(made.id)
    seen = await adapter.get(made.id)
    assert (seen.raw, seen.status, seen.ending) == ("cancel_requested", Status.RUNNING, True)
    await adapter.cancel(made.id)
    assert (await until(adapter, made.id, *OVER)).status is Status.CANCELLED


async def test_long_jobs_are_not_told_whole_each_time(world: World, tmp_path: Path) -> None:
    simulator, adapter = world
    simulator.plan = Plan(validating=0.05, queued=0.05, steps=400, step_seconds=0.0005)
    training = await adapter.upload(data(tmp_path, chat_lines(12)))
    made = await adapter.create(Order("ftjob-AAAA1111", MODEL, "supervised", training))
    done = await until(adapter, made.id, *OVER)
    steps = [item.step for item in await adapter.news(done, "metrics:300") if item.values]
    assert (min(map(int, filter(None, steps))), len(steps)) == (250, 151)
    assert len([item for item in await adapter.news(done, None) if item.values]) == 400


async def test_no_traffic_before_it_is_ready(world: World, tmp_path: Path) -> None:
    simulator, adapter = world
    simulator.plan = Plan(validating=0.05, queued=0.4, stopping=0.1, steps=4, step_seconds=0.02)
    training = await adapter.upload(data(tmp_path, chat_lines(12)))
    made = await adapter.create(Order("ftjob-AAAA1111", MODEL, "supervised", training))
    model = (await until(adapter, made.id, *OVER)).model or ""
    placed = await adapter.deploy(Placing("luthier-dep-1", model, MODEL, "cr_large"))
    endpoint = simulator.endpoints[placed.reference.partition("/")[0]]
    (deployment,) = endpoint.deployments.values()
    assert (placed.status, placed.raw, endpoint.split) == ("starting", "PROVISIONING", [])
    assert placed.target == "simulated/luthier-dep-1"
    assert deployment.config == "projects/proj_simulated/configs/cr_large"
    for _ in range(100):
        if (placed := await adapter.deployment(placed.reference)).status == "ready":
            break
        await asyncio.sleep(0.05)
    assert endpoint.split == [{"deploymentId": deployment.id, "weight": 1}]
    # It is not gone before it has stopped, which takes a while: so once more.
    simulator.plan = Plan(stopping=0.3)
    with pytest.raises(ProviderBusy, match="still stopping"):
        await adapter.undeploy(placed.reference)
    assert (await adapter.deployment(placed.reference)).status == "stopped"
    await asyncio.sleep(0.35)
    await adapter.undeploy(placed.reference)
    assert simulator.endpoints == {}
    with pytest.raises(ProviderMissing):
        await adapter.deployment(placed.reference)


async def test_models_and_what_is_missing(world: World) -> None:
    simulator, adapter = world
    names = {model.name for model in await adapter.models()}
    assert {offer.name for offer in adapter.offers} <= names
    simulator.cheats.expired_models = [MODEL]
    assert MODEL not in {model.name for model in await adapter.models()}
    with pytest.raises(ProviderMissing):
        await adapter.deploy(Placing("luthier-dep-1", "simulated/nothing"))
    assert simulator.endpoints == {}
    settings = {"base_url": f"{adapter.url('base_url')}/v1"}
    async with httpx.AsyncClient(trust_env=False) as client:
        other = Together(Account(adapter.account.secrets, settings), client, adapter.allowed)
        await other.check()
        with pytest.raises(ProviderRefused, match="'project'"):
            await other.deploy(Placing("luthier-dep-1", "simulated/nothing"))
