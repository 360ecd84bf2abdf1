"""What only Vertex AI's adapter does: signing in, labels, states, rewards, metrics, and calling."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from app.providers.base import OVER, Account, Order, Sighting, Status
from app.providers.cases import CannotConvert
from app.providers.errors import (
    ProviderDenied,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
    UrlNotAllowed,
)
from app.providers.urls import Allowed
from app.providers.vertex import Vertex
from app.providers.vertex.files import points
from app.providers.vertex.jobs import label_of, marker_of, sighting_of
from app.providers.vertex.rewards import reward_config
from app.simulators.runs import Plan
from app.simulators.vertex import VertexSimulator, service_account
from tests.providers.places import PLACES, place
from tests.providers.test_adapters import data, order, until
from tests.support import chat_lines, item_lines

WHERE = PLACES["vertex"]
QUICK = Plan(validating=0.05, queued=0.05, steps=12, step_seconds=0.02)


@pytest.fixture
async def served() -> AsyncIterator[tuple[VertexSimulator, Vertex]]:
    async with place("vertex", QUICK) as (simulator, adapter, _):
        yield cast(VertexSimulator, simulator), cast(Vertex, adapter)


@pytest.mark.parametrize(
    "marker", ["ftjob_aB3dE5gH7jK9mN1pQ2rS4", "ftjob-AAAA1111", "ftjob_zzzzzzzzzzzzzzzzzzzzz.12"]
)
def test_a_label_keeps_the_capitals_of_a_marker(marker: str) -> None:
    label = label_of(marker)
    assert label == label.lower()
    assert label.isalnum()
    assert len(label) <= 63
    assert marker_of(label) == marker


@pytest.mark.parametrize("label", [None, "", "not-ours", "7777", "é"])
def test_a_foreign_label_is_no_trouble(label: str | None) -> None:
    assert marker_of(label) is None


async def test_one_token_serves_many_requests_and_a_lost_one_is_replaced(
    served: tuple[VertexSimulator, Vertex],
) -> None:
    simulator, adapter = served
    await asyncio.gather(*(adapter.check() for _ in range(5)))
    another = Vertex(adapter.account, adapter.http._client, adapter.allowed)
    await another.check()
    assert simulator.accounts.grants == 1
    simulator.accounts.revoke()
    await asyncio.gather(*(one.check() for one in (adapter, another)))
    assert simulator.accounts.grants == 2


async def test_a_token_is_renewed_before_it_ends(served: tuple[VertexSimulator, Vertex]) -> None:
    simulator, adapter = served
    simulator.accounts.lasting = 1
    await adapter.check()
    await asyncio.sleep(0.6)
    await adapter.check()
    assert simulator.accounts.grants == 2


async def test_who_cannot_sign_in_is_denied(served: tuple[VertexSimulator, Vertex]) -> None:
    _, adapter = served
    for secret in ("", "{}", "[]", '{"private_key": "x"}', service_account(number=1)):
        account = Account({"service_account": secret}, adapter.account.settings)
        other = Vertex(account, adapter.http._client, adapter.allowed)
        with pytest.raises(ProviderDenied) as denied:
            await other.check()
        assert "PRIVATE" not in str(denied.value)


async def test_without_a_token_nothing_was_sent(
    served: tuple[VertexSimulator, Vertex], tmp_path: Path
) -> None:
    simulator, adapter = served
    asked = await order(WHERE, adapter, tmp_path, "ftjob-AAAA1111")
    simulator.accounts.trust(service_account(number=1))
    account = Account({"service_account": service_account(number=1)}, adapter.account.settings)
    other = Vertex(account, adapter.http._client, adapter.allowed)
    simulator.cheats.errors = 1
    with pytest.raises(ProviderUnreachable) as trouble:
        await other.create(asked)
    assert not trouble.value.sent
    assert not simulator.creates


def test_where_it_is(served: tuple[VertexSimulator, Vertex]) -> None:
    _, adapter = served

    def at(location: str) -> str:
        account = Account(adapter.account.secrets, {"location": location, "bucket": "b"})
        return Vertex(account, adapter.http._client, Allowed()).url("base_url")

    assert at("europe-west4") == "https://europe-west4-aiplatform.googleapis.com/v1"
    assert at("global") == "https://aiplatform.googleapis.com/v1"
    for wrong in ("", "evil.example/", "a@b", "x.evil.example/?"):
        with pytest.raises(UrlNotAllowed):
            at(wrong)


async def test_a_case_without_a_form_names_its_line(
    served: tuple[VertexSimulator, Vertex], tmp_path: Path
) -> None:
    _, adapter = served
    case = {
        "messages": [
            {"role": "user", "content": "Good day"},
            {"role": "assistant", "content": "No", "weight": 0},
            {"role": "user", "content": "Good day!"},
            {"role": "assistant", "content": "Yes"},
        ]
    }
    content = f"{chat_lines(2)}\n{json.dumps(case)}"
    for role, param in (("training", "training_file"), ("validation", "validation_file")):
        with pytest.raises(ProviderRefused) as refused:
            await adapter.upload(data(tmp_path, content, role=role))
        assert "Line 3: " in str(refused.value)
        assert "weight" in str(refused.value)
        assert refused.value.param == param


async def test_the_filter_may_be_refused(
    served: tuple[VertexSimulator, Vertex], tmp_path: Path
) -> None:
    simulator, adapter = served
    made = await adapter.create(await order(WHERE, adapter, tmp_path, "ftjob-AAAA1111"))
    other = await adapter.create(await order(WHERE, adapter, tmp_path, "ftjob-aaaa1111"))
    for simulator.knows_filters in (True, False):
        for marker, job in (("ftjob-AAAA1111", made), ("ftjob-aaaa1111", other)):
            found = await adapter.find(marker)
            assert found
            assert found.id == job.id


async def test_what_is_told_and_what_cannot_be(
    served: tuple[VertexSimulator, Vertex], tmp_path: Path
) -> None:
    _, adapter = served
    told = {"n_epochs": 1, "lora_rank": 8, "learning_rate_multiplier": 0.5}
    asked = await order(WHERE, adapter, tmp_path, "ftjob-AAAA1111", hyperparameters=told)
    made = await adapter.create(asked)
    assert made.resolved == told
    assert made.suffix == "trial"
    for wrong in ({"lora_rank": 3}, {"batch_size": 4}):
        with pytest.raises(ProviderRefused) as refused:
            await adapter.create(replace(asked, hyperparameters=wrong))
        assert refused.value.param == next(iter(wrong))
    done = await until(adapter, made.id, *OVER)
    assert (done.step, done.total_steps, done.percent) == (12, 12, 100)
    assert done.trained_tokens
    assert done.started_at
    checkpoints = [one for one in await adapter.news(done, None) if one.kind == "checkpoint"]
    assert [one.step for one in checkpoints] == [4, 8, 12]
    assert checkpoints[-1].model == done.model != checkpoints[0].model
    assert done.model
    further = await adapter.create(replace(asked, base_model=done.model, marker="ftjob-BBBB2222"))
    assert "/models/" in further.base_model
    later = await adapter.news(done, "metrics:11")
    assert [one.step for one in later if one.kind == "metrics"] == [11, 12]


@pytest.mark.parametrize(
    ("state", "part", "status", "raw"),
    [
        ("JOB_STATE_RUNNING", "WAITING_FOR_QUOTA", Status.QUEUED, "WAITING_FOR_QUOTA"),
        ("JOB_STATE_RUNNING", "PROCESSING_DATASET", Status.VALIDATING, "PROCESSING_DATASET"),
        ("JOB_STATE_RUNNING", "POST_PROCESSING", Status.RUNNING, "POST_PROCESSING"),
        ("JOB_STATE_RUNNING", "DREAMING", Status.RUNNING, "JOB_STATE_RUNNING"),
        ("JOB_STATE_CANCELLING", "TUNING", Status.RUNNING, "JOB_STATE_CANCELLING"),
        ("JOB_STATE_PARTIALLY_SUCCEEDED", "", Status.SUCCEEDED, "JOB_STATE_PARTIALLY_SUCCEEDED"),
        ("JOB_STATE_EXPIRED", "", Status.FAILED, "JOB_STATE_EXPIRED"),
        ("", "", Status.PENDING, "JOB_STATE_UNSPECIFIED"),
        ("JOB_STATE_DREAMING", "TUNING", None, "JOB_STATE_DREAMING"),
    ],
)
def test_states(state: str, part: str, status: Status | None, raw: str) -> None:
    job = {"name": "projects/p/locations/l/tuningJobs/1", "state": state}
    seen = sighting_of({**job, "tuningJobState": part and f"TUNING_JOB_STATE_{part}"}, str)
    assert seen.status is status
    assert seen.raw.removeprefix("TUNING_JOB_STATE_") == raw
    assert seen.ending == (state == "JOB_STATE_CANCELLING")


def test_a_cancelled_job_has_no_error() -> None:
    job = {"name": "n", "state": "JOB_STATE_CANCELLED", "error": {"code": 1, "message": "x"}}
    assert sighting_of(job, str).error is None
    failed = {"name": "n", "state": "JOB_STATE_FAILED", "error": {"code": 8, "message": "No quota"}}
    assert sighting_of(failed, str).error == {
        "code": "RESOURCE_EXHAUSTED",
        "message": "No quota",
        "param": None,
    }


def test_metrics_of_any_shape() -> None:
    files = [
        b'{"step": 2, "/train_total_loss": 1.5}\nnot JSON\n[1]\n{"step": "x"}\n{"step": 3}\n3',
        b'{"step": 1, "train_total_loss": 2, "other": 1}\n{"step": 2, "eval_total_loss": 1.75}',
        b"\xff\x00",
    ]
    found = points(files, None)
    assert [one.key for one in found] == ["metrics:1", "metrics:2"]
    assert found[1].values == {"training_loss": 1.5, "validation_loss": 1.75}
    assert [one.step for one in points(files, "metrics:2")] == [2]
    assert [one.step for one in points(files, "checkpoint:2")] == [1, 2]


async def test_metrics_out_of_reach_are_none(served: tuple[VertexSimulator, Vertex]) -> None:
    simulator, adapter = served
    job = Sighting("n", "JOB_STATE_RUNNING", Status.RUNNING, extra={"metrics": "gs://theirs/x/"})
    assert await adapter.news(job, None) == []
    simulator.storage.put("theirs", "x/events.json", b'{"steps": []}')
    simulator.storage.put("theirs", "x/a.jsonl", b'{"step": 1, "train_loss": 2}')
    assert [one.step for one in await adapter.news(job, None)] == [1]


async def test_warnings_are_messages(served: tuple[VertexSimulator, Vertex]) -> None:
    _, adapter = served
    counted = {"supervisedTuningDataStats": {"totalTruncatedExampleCount": "3"}}
    told = {"name": "n", "state": "JOB_STATE_PARTIALLY_SUCCEEDED", "tuningDataStats": counted}
    news = await adapter.news(sighting_of(told, str), None)
    assert [(one.key, one.level) for one in news] == [("dropped", "warn"), ("partly", "warn")]


STRINGS = {"type": "string_check", "name": "right", "input": "{{ sample.output_text }}"}


@pytest.mark.parametrize(
    ("operation", "match", "right", "wrong"),
    [("eq", "EXACT_MATCH", 1, 0), ("ne", "EXACT_MATCH", 0, 1), ("like", "PARTIAL_MATCH", 1, 0)],
)
def test_string_checks(operation: str, match: str, right: float, wrong: float) -> None:
    grader = {**STRINGS, "operation": operation, "reference": "<b>{{item.word}}</b>"}
    made = reward_config(grader)["stringMatchRewardScorer"]
    expected = {"matchOperation": match, "expression": "<b>{{references.word}}</b>"}
    assert made["stringMatchExpression"] == expected
    assert (made["correctAnswerReward"], made["wrongAnswerReward"]) == (right, wrong)


@pytest.mark.parametrize(
    "grader",
    [
        {**STRINGS, "operation": "ilike", "reference": "{{ item.word }}"},
        {**STRINGS, "operation": "eq", "reference": "{{ item.word.first }}"},
        {**STRINGS, "operation": "eq", "input": "{{ item.a }}", "reference": "{{ item.b }}"},
        {"type": "python", "name": "p", "source": "def evaluate():\n  pass\ndef grade(s, i): ..."},
        {"type": "text_similarity", "name": "t"},
        {"type": "multi", "name": "m"},
        {},
    ],
)
def test_graders_that_are_no_reward(grader: dict[str, Any]) -> None:
    with pytest.raises(CannotConvert):
        reward_config(grader)


async def test_a_python_grader_grades_what_was_uploaded(
    served: tuple[VertexSimulator, Vertex], tmp_path: Path
) -> None:
    """The snippet is run as Google says it runs it."""
    simulator, adapter = served
    uri = await adapter.upload(data(tmp_path, item_lines(12), "reinforcement"))
    source = (
        "def grade(sample, item):\n"
        "    return (item['wanted'] == 20) / 2 + (item['word'] in sample['output_text']) / 4\n"
    )
    grader = {"type": "python", "name": "p", "source": source}
    asked = Order(
        "ftjob-AAAA1111",
        WHERE.base_model,
        "reinforcement",
        uri,
        grader=grader,
        hyperparameters={"n_epochs": 1, "eval_interval": 5},
    )
    done = await until(adapter, (await adapter.create(asked)).id, *OVER)
    assert done.status is Status.SUCCEEDED, done.error
    assert done.method == "reinforcement"
    assert done.resolved
    assert done.resolved["eval_interval"] == 5
    with pytest.raises(ProviderRefused) as refused:
        await adapter.create(replace(asked, grader={"type": "score_model", "name": "s"}))
    assert refused.value.param == "grader"
    line = orjson.loads((simulator.storage.read(uri) or b"").splitlines()[0])
    code = reward_config(grader)["codeExecutionRewardScorer"]["pythonCodeSnippet"]
    names: dict[str, Any] = {}
    exec(code, names)
    answer = {"role": "model", "parts": [{"text": "no", "thought": True}, {"text": "A case."}]}
    assert names["evaluate"](line, answer) == 0.75
    assert names["evaluate"]({"contents": []}, answer) == 0


async def tuned(adapter: Vertex, folder: Path) -> str:
    made = await adapter.create(await order(WHERE, adapter, folder, "ftjob-AAAA1111"))
    model = (await until(adapter, made.id, *OVER)).model
    assert model
    return model


async def said(adapter: Vertex, target: str, asked: dict[str, Any]) -> tuple[int, bytes]:
    async with adapter.chat(target, asked) as reply:
        return reply.status, b"".join([chunk async for chunk in reply.chunks])


async def test_a_chat_calls_functions_and_is_refused_as_openai_does(
    served: tuple[VertexSimulator, Vertex], tmp_path: Path
) -> None:
    _, adapter = served
    model = await tuned(adapter, tmp_path)
    function = {"name": "look", "parameters": {"type": "object", "additionalProperties": False}}
    asked: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "Good day"},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "max_tokens": 5,
        "stop": "x",
    }
    status, whole = await said(adapter, model, asked)
    choice = orjson.loads(whole)["choices"][0]
    assert (status, choice["finish_reason"]) == (200, "tool_calls")
    call = choice["message"]["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("look", {"words": "Good day"})
    stream = {**asked, "stream": True, "stream_options": {"include_usage": True}}
    _, events = await said(adapter, model, stream)
    told = [json.loads(row[6:]) for row in events.decode().splitlines() if row[6:].startswith("{")]
    assert told[0]["choices"][0]["delta"]["tool_calls"][0]["index"] == 0
    assert told[-1]["usage"]["total_tokens"] == 16
    status, refused = await said(adapter, model, {"messages": []})
    assert (status, orjson.loads(refused)["error"]["type"]) == (400, "invalid_request_error")
    status, missing = await said(adapter, model[:-3], asked)
    assert (status, orjson.loads(missing)["error"]["code"]) == (404, "NOT_FOUND")


async def test_an_undeployed_model_is_gone(
    served: tuple[VertexSimulator, Vertex], tmp_path: Path
) -> None:
    simulator, adapter = served
    model = await tuned(adapter, tmp_path)
    simulator.undeployed[model] = 0.0
    assert (await adapter.deployment(model)).status == "stopped"
    await adapter.undeploy(model)
    with pytest.raises(ProviderMissing):
        await adapter.deployment(model)


async def test_a_large_file_is_sent_again_from_its_beginning(
    served: tuple[VertexSimulator, Vertex], tmp_path: Path
) -> None:
    simulator, adapter = served
    await adapter.check()
    simulator.cheats.errors = 1
    uri = await adapter.upload(data(tmp_path, chat_lines(20, "x" * 100_000)))
    assert len((simulator.storage.read(uri) or b"").splitlines()) == 20
