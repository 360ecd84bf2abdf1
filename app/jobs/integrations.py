"""Where else a job is shown, in OpenAI's words: Weights & Biases."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from app.jobs.errors import JobInputInvalid


def _addressable(name: str) -> str:
    """Its own rule: a project's name becomes part of an address."""
    if set(name) & set("/\\#?%:"):
        raise ValueError(r"a name there holds none of / \ # ? % :")
    return name


_Name = Annotated[
    str, StringConstraints(min_length=1, max_length=128), AfterValidator(_addressable)
]
_Tag = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Wandb(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    project: _Name
    entity: _Name | None = None
    name: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    tags: list[_Tag] = Field(default=[], max_length=50)


class Integration(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    wandb: Wandb


_ALL: TypeAdapter[list[Integration]] = TypeAdapter(
    Annotated[list[Integration], Field(max_length=5)]
)


def check(given: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As they are stored. Raises JobInputInvalid naming the field."""
    try:
        wanted = _ALL.validate_python(list(given))
    except ValidationError as wrong:
        first = wrong.errors()[0]
        path = ("integrations", *(str(part) for part in first["loc"]))
        raise JobInputInvalid(f"{'.'.join(path)}: {first['msg']}.", path=path) from wrong
    places = [(one.wandb.entity, one.wandb.project) for one in wanted]
    if len(set(places)) < len(places):
        raise JobInputInvalid(
            "Two integrations name the same project: leave one out.", path=("integrations",)
        )
    return [one.model_dump() for one in wanted]
