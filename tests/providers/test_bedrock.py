"""What is Bedrock's alone: its names, its forms of cases, its signatures, its refusals."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.providers.base import Account
from app.providers.bedrock import Bedrock
from app.providers.bedrock.adapter import CLAUDE_3_HAIKU
from app.providers.bedrock.cases import in_form
from app.providers.bedrock.names import job_name, marker_of, model_name
from app.providers.errors import (
    ProviderDenied,
    ProviderExists,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
    Unsupported,
)
from app.providers.urls import Allowed
from app.simulators.bedrock import ACCESS_KEY_ID, BUCKET, PATTERNS
from tests.providers.bedrock import NOVA, cases, job, line, place
from tests.providers.places import PLACES
from tests.support import chat_lines

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
