"""The methods that submitJob takes, each with its hyperparameters."""

from enum import Enum
from typing import Any

import strawberry

from app.api.graphql import grader_inputs
from app.api.graphql.grader_inputs import GraderInput
from app.api.graphql.scalars import AutoFloat, AutoInt


@strawberry.enum(description="What is trained.")
class Adapter(Enum):
    LORA = strawberry.enum_value("lora", description="A small low-rank adapter beside the weights.")
    FULL = strawberry.enum_value("full", description="All the weights.")


@strawberry.input(
    description="End the job when its validation no longer gets better; needs validation data."
)
class EarlyStoppingInput:
    patience: int = strawberry.field(
        description="Evaluations in a row that may bring no gain, 1 to 1000."
    )
    min_delta: float = strawberry.field(
        description="What counts as a gain: of the validation loss, in reinforcement of the "
        "validation reward, more than this.",
        default=0.0,
    )


@strawberry.input(description="What the hyperparameters of all methods have in common.")
class CommonHyperparameters:
    n_epochs: AutoInt | None = strawberry.field(
        description="Passes over the data, 1 to 50.", default=None
    )
    batch_size: AutoInt | None = strawberry.field(
        description="Cases per step, 1 to 256.", default=None
    )
    learning_rate: AutoFloat | None = strawberry.field(
        description="Above 0, at most 1; or give learningRateMultiplier.", default=None
    )
    learning_rate_multiplier: AutoFloat | None = strawberry.field(
        description="Times the automatic learning rate, above 0, at most 100.", default=None
    )
    warmup_steps: AutoInt | None = strawberry.field(
        description="Steps over which the learning rate rises.", default=None
    )
    adapter: Adapter | None = strawberry.field(
        description="A small adapter, or all weights.", default=None
    )
    lora_rank: AutoInt | None = strawberry.field(
        description="Size of the adapter, 1 to 256.", default=None
    )
    max_length: AutoInt | None = strawberry.field(
        description="Tokens of a case, 16 to 32768; longer ones are cut.", default=None
    )
    checkpoint_interval: AutoInt | None = strawberry.field(
        description="Steps between checkpoints.", default=None
    )
    eval_interval: AutoInt | None = strawberry.field(
        description="Steps between looks at the validation data.", default=None
    )
    early_stopping: EarlyStoppingInput | None = strawberry.field(
        description="When to end before the last step; never when left out.", default=None
    )

    def plain(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in vars(self).items() if value is not None}


_AUTO = 'Each is automatic when left out or "auto"; the job says what it became.'


@strawberry.input(description=_AUTO)
class SupervisedHyperparametersInput(CommonHyperparameters):
    pass


@strawberry.input(description=_AUTO)
class DpoHyperparametersInput(CommonHyperparameters):
    beta: AutoFloat | None = strawberry.field(
        description="How near the model is held to where it started, above 0, at most 2; 0.1 when "
        "automatic.",
        default=None,
    )


@strawberry.enum(description="How long a model thinks before it answers.")
class ReasoningEffort(Enum):
    DEFAULT = strawberry.enum_value("default", description="As the base model does by itself.")
    LOW = strawberry.enum_value("low", description="Briefly.")
    MEDIUM = strawberry.enum_value("medium", description="In between.")
    HIGH = strawberry.enum_value("high", description="At length.")


@strawberry.input(description=_AUTO + " batchSize counts prompts, maxLength a prompt's tokens.")
class ReinforcementHyperparametersInput(CommonHyperparameters):
    beta: AutoFloat | None = strawberry.field(
        description="Weight of the distance from the starting model, 0 to 2; 0.04 when automatic.",
        default=None,
    )
    compute_multiplier: AutoFloat | None = strawberry.field(
        description="Times the automatic number of samples of a prompt, 0.00001 to 10; at least "
        "two samples are drawn.",
        default=None,
    )
    eval_samples: AutoInt | None = strawberry.field(
        description="Samples of a validation prompt, 1 to 64.", default=None
    )
    max_completion_tokens: AutoInt | None = strawberry.field(
        description="Tokens of a sample, 1 to 8192; longer ones are cut.", default=None
    )
    reasoning_effort: ReasoningEffort | None = strawberry.field(
        description="For base models whose chat template knows it; the job fails otherwise.",
        default=None,
    )


@strawberry.input(description="Supervised fine-tuning: learn the assistant's answers.")
class SupervisedInput:
    hyperparameters: SupervisedHyperparametersInput | None = strawberry.field(
        description="All automatic when left out.", default=None
    )


@strawberry.input(
    description="Direct preference optimization: learn to prefer one answer to another."
)
class DpoInput:
    hyperparameters: DpoHyperparametersInput | None = strawberry.field(
        description="All automatic when left out.", default=None
    )


@strawberry.input(description="Reinforcement: make answers likelier that a grader likes.")
class ReinforcementInput:
    grader: GraderInput = strawberry.field(description="What gives the rewards.")
    hyperparameters: ReinforcementHyperparametersInput | None = strawberry.field(
        description="All automatic when left out.", default=None
    )


@strawberry.input(description="How to tune: exactly one method.", one_of=True)
class MethodInput:
    supervised: strawberry.Maybe[SupervisedInput] = strawberry.field(
        description="Learn the assistant's answers; takes CHAT data."
    )
    dpo: strawberry.Maybe[DpoInput] = strawberry.field(
        description="Learn preferences; takes PREFERENCE data."
    )

    reinforcement: strawberry.Maybe[ReinforcementInput] = strawberry.field(
        description="Learn from rewards; takes REINFORCEMENT data."
    )

    @property
    def name(self) -> str:
        if self.reinforcement:
            return "reinforcement"
        return "dpo" if self.dpo else "supervised"

    def grader(self) -> dict[str, Any] | None:
        """In OpenAI's format. Raises Invalid."""
        if not self.reinforcement:
            return None
        given = self.reinforcement.value.grader
        return grader_inputs.plain(given, "method", "reinforcement", "grader")

    def hyperparameters(self) -> dict[str, Any]:
        """What was given, under the names of `app.training.hyperparameters`."""
        chosen = self.reinforcement or self.dpo or self.supervised
        given = chosen.value.hyperparameters if chosen else None
        return given.plain() if given else {}


def _plain(value: Any) -> Any:
    if isinstance(value, EarlyStoppingInput):
        return dict(vars(value))
    return value.value if isinstance(value, Enum) else value
