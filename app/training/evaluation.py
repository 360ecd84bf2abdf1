"""How a job's checkpoints are judged, as a customer writes it. No torch here."""

from collections import Counter
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.training.hyperparameters import Auto

MOST_GRADERS = 10


class NamedGrader(BaseModel):
    """A grader in OpenAI's form, and how much it counts beside the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=64)]
    grader: dict[str, Any]
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0


class Evaluation(BaseModel):
    """Answers to held-out cases, judged at every checkpoint.

    The score is the mean of the graders' means by weight. At temperature 0 the likeliest token is
    always taken, so that a second sample would say the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    graders: Annotated[list[NamedGrader], Field(min_length=1, max_length=MOST_GRADERS)]
    samples: Annotated[int, Field(strict=True, ge=1, le=16)] = 1
    max_completion_tokens: Auto | Annotated[int, Field(strict=True, ge=1, le=8192)] = "auto"
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    max_cases: Annotated[int, Field(strict=True, ge=1, le=1000)] = 50

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        name, times = Counter(one.name for one in self.graders).most_common(1)[0]
        if times > 1:
            raise ValueError(f"two graders are named {name!r}: give each a name of its own")
        if self.samples > 1 and not self.temperature:
            raise ValueError(
                "at temperature 0 all samples are the same: leave samples out, or raise temperature"
            )
        return self
