"""What only Fireworks' adapter does: names, storage behind signed URLs, metrics, checkpoints."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from app.providers.base import OVER, Data, Order, Placing, Sighting, Status
from app.providers.errors import ProviderMissing, ProviderRefused, ProviderUnreachable
from app.providers.fireworks import Fireworks
from app.providers.fireworks.files import convert, job_id, marker_of, model_id, points_of
from app.providers.fireworks.jobs import STATUSES, sighting
from app.providers.values import moment
from app.simulators.fireworks import FireworksSimulator
from app.simulators.runs import Plan
from tests.providers.places import QUICK, place
from tests.providers.test_adapters import data, until
from tests.support import chat_lines, pair_lines

BASE = "accounts/fireworks/models/llama-v3p1-8b-instruct"
Pair = tuple[FireworksSimulator, Fireworks]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with place("fireworks", replace(QUICK, steps=6)) as (simulator, adapter, _):
        assert isinstance(simulator, FireworksSimulator)
        assert isinstance(adapter, Fireworks)
        simulator.settling = 0.05
        yield simulator, adapter


async def order(adapter: Fireworks, folder: Path, marker: str, **more: object) -> Order:
    training = await adapter.upload(data(folder, chat_lines(20)))
    return Order(marker, BASE, "supervised", training, case_count=20, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "marker",
    ["ftjob-AAAA1111", "ftjob_0123456789ABCDEFGHIjk", "ftjob_zzzzzzzzzzzzzzzzzzzzz.12", "a"],
)
def test_a_marker_survives_as_a_name(marker: str) -> None:
    id = job_id(marker)
    assert len(id) <= 63
    assert set(id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert marker_of(id) == marker
    assert job_id(marker.swapcase()) != id


def test_other_names_carry_no_marker() -> None:
    for id in ("j1", "luthier-", "luthier-deployment", "luthier-0189", "luthier-mzxw6ytbo1", "l"):
        assert not marker_of(id), id
    with pytest.raises(ProviderRefused):
        job_id("x" * 40)


def test_a_tuned_model_has_a_readable_name() -> None:
    named = model_id("My Trial / No. 2", "ftjob-AAAA1111")
    assert named.startswith("my-trial-no-2-")
    assert named != model_id("My Trial / No. 2", "ftjob-AAAA1112")
    assert model_id(None, "ftjob-AAAA1111").startswith("luthier-")
    assert len(model_id("x" * 200, "ftjob-AAAA1111")) <= 63


def test_every_word_of_theirs_is_known() -> None:
    def seen(word: str, **more: object) -> Sighting:
        name = "accounts/acme/dpoJobs/luthier-x"
        return sighting({"name": name, "state": word, **more}, "accounts/acme", str)

    assert seen("JOB_STATE_CANCELLING").ending
    assert seen("JOB_STATE_CANCELLING").status is Status.RUNNING
    assert seen("JOB_STATE_EARLY_STOPPED", outputModel="m").model == "accounts/acme/models/m"
    assert seen("JOB_STATE_COMPLETED").model == "accounts/acme/models/luthier-x"
    assert seen("JOB_STATE_NEW_WORD").status is None
    failed = seen("JOB_STATE_EXPIRED")
    assert failed.error
    assert "JOB_STATE_EXPIRED" in failed.error["message"]
    euros = {"currencyCode": "EUR", "units": "3"}
    assert seen("JOB_STATE_RUNNING", estimatedCost=euros).cost is None
    dollars = {"currencyCode": "USD", "units": "1", "nanos": 750_000_000}
    assert seen("JOB_STATE_RUNNING", estimatedCost=dollars).cost == 1.75
    assert len(STATUSES) == 16
    assert moment("2026-11-01T10:00:00.123456789Z") == moment("2026-11-01T10:00:00.123456Z")
    assert moment("yesterday") is None


def test_metrics_files_are_read_whatever_trainers_call_things() -> None:
    lines = b"""{"step": 1, "train/loss": 2.5, "lr": 1e-4, "epoch": 0.5, "unheard_of": 1}
{"step": 1, "eval/loss": 2.75}

{"step": 2, "metrics": {"loss": NaN, "grad_norm": "0.5"}}
{"step": 3, "rewards/margins": 0.25}
{"loss": 1.0}
{"step": 4, "lo"""
    first, second, third = points_of(lines)
    assert first.values == {"training_loss": 2.5, "learning_rate": 1e-4, "validation_loss": 2.75}
    assert (first.key, first.step, first.epoch) == ("metrics:1", 1, 0.5)
    assert second.values == {"training_loss": None, "gradient_norm": 0.5}
    assert third.values == {"reward_margin": 0.25}
    table = b"Step,Train_Loss,eval_accuracy\n10,1.5,\n20,1.25,0.5\n"
    assert [(one.step, one.values) for one in points_of(table)] == [
        (10, {"training_loss": 1.5}),
        (20, {"training_loss": 1.25, "validation_accuracy": 0.5}),
    ]
    assert points_of(b"") == []


def test_lines_are_converted(tmp_path: Path) -> None:
    function = '{"name": "look", "parameters": {}}'
    messages = '[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hm?"}]'
    path = tmp_path / "cases.jsonl"
    path.write_text(
        f'{{"messages": {messages}, "functions": [{function}], "parallel_tool_calls": true}}\n\n'
    )
    with (tmp_path / "out").open("w+b") as out:
        assert convert(Data(path, "supervised", "", 1), out) == 1
        out.seek(0)
        converted = out.read()
    assert b"developer" not in converted
    assert b'"tools":[{"type":"function","function":{"name":"look"' in converted
    assert b"parallel_tool_calls" not in converted


async def test_a_large_file_goes_to_the_storage(pair: Pair, tmp_path: Path) -> None:
    simulator, adapter = pair
    adapter.largest_direct = 10
    content = chat_lines(20) + "\n"
    name = await adapter.upload(data(tmp_path, content))
    stored = simulator.datasets[name]
    assert stored.about["exampleCount"] == "20"
    assert stored.content.count(b"\n") == 20
    # The simulated storage refuses whoever shows a credential.
    assert [one for one in simulator.requests if one.startswith("PUT /_storage/")]
    assert [one for one in simulator.requests if one.endswith(":validateUpload")]


async def test_the_same_data_is_sent_once(pair: Pair, tmp_path: Path) -> None:
    simulator, adapter = pair
    name = await adapter.upload(data(tmp_path, chat_lines(20)))
    assert await adapter.upload(data(tmp_path, chat_lines(20))) == name
    assert len([one for one in simulator.requests if one.endswith(":upload")]) == 1
    # What was announced and never came is sent.
    simulator.datasets[name].ready_at = None
    await adapter.upload(data(tmp_path, chat_lines(20)))
    assert len([one for one in simulator.requests if one.endswith(":upload")]) == 2


async def test_an_upload_that_breaks_is_sent_again_whole(pair: Pair, tmp_path: Path) -> None:
    simulator, adapter = pair
    whole = await adapter.upload(data(tmp_path, chat_lines(20)))
    sent, simulator.datasets[whole].content = simulator.datasets[whole].content, b""
    simulator.datasets[whole].ready_at = None
    with (tmp_path / "sent").open("w+b") as file:
        file.write(sent)
        simulator.cheats.errors = 1
        await adapter._send(whole, file)
    assert simulator.datasets[whole].content == sent


async def test_data_that_is_never_ready_is_given_up(pair: Pair, tmp_path: Path) -> None:
    simulator, adapter = pair
    simulator.settling, adapter.patience = 600, 0.1
    with pytest.raises(ProviderUnreachable):
        await adapter.upload(data(tmp_path, chat_lines(20)))


async def test_what_is_asked_for(pair: Pair, tmp_path: Path) -> None:
    simulator, adapter = pair
    told = {
        "n_epochs": 2,
        "learning_rate": 2e-4,
        "batch_size": 4,
        "lora_rank": 16,
        "warmup_steps": 3,
        "max_length": 4096,
    }
    asked = await order(adapter, tmp_path, "ftjob-AAAA1111", hyperparameters=told, suffix="Trial")
    made = await adapter.create(asked)
    body = simulator.jobs[made.id].asked
    expected = {
        "epochs": 2,
        "learningRate": 2e-4,
        "batchSizeSamples": 4,
        "loraRank": 16,
        "learningRateWarmupSteps": 3,
        "maxContextLength": 4096,
    }
    assert body.items() >= expected.items()
    assert made.resolved == told
    assert made.suffix == "Trial"
    done = await until(adapter, made.id, *OVER)
    assert done.model
    assert done.model.startswith("accounts/acme/models/trial-")
    assert (done.percent, done.epoch) == (100, 1)
    assert done.cost
    assert done.trained_tokens

    pairs = await adapter.upload(data(tmp_path, pair_lines(20), "dpo"))
    preferences = Order("ftjob-BBBB2222", BASE, "dpo", pairs, hyperparameters={"beta": 0.2})
    made = await adapter.create(preferences)
    body = simulator.jobs[made.id].asked
    assert body["lossConfig"] == {"method": "DPO", "dpo": {"beta": 0.2}}
    assert body["trainingConfig"]["baseModel"] == BASE
    assert made.resolved
    assert made.resolved["beta"] == 0.2
    untold = replace(preferences, marker="ftjob-CCCC3333", hyperparameters={})
    made = await adapter.create(untold)
    assert simulator.jobs[made.id].asked["lossConfig"] == {"method": "DPO"}

    # A tuned model is trained further.
    again = await adapter.create(replace(asked, marker="ftjob-DDDD4444", base_model=done.model))
    assert simulator.jobs[again.id].asked["warmStartFrom"] == done.model
    assert "baseModel" not in simulator.jobs[again.id].asked
    assert again.base_model == done.model
    with pytest.raises(ProviderRefused) as refused:
        await adapter.create(replace(asked, marker="ftjob-EEEE5555", base_model="unheard-of"))
    assert refused.value.reason == "INVALID_ARGUMENT"


async def test_both_kinds_are_listed_newest_first(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, adapter = pair
    monkeypatch.setattr("app.providers.fireworks.adapter._PAGE", 2)
    asked = await order(adapter, tmp_path, "")
    pairs = await adapter.upload(data(tmp_path, pair_lines(20), "dpo"))
    markers = [f"ftjob-AAAA000{number}" for number in range(7)]
    for number, marker in enumerate(markers):
        kind = {"method": "dpo", "training": pairs} if number in (2, 5) else {}
        await adapter.create(replace(asked, marker=marker, **kind))  # type: ignore[arg-type]
    assert [one.marker for one in await adapter.listing(100)] == markers[::-1]
    assert [one.marker for one in await adapter.listing(3)] == markers[:3:-1]
    found = await adapter.find(markers[2])
    assert found
    assert found.method == "dpo"
    assert BASE in [one.name for one in await adapter.models()]


async def test_a_job_that_they_paused_is_resumed(pair: Pair, tmp_path: Path) -> None:
    simulator, adapter = pair
    simulator.plan = Plan(validating=0, queued=0, steps=6, step_seconds=0.05)
    made = await adapter.create(await order(adapter, tmp_path, "ftjob-AAAA1111"))
    for _ in range(200):
        if simulator.runs[made.id].pause(simulator.now()):
            break
        await asyncio.sleep(0.02)
    assert (await adapter.get(made.id)).status is Status.PAUSED
    await adapter.resume(made.id)
    await adapter.resume(made.id)
    await until(adapter, made.id, Status.SUCCEEDED)


async def test_one_that_is_being_deleted_is_missing(pair: Pair, tmp_path: Path) -> None:
    simulator, adapter = pair
    made = await adapter.create(await order(adapter, tmp_path, "ftjob-AAAA1111"))
    simulator.cheats.word = "JOB_STATE_DELETING"
    with pytest.raises(ProviderMissing):
        await adapter.get(made.id)
    assert await adapter.listing(10) == []
    assert await adapter.find("ftjob-AAAA1111") is None


async def test_only_what_is_newer_is_told_again(pair: Pair, tmp_path: Path) -> None:
    simulator, adapter = pair
    made = await adapter.create(await order(adapter, tmp_path, "ftjob-AAAA1111"))
    assert await adapter.news(made, None) == []
    done = await until(adapter, made.id, *OVER)
    steps = [one.step for one in await adapter.news(done, "metrics:4") if one.kind == "metrics"]
    assert steps == [5, 6]
    # A signed URL ends; the job has a new one.
    simulator.permissions.clear()
    simulator.jobs[done.id].metrics_url_ends = 0
    assert len([one for one in await adapter.news(done, None) if one.kind == "metrics"]) == 6
    (result,) = await adapter.results(done)
    assert result.filename == "metrics.jsonl"
    assert len(points_of(result.content)) == 6


async def test_a_checkpoint_is_made_a_model_and_deployed(pair: Pair, tmp_path: Path) -> None:
    simulator, adapter = pair
    made = await adapter.create(await order(adapter, tmp_path, "ftjob-AAAA1111"))
    done = await until(adapter, made.id, *OVER)
    saved = [one for one in await adapter.news(done, None) if one.kind == "checkpoint"]
    assert [one.step for one in saved] == [1, 2, 3, 4, 5, 6]
    assert saved[1].model
    placing = Placing("luthier-dep-1", saved[1].model, hardware="NVIDIA_H200_141GB")
    placed = await adapter.deploy(placing)
    model = "accounts/acme/models/luthier-dep-1"
    assert placed.target == f"{model}#accounts/acme/deployments/luthier-dep-1"
    assert simulator.promoted[model].base == BASE
    assert (await adapter.deploy(placing)).reference == placed.reference
    assert len([one for one in simulator.requests if one.endswith(":promote")]) == 1
    asked = simulator.deployments["accounts/acme/deployments/luthier-dep-1"].asked
    assert asked["acceleratorType"] == "NVIDIA_H200_141GB"
    await adapter.undeploy(placed.reference)
    with pytest.raises(ProviderMissing):
        await adapter.deployment(placed.reference)


async def test_storage_wants_the_signature_alone(pair: Pair, tmp_path: Path) -> None:
    simulator, adapter = pair
    made = await adapter.create(await order(adapter, tmp_path, "ftjob-AAAA1111"))
    url = (await until(adapter, made.id, *OVER)).extra["metrics_url"]
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(url)).is_success
        assert (await client.get(url.split("?")[0])).status_code == 403
        assert (await client.get(url, headers={"authorization": "Bearer fw_x"})).is_error
        assert (await client.put(url)).status_code == 403
        simulator.move(7200)
        assert (await client.get(url)).status_code == 400
