"""What the serving process refuses, and how."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.talk import PATH, ask, question, refused, stream
from tests.serving.world import BASE, Server, run_refused

pytestmark = pytest.mark.train


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("temperature", 2.1, "temperature"),
        ("temperature", "0.5", "temperature"),
        ("top_p", 0, "top_p"),
        ("max_tokens", 0, "max_tokens"),
        ("max_tokens", 3.5, "max_tokens"),
        ("n", 9, "n"),
        ("n", True, "n"),
        ("seed", "x", "seed"),
        ("stop", 5, "stop"),
        ("stop", ["a", ""], "stop"),
        ("stream", "yes", "stream"),
        ("stream_options", {"include_usage": True}, "stream_options"),
        ("model", None, "model"),
        ("messages", [], "messages"),
        ("messages", "hello", "messages"),
        ("messages", [{"role": "robot", "content": "x"}], "messages.0.role"),
        ("messages", [{"role": "user", "content": 5}], "messages.0.content"),
        (
            "messages",
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "messages.0.content",
        ),
        ("messages", [{"role": "tool", "content": "x", "tool_call_id": "c"}], "messages"),
        ("logprobs", True, "logprobs"),
        ("logit_bias", {"5": 1}, "logit_bias"),
        ("tools", [{"type": "function", "function": {"name": "f"}}], "tools"),
        ("tool_choice", "required", "tool_choice"),
        ("response_format", {"type": "json_object"}, "response_format"),
    ],
)
async def test_a_bad_field_is_named(
    client: httpx.AsyncClient, field: str, value: object, param: str
) -> None:
    error = await refused(client, 400, **{field: value})
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


async def test_fields_that_change_nothing_are_ignored(client: httpx.AsyncClient) -> None:
    await ask(
        client, BASE, user="u", store=False, metadata={"a": "b"}, service_tier="auto",
        logprobs=False, tools=[], tool_choice="none", response_format={"type": "text"},
        parallel_tool_calls=True, top_logprobs=None, logit_bias={}, never_heard_of=1,
    )  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"x"'])
async def test_a_body_that_is_no_object(client: httpx.AsyncClient, body: bytes) -> None:
    reply = await client.post(PATH, content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"]


async def test_a_huge_body_is_not_read(client: httpx.AsyncClient) -> None:
    reply = await client.post(PATH, content=b" " * (9 * 1024 * 1024))
    assert reply.status_code == 413


async def test_an_unknown_model_lists_what_is_served(client: httpx.AsyncClient) -> None:
    error = await refused(client, 404, model="gpt-9")
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert "ft:tiny:one.v1" in error["message"]


async def test_the_context_limit_is_named(client: httpx.AsyncClient) -> None:
    usage = (await ask(client, BASE, max_tokens=1))["usage"]
    room = 512 - usage["prompt_tokens"]
    error = await refused(client, 400, max_tokens=room + 1)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "max_tokens")
    assert "512" in error["message"]
    full = await ask(client, BASE, max_tokens=room, ignore_eos=True)
    assert full["usage"]["total_tokens"] == 512
    open_ended = await ask(client, BASE, max_tokens=None, ignore_eos=True)
    assert open_ended["usage"]["total_tokens"] == 512
    long = [{"role": "user", "content": "木" * 600}]
    error = await refused(client, 400, messages=long, max_tokens=1)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize("key", [None, "Bearer wrong", "test-key", "Basic test-key"])
async def test_every_v1_route_wants_the_key(server: Server, key: str | None) -> None:
    headers = {"authorization": key} if key else {}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, verify=False) as client:
        assert (await client.get("/health")).status_code == 200
        for method, path in [
            ("GET", "/v1/models"), ("POST", PATH), ("POST", "/v1/load_lora_adapter"),
            ("POST", "/v1/unload_lora_adapter"), ("GET", "/v1/unknown"),
        ]:  # fmt: skip
            reply = await client.request(method, path, json={})
            assert reply.status_code == 401
            assert reply.json()["error"]["code"] == "invalid_api_key"


async def test_unknown_routes_and_methods(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/nothing")).json()["error"]["type"] == "not_found_error"
    assert (await client.get(PATH)).status_code == 405


def test_it_does_not_start_without_a_key_or_a_model(model: Path, tmp_path: Path) -> None:
    words = ["--served-model-name", "x", "--port", "0", "--model"]
    keyless = run_refused(*words, str(model), env={"VLLM_API_KEY": ""})
    assert keyless.returncode != 0
    assert "VLLM_API_KEY" in keyless.stderr
    missing = run_refused(*words, str(tmp_path), env={"VLLM_API_KEY": "k"})
    assert missing.returncode != 0
    assert "config.json" in missing.stderr


async def test_broken_weights_fail_their_own_request_only(
    server: Server, client: httpx.AsyncClient, nan_adapter: str
) -> None:
    load: dict[str, Any] = {"lora_name": "broken", "lora_path": nan_adapter}
    assert (await client.post("/v1/load_lora_adapter", json=load)).status_code == 200
    alone = await ask(client, BASE, ignore_eos=True, max_tokens=60)
    good, bad, torn = await asyncio.gather(
        ask(client, BASE, ignore_eos=True, max_tokens=60),
        client.post(PATH, json=question("broken")),
        stream(client, question("broken")),
    )
    assert good["choices"] == alone["choices"]
    assert bad.status_code == 500
    assert "NaN" in bad.json()["error"]["message"]
    assert torn[-1]["error"]["type"] == "server_error"
    await client.post("/v1/unload_lora_adapter", json={"lora_name": "broken"})
    assert (await client.get("/health")).status_code == 200
