"""The shapes that cross the wire: OpenAI's chat completions as vLLM speaks them.

Free of torch and of any web framework, so that the API's proxy can read the same shapes.
"""

import time
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

FinishReason = Literal["stop", "length"]


class ApiError(Exception):
    """A refusal in OpenAI's envelope."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def type(self) -> str:
        return {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )

    def body(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    @classmethod
    def from_validation(cls, error: ValidationError) -> Self:
        """The first complaint only, naming its field: OpenAI reports one at a time."""
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        message = first["msg"].removeprefix("Value error, ")
        return cls(400, f"{param}: {message}" if param else message, param=param, code="invalid")


class Shape(BaseModel):
    """Unknown fields are ignored: clients send settings that change nothing here."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Message(Shape):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _join_text_parts(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        texts: list[str] = []
        for part in value:
            kind = part.get("type") if isinstance(part, dict) else None
            text = part.get("text") if isinstance(part, dict) else None
            if kind != "text" or not isinstance(text, str):
                raise ValueError("only parts of type 'text' with a string 'text' are supported")
            texts.append(text)
        return "\n".join(texts)  # as vLLM joins them for templates that want a string


class StreamOptions(Shape):
    include_usage: bool | None = None


class ChatRequest(Shape):
    model: str
    messages: list[Message] = Field(min_length=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)  # vLLM's; 0 and -1 mean all
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: list[str] | None = Field(default=None, max_length=16)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    n: int | None = Field(default=None, ge=1, le=8)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None  # vLLM's
    # Fields that would change the answer and cannot: refused rather than silently dropped.
    logprobs: Any = None
    top_logprobs: Any = None
    logit_bias: Any = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    audio: Any = None
    min_p: Any = None
    repetition_penalty: Any = None
    structured_outputs: Any = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: list[str] | None) -> list[str] | None:
        if value and not all(value):
            raise ValueError("a stop string cannot be empty")
        return value

    @field_validator(
        "logprobs", "top_logprobs", "logit_bias", "functions", "function_call", "audio", "min_p",
        "structured_outputs", "tools",
    )  # fmt: skip
    @classmethod
    def _unsupported(cls, value: object) -> object:
        if value:
            raise ValueError("is not supported by this server")
        return value

    @field_validator("tool_choice")
    @classmethod
    def _tool_choice_none(cls, value: object) -> object:
        if value not in (None, "none", "auto"):  # without tools "auto" calls none
            raise ValueError("tool calls are not supported by this server")
        return value

    @field_validator("repetition_penalty")
    @classmethod
    def _neutral_penalty(cls, value: object) -> object:
        if value not in (None, 1):
            raise ValueError("is not supported by this server")
        return value

    @field_validator("response_format")
    @classmethod
    def _text_only(cls, value: object) -> object:
        if value is not None and not (isinstance(value, dict) and value.get("type") == "text"):
            raise ValueError("only {'type': 'text'} is supported by this server")
        return value

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def limit_field(self) -> str:
        return "max_completion_tokens" if self.max_completion_tokens else "max_tokens"


class Usage(Shape):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ReplyMessage(Shape):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None


class Choice(Shape):
    index: int
    message: ReplyMessage
    logprobs: None = None
    finish_reason: FinishReason


class Completion(Shape):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    choices: list[Choice]
    usage: Usage


class ModelCard(Shape):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "luthier"
    root: str
    parent: str | None = None
    max_model_len: int | None = None


class LoadAdapter(Shape):
    lora_name: str = Field(min_length=1, max_length=256)
    lora_path: str = Field(min_length=1)


class UnloadAdapter(Shape):
    lora_name: str = Field(min_length=1)
