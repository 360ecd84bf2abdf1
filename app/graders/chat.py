"""Asking a model to judge: any OpenAI-compatible chat completions endpoint, structured output."""

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.core.egress import Egress
from app.core.errors import Unavailable
from app.graders.spec import (
    AudioPart,
    Content,
    ImagePart,
    LabelModel,
    Message,
    SamplingParams,
    ScoreModel,
    TextPart,
)
from app.graders.templates import render
from app.graders.turns import Turns

_TRIES = 5
_FIRST_PAUSE = 0.5  # seconds; doubled each time
_LONGEST_PAUSE = 20.0
_LONGEST_ANSWER = 4 << 20  # bytes
_AT_ONCE = 32


@dataclass(frozen=True)
class Endpoint:
    """`<base_url>/chat/completions` is called with this token."""

    base_url: str
    token: str

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r})"


@dataclass(frozen=True)
class Answer:
    text: str
    model: str
    tokens: int


class ModelUnavailable(Exception):
    """The endpoint refused, or did not answer in all tries."""


class AnswerUnusable(Exception):
    """There was an answer, and it cost tokens, but it judges nothing."""

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer


class ModelRefused(AnswerUnusable):
    """The model declined to answer."""


class AnswerUnreadable(AnswerUnusable):
    """It was cut off at its limit of tokens, or holds no judgement."""


class Models:
    """`allowed` base URLs; a request for any other is refused here, whoever made it."""

    def __init__(self, egress: Egress, allowed: frozenset[str]) -> None:
        self._egress, self._allowed = egress, allowed
        self._turns = Turns(_AT_ONCE)
        self._unstructured: set[tuple[str, str]] = set()  # no response_format there

    async def ask(
        self,
        grader: ScoreModel | LabelModel,
        namespaces: Mapping[str, Any],
        endpoint: Endpoint | None,
        tenant: str,
    ) -> Answer:
        """Raises ModelUnavailable, AnswerUnusable and `templates.ReferenceMissing`."""
        if endpoint is None:
            raise ModelUnavailable("No endpoint was given for the models of graders.")
        if endpoint.base_url not in self._allowed:
            raise ModelUnavailable(f"{endpoint.base_url} is not among the allowed endpoints.")
        messages = [_message(message, namespaces) for message in grader.input]
        async with self._turns.turn(tenant):
            return await self._ask(grader, messages, endpoint)

    async def _ask(
        self, grader: ScoreModel | LabelModel, messages: list[dict[str, Any]], endpoint: Endpoint
    ) -> Answer:
        place = endpoint.base_url, grader.model
        if place not in self._unstructured:
            body = _body(grader, messages) | {"response_format": _format(grader)}
            status, said = await self._post(endpoint, body)
            if not (status in (400, 422) and _unsupported(said)):
                return _answer(status, said)
            self._unstructured.add(place)
        return _answer(*await self._post(endpoint, _body(grader, _instructed(grader, messages))))

    async def _post(self, endpoint: Endpoint, body: dict[str, Any]) -> tuple[int, bytes]:
        """Again after 429, 5xx and broken connections, with growing pauses."""
        url = f"{endpoint.base_url}/chat/completions"
        content = json.dumps(body).encode()
        trouble = ""
        for attempt in range(_TRIES):
            if attempt:
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1))
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
            try:
                status, said = await self._egress.post_json(
                    url, content, endpoint.token, longest=_LONGEST_ANSWER
                )
                if status != 429 and status < 500:
                    return status, said
                trouble = _complaint(status, said)
            except Unavailable as unavailable:
                trouble = unavailable.message
        raise ModelUnavailable(f"{trouble} ({_TRIES} tries)")


def _body(grader: ScoreModel | LabelModel, messages: list[dict[str, Any]]) -> dict[str, Any]:
    return {"model": grader.model, "messages": messages} | _sampling(grader.sampling_params)


def _sampling(params: SamplingParams) -> dict[str, Any]:
    given = params.model_dump(exclude_none=True)
    if (limit := given.pop("max_completions_tokens", None)) is not None:
        given["max_completion_tokens"] = limit
    return given


def _message(message: Message, namespaces: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": message.role, "content": _content(message.content, namespaces)}


def _content(content: Content, namespaces: Mapping[str, Any]) -> str | list[dict[str, Any]]:
    """Text alone stays a string: not every server takes a list of parts."""
    if isinstance(content, str):
        return render(content, namespaces)
    parts = content if isinstance(content, list) else [content]
    match parts:
        case [str(text)] | [TextPart(text=text)]:
            return render(text, namespaces)
    return [_part(part, namespaces) for part in parts]


def _part(
    part: str | TextPart | ImagePart | AudioPart, namespaces: Mapping[str, Any]
) -> dict[str, Any]:
    match part:
        case ImagePart():
            image = {"url": render(part.image_url, namespaces)}
            if part.detail is not None:
                image["detail"] = part.detail
            return {"type": "image_url", "image_url": image}
        case AudioPart():
            data = render(part.input_audio.data, namespaces)
            audio = {"data": data, "format": part.input_audio.format}
            return {"type": "input_audio", "input_audio": audio}
        case TextPart():
            return {"type": "text", "text": render(part.text, namespaces)}
        case _:
            return {"type": "text", "text": render(part, namespaces)}


def _format(grader: ScoreModel | LabelModel) -> dict[str, Any]:
    """The steps come first, so that the model reasons before it concludes."""
    step = {
        "type": "object",
        "properties": {"description": {"type": "string"}, "conclusion": {"type": "string"}},
        "required": ["description", "conclusion"],
        "additionalProperties": False,
    }
    result: dict[str, Any] = {"type": "number"}
    if isinstance(grader, LabelModel):
        result = {"type": "string", "enum": grader.labels}
    schema = {
        "type": "object",
        "properties": {"steps": {"type": "array", "items": step}, "result": result},
        "required": ["steps", "result"],
        "additionalProperties": False,
    }
    return {
        "type": "json_schema",
        "json_schema": {"name": "grade", "strict": True, "schema": schema},
    }


def _instructed(
    grader: ScoreModel | LabelModel, messages: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """For a server without structured output: the wish in words, at the end of the last message."""
    if isinstance(grader, LabelModel):
        wish = "one of the labels " + ", ".join(json.dumps(label) for label in grader.labels)
    else:
        wish = f"a number from {grader.range[0]:g} to {grader.range[1]:g}"
    words = f'Answer only with JSON of the form {{"result": …}}, where the result is {wish}.'
    *before, last = messages
    if last["role"] != "user":
        return [*messages, {"role": "user", "content": words}]
    if isinstance(last["content"], str):
        return [*before, last | {"content": f"{last['content']}\n\n{words}"}]
    return [*before, last | {"content": [*last["content"], {"type": "text", "text": words}]}]


def _unsupported(said: bytes) -> bool:
    text = said[:4_000].lower()
    return any(word in text for word in (b"response_format", b"json_schema", b"structured"))


def _complaint(status: int, said: bytes) -> str:
    """The server's own words, as far as they are a sentence in OpenAI's envelope."""
    try:
        message = json.loads(said)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = ""
    return f"The model's server answered {status}: {str(message)[:300]}".rstrip(": ") + "."


def _answer(status: int, said: bytes) -> Answer:
    if status != 200:
        raise ModelUnavailable(_complaint(status, said))
    try:
        reply = json.loads(said)
        choice = reply["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content") or "", message.get("refusal")
        answer = Answer(str(text), str(reply.get("model", "")), _tokens(reply.get("usage")))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as strange:
        raise ModelUnavailable("The model's server answered with no chat completion.") from strange
    if refusal or choice.get("finish_reason") == "content_filter":
        raise ModelRefused(str(refusal or "The answer was withheld by a filter.")[:300], answer)
    if choice.get("finish_reason") == "length":
        raise AnswerUnreadable("The model's answer was cut off at its limit of tokens.", answer)
    return answer


def _tokens(usage: Any) -> int:
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) else 0
