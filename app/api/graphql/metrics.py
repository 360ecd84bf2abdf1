"""Metric points as the API shows them."""

from datetime import datetime
from typing import Any

import strawberry

from app.api.graphql.scalars import JSON, BigInt
from app.jobs.metrics import Point

_NAMED = (
    "training_loss",
    "validation_loss",
    "training_accuracy",
    "validation_accuracy",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "reward",
)


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
    reward: float | None = strawberry.field(description="Mean reward, in reinforcement.")
    trained_tokens: BigInt | None = strawberry.field(description="Tokens seen so far.")
    other: JSON = strawberry.field(description="Further values by name.")
    non_finite: list[str] = strawberry.field(description="Values that were NaN or infinite.")
    timestamp: datetime = strawberry.field(description="When it was measured.")

    @staticmethod
    def of(point: Point) -> "MetricPoint":
        values = dict(point.values)
        named = {name: _float(values.pop(name, None)) for name in _NAMED}
        tokens = values.pop("trained_tokens", None)
        other: Any = values
        return MetricPoint(
            job_id=strawberry.ID(point.job_id),
            attempt=point.attempt,
            step=point.step,
            epoch=point.epoch,
            trained_tokens=None if tokens is None else BigInt(int(tokens)),
            other=other,
            non_finite=point.non_finite,
            timestamp=point.at,
            **named,
        )


def _float(value: float | None) -> float | None:
    """JSON keeps no difference between 3.49e17 and a whole number; a Float must be one."""
    return None if value is None else float(value)
