"""Answers that several simulators give in the same form."""

from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.responses import Response


def json_response(value: Any, status: int = 200, **headers: str) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def openai_error(status: int, code: str, message: str, param: str | None = None) -> Response:
    """An error as OpenAI writes it, and those who have taken over its API."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json_response(
        {"error": {"message": message, "type": kind, "param": param, "code": code}}, status
    )


def at_time(seconds: float) -> str:
    """RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def chat_answer(asked: dict[str, Any], model: str, created: int) -> Response:
    """What a model that is none says, whole or as a stream."""
    last = (asked.get("messages") or [{}])[-1].get("content") or ""
    words = f"(simulated {model}) {last if isinstance(last, str) else ''}".strip()
    tokens = {"prompt_tokens": 8, "completion_tokens": 8, "total_tokens": 16}
    head = {"id": "chatcmpl-simulated", "created": created, "model": model}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": words, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return json_response(
            {**head, "object": "chat.completion", "choices": [choice], "usage": tokens}
        )
    chunks = [
        {"index": 0, "delta": {"role": "assistant", "content": words}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "stop"},
    ]
    parts: list[dict[str, Any]] = [{"choices": [chunk]} for chunk in chunks]
    if (asked.get("stream_options") or {}).get("include_usage"):
        parts.append({"choices": [], "usage": tokens})
    lines = [
        b"data: %b\n\n" % orjson.dumps({**head, "object": "chat.completion.chunk", **part})
        for part in parts
    ]
    return Response(b"".join([*lines, b"data: [DONE]\n\n"]), media_type="text/event-stream")
