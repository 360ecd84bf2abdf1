"""score_model and label_model, asked of a server on a real socket."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.graders.client import Graders, Options
from app.graders.protocol import GradeCase, ModelEndpoint
from app.graders.result import GraderResult
from tests.graders.model_server import TOKEN, ModelServer, completion, model_server, refusal

SCORE: dict[str, Any] = {
    "type": "score_model",
    "name": "judge",
    "model": "judge",
    "input": [
        {"role": "developer", "content": "Judge the answer."},
        {"role": "user", "content": "Question: {{ item.q }} Answer: {{ sample.output_text }}"},
    ],
    "range": [0, 10],
    "pass_threshold": 5,
    "sampling_params": {"seed": 7, "temperature": 0.5, "top_p": 0.9, "max_completions_tokens": 99},
}
LABEL: dict[str, Any] = {
    "type": "label_model",
    "name": "mood",
    "model": "judge",
    "input": [{"role": "user", "content": "{{ sample.output_text }}"}],
    "labels": ["Friendly", "Rude"],
    "passing_labels": ["Friendly"],
}
UNSUPPORTED = (400, refusal(400, "response_format: only {'type': 'text'} is supported"))


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as running:
        yield running


@pytest.fixture(scope="module")
async def models(server: ModelServer) -> AsyncIterator[Graders]:
    running = Graders(Options(sandbox="off", model_urls=[server.url]))
    yield running
    await running.close()


async def grade(
    models: Graders,
    server: ModelServer,
    grader: dict[str, Any],
    url: str | None = None,
    **item: Any,
) -> GraderResult:
    (result,) = await models.grade(
        grader,
        [GradeCase(item={"q": "Why?", **item}, sample="Because.")],
        tenant="org",
        seconds=60,
        endpoint=ModelEndpoint(base_url=url or server.url, token=TOKEN),
    )
    return result


async def test_a_score(models: Graders, server: ModelServer) -> None:
    server.say(json.dumps({"steps": [], "result": 7.5}))
    result = await grade(models, server, SCORE)
    assert result.reward == 7.5
    assert not result.failed
    assert result.metadata.passed is True
    assert result.metadata.scores == {"judge": 7.5}
    assert result.metadata.token_usage == 42
    assert result.metadata.sampled_model_name == "judge-2026-01-01"
    assert result.model_grader_token_usage_per_model == {"judge": 42}
    (asked,) = server.requests
    schema = asked.pop("response_format")["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"]["result"] == {"type": "number"}
    assert asked == {
        "model": "judge",
        "messages": [
            {"role": "developer", "content": "Judge the answer."},
            {"role": "user", "content": "Question: Why? Answer: Because."},
        ],
        "seed": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 99,
    }


async def test_pictures_and_sound_are_passed_on(models: Graders, server: ModelServer) -> None:
    server.say('{"result": 1}')
    parts = [
        {"type": "input_text", "text": "Look at {{ item.q }}"},
        {"type": "input_image", "image_url": "{{ item.picture }}", "detail": "high"},
        {"type": "input_audio", "input_audio": {"data": "{{ item.sound }}", "format": "mp3"}},
    ]
    grader = SCORE | {"input": [{"role": "user", "content": parts}]}
    await grade(models, server, grader, picture="data:image/png;base64,AA==", sound="QUJD")
    assert server.requests[0]["messages"][0]["content"] == [
        {"type": "text", "text": "Look at Why?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "high"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
    ]


@pytest.mark.parametrize(
    ("said", "reward"),
    [
        ('{"result": 11}', 10),  # clamped to the range
        ('{"result": -3}', 0),
        ('{"result": "4.5"}', 4.5),
        ('Well {maybe}.\n```json\n{"result": 3}\n```', 3),
        ("6", 6),
    ],
)
async def test_what_counts_as_a_score(
    models: Graders, server: ModelServer, said: str, reward: float
) -> None:
    server.say(said)
    result = await grade(models, server, SCORE)
    assert (result.reward, result.failed) == (reward, False)
    assert bool(result.metadata.notes) == (reward in (0, 10))


@pytest.mark.parametrize(
    "said", ["", "fine", '{"result": null}', '{"score": 3}', '{"result": NaN}']
)
async def test_what_does_not(models: Graders, server: ModelServer, said: str) -> None:
    server.say(said)
    result = await grade(models, server, SCORE)
    assert result.reward == 0
    assert result.metadata.errors.model_grader_parse_error
    assert result.metadata.token_usage == 42  # paid for all the same
    assert result.metadata.passed is None


@pytest.mark.parametrize(
    ("said", "reward"), [('{"result": "Friendly"}', 1), ('{"result": "Rude"}', 0), ("friendly.", 1)]
)
async def test_a_label(models: Graders, server: ModelServer, said: str, reward: float) -> None:
    server.say(said)
    result = await grade(models, server, LABEL)
    assert (result.reward, result.failed) == (reward, False)
    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["result"]["enum"] == ["Friendly", "Rude"]


async def test_an_unknown_label(models: Graders, server: ModelServer) -> None:
    server.say('{"result": "Neutral"}')
    assert (await grade(models, server, LABEL)).metadata.errors.model_grader_parse_error


async def test_a_refusal(models: Graders, server: ModelServer) -> None:
    server.say((200, completion(None, refused="I cannot judge this.")))
    errors = (await grade(models, server, SCORE)).metadata.errors
    assert errors.model_grader_refusal_error
    assert errors.details == "I cannot judge this."
    server.say((200, completion("", finish="content_filter")))
    assert (await grade(models, server, SCORE)).metadata.errors.model_grader_refusal_error


async def test_an_answer_cut_short(models: Graders, server: ModelServer) -> None:
    server.say((200, completion('{"steps": [', finish="length")))
    errors = (await grade(models, server, SCORE)).metadata.errors
    assert errors.model_grader_parse_error
    assert "limit of tokens" in (errors.details or "")


async def test_it_is_asked_again_after_429_and_5xx(models: Graders, server: ModelServer) -> None:
    server.say((429, refusal(429, "slow down")), (503, b"<html>busy</html>"), '{"result": 2}')
    assert (await grade(models, server, SCORE)).reward == 2
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "tries", "says"),
    [
        ((500, refusal(500, "it broke")), 5, "it broke"),
        ((404, refusal(404, "no model judge")), 1, "no model judge"),
        ((200, b"not JSON"), 1, "no chat completion"),
        ((200, {"choices": []}), 1, "no chat completion"),
    ],
)
async def test_a_server_in_trouble(
    models: Graders, server: ModelServer, answer: tuple[int, Any], tries: int, says: str
) -> None:
    server.say(answer)
    result = await grade(models, server, SCORE)
    assert result.metadata.errors.model_grader_server_error
    assert says in (result.metadata.errors.model_grader_server_error_details or "")
    assert TOKEN not in result.model_dump_json()
    assert len(server.requests) == tries


async def test_a_server_without_structured_output_is_asked_in_words(
    server: ModelServer,
) -> None:
    models = Graders(Options(sandbox="off", model_urls=[server.url]))
    server.say(UNSUPPORTED, '{"result": 3}', '{"result": "Rude"}')
    assert (await grade(models, server, SCORE)).reward == 3
    assert (await grade(models, server, LABEL)).reward == 0
    await models.close()
    assert ["response_format" in asked for asked in server.requests] == [True, False, False]
    assert "a number from 0 to 10" in server.requests[1]["messages"][-1]["content"]
    assert '"Friendly", "Rude"' in server.requests[2]["messages"][-1]["content"]


async def test_only_allowed_servers_are_called(models: Graders, server: ModelServer) -> None:
    server.say('{"result": 1}')
    result = await grade(models, server, SCORE, url="http://127.0.0.1:1/v1")
    assert "not among the allowed" in (result.metadata.errors.details or "")
    (result,) = await models.grade(
        SCORE, [GradeCase(item={"q": ""}, sample="x")], tenant="org", seconds=9
    )
    assert "No endpoint" in (result.metadata.errors.details or "")
    assert server.requests == []


async def test_tokens_add_up_in_a_multi_grader(models: Graders, server: ModelServer) -> None:
    server.say('{"result": 4}')
    multi = {
        "type": "multi",
        "name": "both",
        "graders": {"a": SCORE, "b": SCORE | {"model": "other"}},
        "calculate_output": "(a + b) / 2",
    }
    result = await grade(models, server, multi)
    assert result.reward == 4
    assert result.sub_rewards == {"a": 4, "b": 4}
    assert result.model_grader_token_usage_per_model == {"judge": 42, "other": 42}
    assert result.metadata.token_usage == 84


async def test_what_is_missing_in_the_item_is_not_asked(
    models: Graders, server: ModelServer
) -> None:
    server.say('{"result": 4}')
    grader = SCORE | {"input": [{"role": "user", "content": "{{ item.nowhere }}"}]}
    result = await grade(models, server, grader)
    assert result.metadata.errors.invalid_variable_error
    assert server.requests == []
