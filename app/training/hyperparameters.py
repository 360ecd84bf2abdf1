"""The settings of each method as a customer writes them: "auto", or a number. No torch here."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Auto = Literal["auto"]
Adapter = Literal["lora", "full"]
Method = Literal["supervised", "dpo", "reinforcement"]

Count = Annotated[int, Field(strict=True, ge=1)]


class EarlyStopping(BaseModel):
    """End when `patience` evaluations in a row brought no gain of more than `min_delta`.

    Looked at is the validation loss, in reinforcement the validation reward.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patience: Annotated[int, Field(strict=True, ge=1, le=1000)]
    min_delta: Annotated[float, Field(strict=True, ge=0, le=1000)] = 0.0


class Hyperparameters(BaseModel):
    """What all methods share; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_epochs: Auto | Annotated[int, Field(strict=True, ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(strict=True, ge=1, le=256)] = "auto"
    learning_rate: Auto | Annotated[float, Field(strict=True, gt=0, le=1)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(strict=True, gt=0, le=100)] = "auto"
    warmup_steps: Auto | Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = "auto"
    adapter: Adapter = "lora"
    lora_rank: Auto | Annotated[int, Field(strict=True, ge=1, le=256)] = "auto"
    max_length: Auto | Annotated[int, Field(strict=True, ge=16, le=32_768)] = "auto"
    checkpoint_interval: Auto | Count = "auto"
    eval_interval: Auto | Count = "auto"
    early_stopping: EarlyStopping | None = None

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        if self.learning_rate != "auto" and self.learning_rate_multiplier != "auto":
            raise ValueError(
                "learning_rate_multiplier scales the automatic learning rate, so it cannot be given"
                " together with learning_rate: leave one of them out"
            )
        if self.adapter == "full" and self.lora_rank != "auto":
            raise ValueError("lora_rank has no meaning with adapter 'full': leave it out")
        return self


class SupervisedHyperparameters(Hyperparameters):
    """Learning the assistant's answers."""


class DpoHyperparameters(Hyperparameters):
    """Direct preference optimisation. `beta` holds the model near where it started: the larger,
    the nearer."""

    beta: Auto | Annotated[float, Field(strict=True, gt=0, le=2)] = "auto"


class ReinforcementHyperparameters(Hyperparameters):
    """Reinforcement with graders. `batch_size` counts prompts, `max_length` a prompt's tokens.

    `beta` weighs the distance to the starting model in the loss; without it a policy soon finds
    what a grader overlooks.
    """

    beta: Auto | Annotated[float, Field(strict=True, ge=0, le=2)] = "auto"
    compute_multiplier: Auto | Annotated[float, Field(strict=True, ge=0.00001, le=10)] = "auto"
    eval_samples: Auto | Annotated[int, Field(strict=True, ge=1, le=64)] = "auto"
    max_completion_tokens: Auto | Annotated[int, Field(strict=True, ge=1, le=8192)] = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"


HYPERPARAMETERS: dict[str, type[Hyperparameters]] = {
    "supervised": SupervisedHyperparameters,
    "dpo": DpoHyperparameters,
    "reinforcement": ReinforcementHyperparameters,
}
