"""Bedrock's jobs and their metrics, and its two ways to deploy a model."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from app.providers.base import Placing, Status
from app.providers.bedrock.adapter import CLAUDE_3_HAIKU
from app.providers.bedrock.chat import question
from app.providers.bedrock.jobs import points_of
from app.providers.errors import (
    ProviderBusy,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
)
from app.simulators.bedrock import BUCKET
from app.simulators.runs import Plan
from tests.providers.bedrock import FAST, NOVA, cases, job, over, place
from tests.support import chat_lines

# Jobs


async def test_a_created_job_is_known_even_if_nobody_can_look_at_it(tmp_path: Path) -> None:
    async with place() as (simulator, adapter):
        uri = await adapter.upload(cases(tmp_path, chat_lines(20)))
        usual = simulator.job_of

        def gone(request: Any) -> Any:
            simulator.job_of = usual  # type: ignore[method-assign]
            simulator.cheats.vanished = list(simulator.runs)
            return usual(request)

        simulator.job_of = gone  # type: ignore[method-assign]
        made = await job(adapter, tmp_path, training=uri)
        assert (made.status, made.marker) == (Status.PENDING, "ftjob-AAAA1111")
        simulator.cheats.vanished = []
        assert (await adapter.get(made.id)).marker == "ftjob-AAAA1111"


async def test_hyperparameters_are_text_there_and_numbers_here(tmp_path: Path) -> None:
    told = {
        "n_epochs": 4,
        "batch_size": 8,
        "learning_rate_multiplier": 0.5,
        "early_stopping": {"patience": 3, "min_delta": 0.01},
    }
    async with place(FAST) as (simulator, adapter):
        made = await job(adapter, tmp_path, hyperparameters=told, suffix="Trial no. 1")
        sent = simulator.jobs[made.id].asked
        assert sent["hyperParameters"] == {
            "epochCount": "4",
            "batchSize": "8",
            "learningRateMultiplier": "0.5",
            "earlyStoppingPatience": "3",
            "earlyStoppingThreshold": "0.01",
        }
        assert sent["customModelName"] == "Trial-no-1-ftjob-AAAA1111"
        done = await over(adapter, made.id)
        assert done.resolved == told
        assert done.suffix == "Trial-no-1"


async def test_parts_of_a_job_tell_where_it_is(tmp_path: Path) -> None:
    async with place(Plan(validating=60, queued=60, stopping=60, step_seconds=60)) as (
        sim,
        adapter,
    ):
        made = await job(adapter, tmp_path)
        assert (made.raw, made.status) == ("InProgress", Status.VALIDATING)
        sim.move(61)
        assert (await adapter.get(made.id)).status is Status.QUEUED
        sim.details = False
        assert (await adapter.get(made.id)).status is Status.RUNNING
        sim.details = True
        sim.move(60)
        assert (await adapter.get(made.id)).status is Status.RUNNING
        await adapter.cancel(made.id)
        await adapter.cancel(made.id)
        ending = await adapter.get(made.id)
        assert (ending.raw, ending.status, ending.ending) == ("Stopping", Status.RUNNING, True)
        sim.move(61)
        assert (await adapter.get(made.id)).status is Status.CANCELLED
        assert [row.status for row in await adapter.listing(5)] == [Status.CANCELLED]


async def test_a_long_list_comes_in_pages(tmp_path: Path) -> None:
    async with place(FAST) as (simulator, adapter):
        for number in range(5):
            await job(adapter, tmp_path, marker=f"ftjob-AAAA000{number}")
        rows = await adapter._pages(
            "/model-customization-jobs", "modelCustomizationJobSummaries", {"maxResults": "2"}, 4
        )
        assert len(rows) == 4
        simulator.most_keys = 2
        keys = await adapter._keys("luthier/")
        assert len(keys) == len(simulator.buckets[BUCKET]) == 6  # the cases, and five jobs' metrics
        found = await adapter.find("ftjob-AAAA0002")
        assert found
        assert found.training


async def test_metrics_come_as_the_job_goes_on(tmp_path: Path) -> None:
    async with place(Plan(validating=0, queued=0, steps=8, step_seconds=60)) as (sim, adapter):
        validation = await adapter.upload(cases(tmp_path, chat_lines(9), role="validation"))
        made = await job(adapter, tmp_path, validation=validation)
        assert await adapter.news(made, None) == []
        sim.move(150)
        row = (await adapter.listing(1))[0]  # which does not tell where its files are
        assert "output" not in row.extra
        early = await adapter.news(row, None)
        assert [item.key for item in early] == ["training:1", "validation:2", "training:2"]
        sim.move(600)
        late = await adapter.news(made, early[-1].key)
        assert {item.key for item in early} < {item.key for item in late}
        done = await adapter.get(made.id)
        names = [result.filename for result in await adapter.results(done)]
        assert names == ["step_wise_training_metrics.csv", "validation_metrics.csv"]
        elsewhere = replace(done, extra={"output": "s3://another/output/"})
        assert await adapter.news(elsewhere, None) == []


def test_rows_without_numbers_are_left_out() -> None:
    content = (
        b"step_number,epoch_number,training_loss,perplexity\n0,0,1.5,4\n1,,,\nx,0,1,2\n2,1,1,3"
    )
    found = points_of("training", content)
    assert [(item.step, item.values, item.epoch) for item in found] == [
        (1, {"training_loss": 1.5}, 0.0),
        (3, {"training_loss": 1.0}, 1.0),
    ]
    assert points_of("training", b"") == []


# Models


async def test_the_models_that_can_be_tuned_and_when_they_end() -> None:
    async with place() as (simulator, adapter):
        found = {listed.name: listed.ends for listed in await adapter.models()}
        assert found[CLAUDE_3_HAIKU] == date(2026, 9, 10)
        assert found[NOVA] is None
        assert {offer.name for offer in adapter.offers} == set(found)
        simulator.cheats.expired_models = [CLAUDE_3_HAIKU]
        assert CLAUDE_3_HAIKU not in {listed.name for listed in await adapter.models()}


@pytest.mark.parametrize(
    ("base", "told", "units", "kind"),
    [
        (NOVA, True, "", "custom-model-deployment"),
        (NOVA, False, "", "custom-model-deployment"),
        (NOVA, True, "2", "provisioned-model"),
        (CLAUDE_3_HAIKU, False, "", "provisioned-model"),
    ],
)
async def test_each_family_is_deployed_its_way(
    tmp_path: Path, base: str, told: bool, units: str, kind: str
) -> None:
    async with place(FAST, model_units=units) as (simulator, adapter):
        done = await over(adapter, (await job(adapter, tmp_path, base)).id)
        assert done.model
        simulator.activating = 600
        placing = Placing("luthier-dep-1", done.model, base if told else "")
        placed = await adapter.deploy(placing)
        assert f":{kind}/" in placed.reference
        assert (await adapter.deployment(placed.reference)).status == "starting"
        with pytest.raises(ProviderBusy):
            await adapter.undeploy(placed.reference)
        simulator.move(601)
        assert (await adapter.deployment(placed.reference)).status == "ready"
        # The token is forgotten after a while, the name is not.
        simulator.deployments[placed.reference].asked["clientRequestToken"] = "another"
        assert (await adapter.deploy(placing)).reference == placed.reference
        await adapter.undeploy(placed.reference)
        with pytest.raises(ProviderMissing):
            await adapter.deployment(placed.reference)


def test_a_request_becomes_a_conversation() -> None:
    asked = {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Where?"},
        ],
        "max_completion_tokens": 5,
        "temperature": 0,
        "top_p": 0.5,
        "stop": ".",
    }
    assert question(asked) == {
        "system": [{"text": "Be short."}],
        "messages": [{"role": "user", "content": [{"text": "Where?"}]}],
        "inferenceConfig": {
            "maxTokens": 5,
            "temperature": 0,
            "topP": 0.5,
            "stopSequences": ["."],
        },
    }
    for wrong, param in (
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": asked["messages"], "tools": [{"type": "function"}]}, "tools"),
    ):
        with pytest.raises(ProviderRefused) as refused:
            question(wrong)
        assert refused.value.param == param


async def test_an_answer_in_openais_form() -> None:
    question = {"messages": [{"role": "user", "content": "Good day"}]}
    async with place() as (simulator, adapter):
        async with adapter.chat(NOVA, question) as reply:
            said = json.loads(b"".join([chunk async for chunk in reply.chunks]))
        assert said["choices"][0]["finish_reason"] == "stop"
        assert said["usage"]["total_tokens"] == sum(
            said["usage"][name] for name in ("prompt_tokens", "completion_tokens")
        )
        streaming = {**question, "stream": True, "stream_options": {"include_usage": True}}
        async with adapter.chat(NOVA, streaming) as reply:
            lines = b"".join([chunk async for chunk in reply.chunks]).decode().split("\n\n")
        assert json.loads(lines[-3].removeprefix("data: "))["usage"]["total_tokens"] > 0
        simulator.cheats.expired_models = [NOVA]
        async with adapter.chat(NOVA, question) as reply:
            refused = json.loads(b"".join([chunk async for chunk in reply.chunks]))
        assert reply.status == 404
        assert "end of its life" in refused["error"]["message"]
        simulator.cheats.down = True
        with pytest.raises(ProviderUnreachable):
            async with adapter.chat(NOVA, question):
                pass
