"""What goes in and out of `python -m app.tracking`: one JSON object a line. Importable without
wandb."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, field_serializer

Values = dict[str, float | None]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Begin(_Line):
    """The first line in. The same `run_id` again goes on with the run. `api_key` and `mode` null:
    as the environment says. `patience` is how many seconds the service is given to answer."""

    type: Literal["begin"] = "begin"
    project: str
    entity: str | None
    name: str
    tags: list[str]
    run_id: str
    config: dict[str, Any]
    folder: str
    patience: float
    mode: Literal["online", "offline"] | None = None
    api_key: SecretStr | None = None

    @field_serializer("api_key", when_used="json")
    def _shown_to_the_process(self, key: SecretStr | None) -> str | None:
        return key.get_secret_value() if key else None


class Point(_Line):
    type: Literal["point"] = "point"
    step: int
    values: Values


class End(_Line):
    """The last line in. Without it the run counts as broken off."""

    type: Literal["end"] = "end"
    failed: bool


class Shown(_Line):
    """The run can be looked at there."""

    type: Literal["shown"] = "shown"
    url: str


class Trouble(_Line):
    """The last line out, when it did not work."""

    type: Literal["trouble"] = "trouble"
    message: str


Input = Annotated[Point | End, Field(discriminator="type")]
INPUT: TypeAdapter[Input] = TypeAdapter(Input)
Output = Annotated[Shown | Trouble, Field(discriminator="type")]
OUTPUT: TypeAdapter[Output] = TypeAdapter(Output)
