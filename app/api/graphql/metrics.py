"""Metric points as the API shows them."""

from datetime import datetime
from typing import Any

import strawberry

from app.api.graphql.scalars import JSON, BigInt
from app.jobs.metrics import Point
from app.jobs.scores import PART

_NAMED = (
    "training_loss",
    "validation_loss",
    "training_accuracy",
    "validation_accuracy",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "chosen_reward",
    "rejected_reward",
    "reward_accuracy",
    "reward_margin",
    "validation_chosen_reward",
    "validation_rejected_reward",
    "validation_reward_accuracy",
    "validation_reward_margin",
    "reward",
    "reward_std",
    "reward_zero_std_fraction",
    "validation_reward",
    "kl",
    "completion_length",
    "completion_clipped_fraction",
    "grader_error_fraction",
    "score",
)
_GRADER, _VALIDATION = "grader/", "validation_grader/"  # before a grader's name


@strawberry.type(description="What one grader of several gave, the mean over samples.")
class GraderReward:
    name: str = strawberry.field(description="Its name in the multi grader.")
    reward: float | None = strawberry.field(description="On this step's samples.")
    validation_reward: float | None = strawberry.field(description="On validation data.")


@strawberry.type(description="What one of the job's graders gave a checkpoint.")
class GraderMean:
    name: str = strawberry.field(description="Its name.")
    score: float | None = strawberry.field(description="The mean over the held-out cases.")


@strawberry.type(
    description="The values measured at one step. Null: not measured, or in nonFinite."
)
class MetricPoint:
    job_id: strawberry.ID = strawberry.field(description="The job.")
    attempt: int = strawberry.field(description="The attempt that measured it.")
    step: int = strawberry.field(description="The step; 0 is before training.")
    epoch: float | None = strawberry.field(description="Passes over the data, in parts.")
    training_loss: float | None = strawberry.field(description="On this step's batch.")
    validation_loss: float | None = strawberry.field(description="On the validation data.")
    training_accuracy: float | None = strawberry.field(description="Share of tokens foreseen.")
    validation_accuracy: float | None = strawberry.field(
        description="The same, on validation data."
    )
    learning_rate: float | None = strawberry.field(description="Used for this step.")
    gradient_norm: float | None = strawberry.field(description="Before clipping.")
    tokens_per_second: float | None = strawberry.field(description="Speed.")
    chosen_reward: float | None = strawberry.field(
        description="dpo: how much more probable preferred answers became, times beta."
    )
    rejected_reward: float | None = strawberry.field(
        description="dpo: the same of the other answers."
    )
    reward_accuracy: float | None = strawberry.field(
        description="dpo: share of pairs whose preferred answer gained more."
    )
    reward_margin: float | None = strawberry.field(
        description="dpo: chosenReward less rejectedReward, the mean over pairs."
    )
    validation_chosen_reward: float | None = strawberry.field(
        description="chosenReward on validation data."
    )
    validation_rejected_reward: float | None = strawberry.field(
        description="rejectedReward on validation data."
    )
    validation_reward_accuracy: float | None = strawberry.field(
        description="rewardAccuracy on validation data."
    )
    validation_reward_margin: float | None = strawberry.field(
        description="rewardMargin on validation data."
    )
    reward: float | None = strawberry.field(
        description="reinforcement: mean reward of this step's samples."
    )
    reward_std: float | None = strawberry.field(
        description="reinforcement: standard deviation of the rewards of one prompt's samples, the "
        "mean over prompts."
    )
    reward_zero_std_fraction: float | None = strawberry.field(
        description="reinforcement: share of prompts whose samples all got the same reward; "
        "nothing is learnt from them."
    )
    validation_reward: float | None = strawberry.field(
        description="reinforcement: mean reward on validation data."
    )
    kl: float | None = strawberry.field(
        description="reinforcement: distance from the model it started from."
    )
    completion_length: float | None = strawberry.field(
        description="reinforcement: mean tokens of a sample."
    )
    completion_clipped_fraction: float | None = strawberry.field(
        description="reinforcement: share of samples cut off at maxCompletionTokens."
    )
    grader_error_fraction: float | None = strawberry.field(
        description="reinforcement: share of samples that could not be graded; they count for "
        "nothing."
    )
    grader_rewards: list[GraderReward] = strawberry.field(
        description="reinforcement: each grader of a multi grader; empty otherwise."
    )
    score: float | None = strawberry.field(
        description="The checkpoint's score on the held-out cases; where the job names graders. It "
        "comes after the step's other values, in a point that repeats them."
    )
    grader_scores: list[GraderMean] = strawberry.field(
        description="What the score is made of; empty where there is none."
    )
    trained_tokens: BigInt | None = strawberry.field(description="Tokens seen so far.")
    other: JSON = strawberry.field(description="Further values by name.")
    non_finite: list[str] = strawberry.field(description="Values that were NaN or infinite.")
    timestamp: datetime = strawberry.field(description="When it was measured.")

    @staticmethod
    def of(point: Point) -> "MetricPoint":
        values = dict(point.values)
        named = {name: _float(values.pop(name, None)) for name in _NAMED}
        tokens = values.pop("trained_tokens", None)
        graders = _graders(values)
        parts = [name for name in values if name.startswith(PART)]
        scores = [GraderMean(name=n.removeprefix(PART), score=_float(values.pop(n))) for n in parts]
        other: Any = values
        return MetricPoint(
            job_id=strawberry.ID(point.job_id),
            attempt=point.attempt,
            step=point.step,
            epoch=point.epoch,
            trained_tokens=None if tokens is None else BigInt(int(tokens)),
            grader_rewards=graders,
            grader_scores=scores,
            other=other,
            non_finite=point.non_finite,
            timestamp=point.at,
            **named,
        )


def _graders(values: dict[str, float | None]) -> list[GraderReward]:
    """Taken out of the values."""
    training, validation = (
        {n.removeprefix(before): values.pop(n) for n in list(values) if n.startswith(before)}
        for before in (_GRADER, _VALIDATION)
    )
    return [
        GraderReward(
            name=name,
            reward=_float(training.get(name)),
            validation_reward=_float(validation.get(name)),
        )
        for name in dict.fromkeys([*training, *validation])
    ]


def _float(value: float | None) -> float | None:
    """JSON keeps no difference between 3.49e17 and a whole number; a Float must be one."""
    return None if value is None else float(value)
