"""OpenAI's chat completions, asked and answered by Gemini's generateContent.

Wire format: google-genai 3.4.0's types. What has no counterpart, such as log probabilities, is left
out of the question.
"""

import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from app.providers.cases import CannotConvert
from app.providers.completions import completion
from app.providers.vertex.gemini import conversation, declared

_SAME = {
    "temperature": "temperature",
    "top_p": "topP",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}
_ENDS = {
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
}


def question(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Raises CannotConvert."""
    system, contents = conversation(asked.get("messages"))
    body: dict[str, Any] = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    settings = {
        theirs: asked[ours] for ours, theirs in _SAME.items() if asked.get(ours) is not None
    }
    if stop := asked.get("stop"):
        settings["stopSequences"] = [stop] if isinstance(stop, str) else stop
    settings |= _format(asked.get("response_format"))
    if settings:
        body["generationConfig"] = settings
    if tools := declared(asked.get("tools")):
        body["tools"] = tools
        if choice := asked.get("tool_choice"):
            body["toolConfig"] = {"functionCallingConfig": _choice(choice)}
    return body


def _format(wanted: Any) -> dict[str, Any]:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("json_object", "json_schema"):
        return {}
    schema = (wanted.get("json_schema") or {}).get("schema") if kind == "json_schema" else None
    return {"responseMimeType": "application/json"} | (
        {"responseJsonSchema": schema} if schema else {}
    )


def _choice(choice: Any) -> dict[str, Any]:
    if isinstance(choice, str) and choice in _MODES:
        return {"mode": _MODES[choice]}
    function = choice.get("function") if isinstance(choice, dict) else None
    if not isinstance(function, dict) or not function.get("name"):
        raise CannotConvert("tool_choice names no function")
    return {"mode": "ANY", "allowedFunctionNames": [function["name"]]}


def answer(told: Mapping[str, Any], model: str) -> dict[str, Any]:
    """A `chat.completion`."""
    choices = [_answer(row, number) for number, row in enumerate(told.get("candidates") or [])]
    if not choices:  # the question itself was blocked
        message = {"role": "assistant", "content": "", "refusal": None}
        choices = [{"index": 0, "message": message, "finish_reason": "content_filter"}]
    usage = told.get("usageMetadata") or {}
    said = int(usage.get("candidatesTokenCount") or 0) + int(usage.get("thoughtsTokenCount") or 0)
    tokens = usage.get("promptTokenCount"), said, usage.get("totalTokenCount")
    return completion(model, choices, tokens, told.get("responseId"))


def _answer(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    parts = (row.get("content") or {}).get("parts") or []
    words = "".join(part.get("text") or "" for part in parts if not part.get("thought"))
    calls = [
        {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {
                "name": part["functionCall"].get("name", ""),
                "arguments": orjson.dumps(part["functionCall"].get("args") or {}).decode(),
            },
        }
        for part in parts
        if part.get("functionCall")
    ]
    message: dict[str, Any] = {"role": "assistant", "content": words, "refusal": None}
    if calls:
        message |= {"content": words or None, "tool_calls": calls}
    end = _ENDS.get(row.get("finishReason", ""), "tool_calls" if calls else "stop")
    return {"index": int(row.get("index") or number), "message": message, "finish_reason": end}
