"""What grading one sample gives, in OpenAI's shape; what is ours beside it says so."""

import contextlib
import json
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class GraderErrors(BaseModel):
    """Which kinds of trouble there were. Only the first flag's reason is kept in `details`."""

    model_config = ConfigDict(extra="forbid")

    formula_parse_error: bool = False
    sample_parse_error: bool = False
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False
    invalid_variable_error: bool = False
    other_error: bool = False
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    model_grader_server_error: bool = False
    model_grader_refusal_error: bool = False
    model_grader_parse_error: bool = False
    model_grader_server_error_details: str | None = None
    details: str | None = Field(None, description="Ours: the first trouble, in one sentence.")

    @property
    def any(self) -> bool:
        return any(value is True for value in self.__dict__.values())

    def merge(self, other: Self) -> None:
        for name, value in other.__dict__.items():
            if value and not getattr(self, name):
                setattr(self, name, value)


class GraderMetadata(BaseModel):
    """`scores` has each grader's own value, by name."""

    model_config = ConfigDict(extra="forbid")

    name: str
    type: str
    errors: GraderErrors = Field(default_factory=GraderErrors)
    execution_time: float = Field(0.0, description="Seconds.")
    scores: dict[str, float] = {}
    token_usage: int | None = None
    sampled_model_name: str | None = None
    passed: bool | None = Field(None, description="Ours: whether `pass_threshold` was reached.")
    notes: list[str] = Field([], description="Ours: what the reader of the score should know.")


class GraderResult(BaseModel):
    """With an error the reward is 0 and `metadata.errors` says why: no basis for learning."""

    model_config = ConfigDict(extra="forbid")

    reward: float = 0.0
    sub_rewards: dict[str, float] = {}
    metadata: GraderMetadata
    model_grader_token_usage_per_model: dict[str, int] = {}

    @property
    def failed(self) -> bool:
        return self.metadata.errors.any


class Sample(BaseModel):
    """A model's answer, as templates and Python graders see it; `output_json` if it is JSON."""

    model_config = ConfigDict(extra="forbid")

    output_text: str
    output_json: Any = None
    output_tools: list[dict[str, Any]] = []
    choices: list[dict[str, Any]] = []
    output_audio: dict[str, Any] | None = None

    @classmethod
    def of_text(cls, text: str) -> Self:
        message = {"role": "assistant", "content": text}
        given: dict[str, Any] = {
            "output_text": text,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        with contextlib.suppress(ValueError, RecursionError):
            given["output_json"] = json.loads(text, parse_constant=_no_constant)
        return cls(**given)

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What was not given is absent, so that a reference to it is an error."""
        given = self.model_fields_set | {"output_text", "output_tools"}
        return {name: value for name, value in write(self).items() if name in given}

    def namespace(self) -> dict[str, Any]:
        return self.model_dump()


def sendable(text: str) -> str:
    """Without the halves of characters that code and JSON can produce and UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode()


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
