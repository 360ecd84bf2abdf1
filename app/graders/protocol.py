"""What goes over the pipe between the graders' process and whoever asks it: JSON, one line each."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.graders.result import GraderResult, Sample

LONGEST_LINE = 64 << 20  # bytes, of a request with its cases
CASES_LIMIT = 10_000


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GradeCase(_Line):
    """A sample that is a string is the model's text, and parsed as JSON if it is some."""

    item: dict[str, Any] = {}
    sample: str | Sample

    def whole(self) -> Sample:
        return Sample.of_text(self.sample) if isinstance(self.sample, str) else self.sample


class ModelEndpoint(_Line):
    """Where graders' models are called: `<base_url>/chat/completions`, with the token."""

    model_config = ConfigDict(hide_input_in_errors=True)

    base_url: str
    token: str = Field(repr=False)


class Grade(_Line):
    """Score the cases within `seconds`; `tenant` is the organization it is done for."""

    type: Literal["grade"] = "grade"
    id: int
    tenant: str
    grader: dict[str, Any]
    cases: Annotated[list[GradeCase], Field(max_length=CASES_LIMIT)]
    seconds: Annotated[float, Field(gt=0, le=86_400)]
    endpoint: ModelEndpoint | None = None


class Cancel(_Line):
    """Nobody waits for this request any more; it is not answered."""

    type: Literal["cancel"] = "cancel"
    id: int


class Ready(_Line):
    """The first line. `sandbox` is the engine that Python graders run in, null for none."""

    type: Literal["ready"] = "ready"
    sandbox: str | None
    description: str
    refused: dict[str, str]


class Scored(_Line):
    """One case of a request is done; they come in any order."""

    type: Literal["scored"] = "scored"
    id: int
    case: int
    result: GraderResult


class Done(_Line):
    type: Literal["done"] = "done"
    id: int


class Refused(_Line):
    """The request itself cannot be carried out."""

    type: Literal["refused"] = "refused"
    id: int
    problems: list[tuple[list[str], str]]


Request = Annotated[Grade | Cancel, Field(discriminator="type")]
Reply = Annotated[Ready | Scored | Done | Refused, Field(discriminator="type")]
_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
_REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)


def read_request(line: bytes) -> Request:
    """Raises `pydantic.ValidationError`."""
    return _REQUEST.validate_json(line)


def read_reply(line: bytes) -> Reply:
    """Raises `pydantic.ValidationError`."""
    return _REPLY.validate_json(line)


def write(line: Request | Reply) -> bytes:
    return line.model_dump_json(exclude_unset=False).encode() + b"\n"
