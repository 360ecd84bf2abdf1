"""OpenAI's chat completions, asked and answered by Bedrock's Converse."""

from collections.abc import Mapping
from typing import Any

from app.providers.bedrock.cases import turns
from app.providers.cases import CannotConvert
from app.providers.completions import completion
from app.providers.errors import ProviderRefused

_FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


def question(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A request of OpenAI's chat completions as one for Converse. Raises ProviderRefused."""
    if asked.get("tools") or asked.get("functions"):
        raise ProviderRefused("Tools cannot be passed on to Bedrock.", param="tools")
    try:
        system, said = turns(asked.get("messages") or [])
    except CannotConvert as unfit:
        words = str(unfit)
        raise ProviderRefused(f"{words[0].upper()}{words[1:]}.", param="messages") from unfit
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens")
    stop = asked.get("stop")
    wanted = {
        "maxTokens": limit,
        "temperature": asked.get("temperature"),
        "topP": asked.get("top_p"),
        "stopSequences": [stop] if isinstance(stop, str) else stop,
    }
    given = {name: value for name, value in wanted.items() if value not in (None, [])}
    return {
        "messages": [{"role": role, "content": [{"text": text}]} for role, text in said],
        **({"system": [{"text": system}]} if system else {}),
        **({"inferenceConfig": given} if given else {}),
    }


def answer(said: Mapping[str, Any], model: str) -> dict[str, Any]:
    """A `chat.completion`."""
    content = (said["output"].get("message") or {}).get("content") or []
    words = "".join(part.get("text") or "" for part in content)
    message = {"role": "assistant", "content": words, "refusal": None}
    finish = _FINISHES.get(str(said.get("stopReason")), "stop")
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    tokens = said.get("usage") or {}
    counts = tokens.get("inputTokens"), tokens.get("outputTokens"), tokens.get("totalTokens")
    return completion(model, [choice], counts)
