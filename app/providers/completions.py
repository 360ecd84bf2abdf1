"""Answers in the form of OpenAI's chat completions, where a provider's own form is another."""

import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import orjson

from app.core import clock
from app.core.egress import Reply
from app.providers.errors import ProviderUnreachable


async def whole(reply: Reply, who: str) -> Any:
    """The JSON that came; None when it was none. Raises ProviderUnreachable."""
    try:
        content = b"".join([chunk async for chunk in reply.chunks])
    except httpx.TransportError as trouble:
        raise ProviderUnreachable(f"{who} broke off its answer.") from trouble
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def completion(
    model: str, choices: list[dict[str, Any]], tokens: tuple[Any, Any, Any], id: str | None = None
) -> dict[str, Any]:
    """`tokens`: those read, those written, and all of them."""
    read, written = int(tokens[0] or 0), int(tokens[1] or 0)
    return {
        "id": f"chatcmpl-{id or uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(clock.now().timestamp()),
        "model": model,
        "choices": choices,
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": int(tokens[2] or read + written),
        },
    }


def answered(made: Mapping[str, Any], asked: Mapping[str, Any]) -> Reply:
    """A completion as it was asked for: whole, or as a stream."""
    if not asked.get("stream"):
        return _reply(200, "application/json", orjson.dumps(made))
    usage = bool((asked.get("stream_options") or {}).get("include_usage"))
    return _reply(200, "text/event-stream", streamed(made, usage=usage))


def streamed(made: Mapping[str, Any], *, usage: bool) -> bytes:
    """A completion as server-sent events, each answer in one piece."""
    head = {name: made[name] for name in ("id", "created", "model")}
    head["object"] = "chat.completion.chunk"
    events: list[dict[str, Any]] = []
    for choice in made["choices"]:
        message, index = choice["message"], choice["index"]
        delta = {"role": "assistant", "content": message["content"]}
        if calls := message.get("tool_calls"):
            delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(calls)]
        for part, end in ((delta, None), ({}, choice["finish_reason"])):
            one = {"index": index, "delta": part, "finish_reason": end}
            events.append({**head, "choices": [one]})
    if usage:
        events.append({**head, "choices": [], "usage": made["usage"]})
    return b"".join(b"data: %b\n\n" % orjson.dumps(event) for event in events) + b"data: [DONE]\n\n"


def refused(status: int, message: str, code: str | None = None, param: str | None = None) -> Reply:
    """An error as OpenAI writes it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return _reply(status, "application/json", orjson.dumps({"error": error}))


def _reply(status: int, kind: str, content: bytes) -> Reply:
    return Reply(status, kind, _once(content))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
