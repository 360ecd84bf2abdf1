"""What is Bedrock's alone: its names, its forms of cases, its signatures, two ways to deploy."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.providers.base import OVER, Account, Data, Order, Placing, Sighting, Status
from app.providers.bedrock import Bedrock
from app.providers.bedrock.adapter import CLAUDE_3_HAIKU
from app.providers.bedrock.cases import in_form
from app.providers.bedrock.chat import question
from app.providers.bedrock.jobs import points_of
from app.providers.bedrock.names import job_name, marker_of, model_name
from app.providers.errors import (
    ProviderBusy,
    ProviderDenied,
    ProviderExists,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
    Unsupported,
)
from app.providers.urls import Allowed
from app.simulators.bedrock import ACCESS_KEY_ID, BUCKET, PATTERNS, BedrockSimulator
from app.simulators.runs import Plan
from tests.providers.places import PLACES
from tests.support import chat_lines

NOVA = "amazon.nova-micro-v1:0:128k"
QUICK = Plan(validating=0.05, queued=0.05, steps=8, step_seconds=0.02)
FAST = Plan(validating=0, queued=0, steps=4, step_seconds=0)


@asynccontextmanager
async def place(
    plan: Plan = QUICK, secrets: Mapping[str, str] | None = None, **more: str
) -> AsyncIterator[tuple[BedrockSimulator, Bedrock]]:
    simulator = BedrockSimulator(plan, seed=1)
    async with simulator.served() as url, httpx.AsyncClient(trust_env=False, timeout=5) as client:
        usual = PLACES["bedrock"].account(url)
        account = Account(
            {**usual.secrets, **(secrets or {})},
            {
                **usual.settings,
                **{name: value.format(url=url) for name, value in more.items()},
            },
        )
        yield simulator, Bedrock(account, client, Allowed([url]))


def cases(folder: Path, content: str, base_model: str = "", role: Any = "training") -> Data:
    path = folder / "cases.jsonl"
    path.write_text(content)
    return Data(path, "supervised", "0" * 64, 20, role, base_model)


def line(*messages: tuple[str, Any], **more: Any) -> str:
    return json.dumps(
        {"messages": [{"role": role, "content": content} for role, content in messages], **more}
    )


async def job(
    adapter: Bedrock, folder: Path, base_model: str = CLAUDE_3_HAIKU, **more: Any
) -> Sighting:
    training = await adapter.upload(cases(folder, chat_lines(20), base_model))
    return await adapter.create(
        Order(
            **{
                "marker": "ftjob-AAAA1111",
                "base_model": base_model,
                "method": "supervised",
                "training": training,
                **more,
            }
        )
    )


async def over(adapter: Bedrock, id: str) -> Sighting:
    for _ in range(200):
        found = await adapter.get(id)
        if found.status in OVER:
            return found
        await asyncio.sleep(0.02)
    raise TimeoutError(id)


# Names

MARKERS = st.from_regex(r"ftjob[_-][0-9A-Za-z]{8,21}(\.[0-9]{1,3})?", fullmatch=True)


@settings(max_examples=40)
@given(MARKERS, st.none() | st.text(max_size=30))
def test_names_fit_and_give_the_marker_back(marker: str, suffix: str | None) -> None:
    named = job_name(marker)
    assert len(named) <= 63
    assert re.fullmatch(PATTERNS["jobName"], named)
    assert marker_of(named) == marker
    model = model_name(marker, suffix)
    assert len(model) <= 63
    assert re.fullmatch(PATTERNS["customModelName"], model)


def test_a_job_that_is_not_ours_has_no_marker() -> None:
    assert marker_of("churn-model-3") is None
    assert marker_of("luthier-") is None


# Cases


def test_cases_become_claudes(tmp_path: Path) -> None:
    content = line(
        ("system", "Be short."),
        ("developer", "Be kind."),
        ("user", [{"type": "text", "text": "Where"}, {"type": "text", "text": "?"}]),
        ("user", "Tell me."),
        ("assistant", "There."),
    )
    made = in_form(cases(tmp_path, content + "\n\n").path, "", "training_file")
    assert [json.loads(row) for row in made.splitlines()] == [
        {
            "system": "Be short.\n\nBe kind.",
            "messages": [
                {"role": "user", "content": "Where?\n\nTell me."},
                {"role": "assistant", "content": "There."},
            ],
        }
    ]


def test_cases_become_conversations(tmp_path: Path) -> None:
    content = line(("system", "Be short."), ("user", "Where?"), ("assistant", "There."))
    made = in_form(cases(tmp_path, content).path, NOVA, "training_file")
    assert json.loads(made) == {
        "schemaVersion": "bedrock-conversation-2024",
        "system": [{"text": "Be short."}],
        "messages": [
            {"role": "user", "content": [{"text": "Where?"}]},
            {"role": "assistant", "content": [{"text": "There."}]},
        ],
    }


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (line(("user", "a"), ("assistant", "b"), tools=[{"type": "function"}]), "tools"),
        (line(("assistant", "a"), ("user", "b"), ("assistant", "c")), "first turn"),
        (line(("user", "a"), ("system", "b"), ("assistant", "c")), "system"),
        (line(("user", "a"), ("tool", "b"), ("assistant", "c")), "'tool'"),
        (json.dumps({"messages": [{"role": "user", "content": "a"},
                                  {"role": "assistant", "content": "b", "weight": 0},
                                  {"role": "user", "content": "c"},
                                  {"role": "assistant", "content": "d"}]}), "weight 0"),
        (json.dumps({"messages": [{"role": "user", "content": "a"},
                                  {"role": "assistant", "content": None,
                                   "tool_calls": [{"id": "1"}]}]}), "calls of tools"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("base_model", ["", NOVA])
async def test_a_case_that_has_no_form_there_is_named(
    tmp_path: Path, bad: str, why: str, base_model: str
) -> None:
    good = line(("user", "a"), ("assistant", "b"))
    async with place() as (simulator, adapter):
        with pytest.raises(ProviderRefused, match="Line 2: ") as refused:
            await adapter.upload(cases(tmp_path, f"{good}\n{bad}", base_model))
        assert why in str(refused.value)
        assert refused.value.param == "training_file"
        assert not simulator.buckets[BUCKET]


async def test_the_same_cases_lie_once_and_each_family_has_its_own(tmp_path: Path) -> None:
    async with place() as (simulator, adapter):
        uris = [
            await adapter.upload(cases(tmp_path, chat_lines(20), base))
            for base in ("", CLAUDE_3_HAIKU, NOVA)
        ]
        assert uris[0] == uris[1] != uris[2]
        assert uris[0].startswith(f"s3://{BUCKET}/luthier/data/")
        assert len(simulator.buckets[BUCKET]) == 2
        with pytest.raises(Unsupported):
            await adapter.upload(replace(cases(tmp_path, "{}"), method="dpo"))


# Signatures


def test_what_is_signed_is_what_the_sdk_signs() -> None:
    """The SDK's own request, for an ARN in the path."""
    control = boto3.client(
        "bedrock", "us-west-2", aws_access_key_id="AKIA1", aws_secret_access_key="secret"
    )
    sent: list[AWSRequest] = []

    def keep(request: Any, **_: Any) -> Any:
        sent.append(request)
        raise InterruptedError

    control.meta.events.register("before-send.bedrock.GetModelCustomizationJob", keep)
    arn = (
        "arn:aws:bedrock:us-west-2:123456789012:model-customization-job/a.b-v1:0:200k/abc123def456"
    )
    with pytest.raises(InterruptedError):
        control.get_model_customization_job(jobIdentifier=arn)
    theirs = {
        name.lower(): value.decode() if isinstance(value, bytes) else value
        for name, value in sent[0].headers.items()
    }

    account = Account(
        {"access_key_id": "AKIA1", "secret_access_key": "secret"},
        {"region": "us-west-2", "bucket": "b", "role_arn": "arn:aws:iam::1:role/r"},
    )
    adapter = Bedrock(account, httpx.AsyncClient(), Allowed())
    ours = httpx.Request("GET", sent[0].url)
    auth = adapter.auth(adapter.http._client)
    for _ in range(50):  # both tell the second in which they were made
        next(auth.auth_flow(ours))
        if ours.headers["x-amz-date"] == theirs["x-amz-date"]:
            break
        with pytest.raises(InterruptedError):
            control.get_model_customization_job(jobIdentifier=arn)
        theirs = {
            name.lower(): value.decode() if isinstance(value, bytes) else value
            for name, value in sent[-1].headers.items()
        }
    assert ours.url.raw_path.decode().endswith("%2Fabc123def456")
    assert ours.headers["authorization"] == theirs["authorization"]


async def test_a_session_token_is_sent_and_signed(tmp_path: Path) -> None:
    async with place(secrets={"session_token": "a-session-token-1234"}) as (simulator, adapter):
        secret, _ = simulator.keys[ACCESS_KEY_ID]
        simulator.keys[ACCESS_KEY_ID] = (secret, "a-session-token-1234")
        await adapter.check()
        await job(adapter, tmp_path)
        simulator.keys[ACCESS_KEY_ID] = (secret, "another")
        with pytest.raises(ProviderDenied, match="security token"):
            await adapter.check()


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_a_clock_that_is_off_is_put_right(tmp_path: Path, skew: float) -> None:
    async with place() as (simulator, adapter):
        simulator.cheats.skew = skew
        await adapter.check()
        asked = len(simulator.requests)
        await job(adapter, tmp_path)
        assert len(simulator.requests) == asked + 3  # put, create, get: all right at once


# Refusals


async def test_refusals_of_both_services_are_typed(tmp_path: Path) -> None:
    async with place() as (_, adapter):
        with pytest.raises(ProviderRefused, match="identifier is invalid") as refused:
            await job(adapter, tmp_path, "anthropic.claude-9-v1:0")
        assert refused.value.reason == "ValidationException"
        await job(adapter, tmp_path)
        uri = await adapter.upload(cases(tmp_path, chat_lines(21)))
        with pytest.raises(ProviderExists):
            await job(adapter, tmp_path, training=uri)
    async with place(storage_url="{url}/another") as (_, adapter):
        with pytest.raises(ProviderMissing, match="bucket does not exist"):
            await adapter.check()


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        (400, "ExpiredToken", ProviderDenied),
        (301, "PermanentRedirect", ProviderRefused),
        (403, "AccessDenied", ProviderDenied),
        (503, "SlowDown", ProviderUnreachable),
    ],
)
async def test_what_the_bucket_answers(
    tmp_path: Path, status: int, code: str, wanted: type[Exception]
) -> None:
    body = f"<Error><Code>{code}</Code><Message>Said &amp; done</Message></Error>"
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text=body))
    async with httpx.AsyncClient(transport=transport) as client:
        account = PLACES["bedrock"].account("https://bucket.s3.us-west-2.amazonaws.com")
        adapter = Bedrock(account, client, Allowed())
        with pytest.raises(wanted):
            await adapter.upload(cases(tmp_path, chat_lines(20)))


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
