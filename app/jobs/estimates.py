"""What a job will take: tokens, time, money; from measured speed where there is some."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.catalog.base_models import BaseModel
from app.core.actor import Actor
from app.datasets import service as datasets
from app.datasets.tables import DatasetVersion
from app.training.hyperparameters import Hyperparameters
from app.training.resolve import method_of, resolve

# Median of the newest finished jobs of the same base model, method and adapter.
_MEASURED = text(
    """
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY speed) FROM (
        SELECT (s.latest -> 'progress' ->> 'tokens_per_second')::float AS speed
          FROM jobs j JOIN streams s ON s.stream_id = j.id
         WHERE j.base_model = :base_model AND j.status = 'succeeded'
           AND j.hyperparameters ->> 'adapter' = :adapter AND j.method = :method
           AND s.latest -> 'progress' ->> 'tokens_per_second' IS NOT NULL
         ORDER BY j.created_at DESC LIMIT 20) recent
    """
)
# Measured on one core with LoRA on the embedded model of 135 M parameters: 280 to 370 tokens a
# second. Work per token grows with the parameters; a full fine-tune costs about half as much again.
_SPEED, _SPEED_AT = 300.0, 134_515_008
_START_SECONDS = 15.0
# Preference reads every token a second time for comparison; reinforcement also writes the answers,
# token by token.
_SLOWER = {"supervised": 1.0, "dpo": 1.4, "reinforcement": 8.0}


@dataclass(frozen=True)
class Estimate:
    """`seconds_low` and `seconds_high` bracket the time; `basis` says how it was found."""

    tokens: int
    epochs: int
    steps: int
    seconds_low: float
    seconds_high: float
    cost: float
    currency: str
    basis: str


@dataclass(frozen=True)
class Size:
    """How much there is to train on, in one epoch."""

    cases: int
    tokens: int

    @staticmethod
    def of(version: DatasetVersion) -> "Size":
        return Size(version.case_count, int(version.report.get("token_count", 0)))


async def size_of(session: AsyncSession, actor: Actor, version_id: str) -> Size:
    return Size.of(await datasets.get_version(session, actor, version_id))


async def estimate(
    session: AsyncSession,
    base_model: BaseModel,
    hyperparameters: Hyperparameters,
    size: Size,
    hourly_cost: float,
) -> Estimate:
    resolved = resolve(hyperparameters, size.cases)
    tokens = size.tokens * resolved.n_epochs
    measured = await (await session.connection()).scalar(
        _MEASURED,
        {
            "base_model": base_model.name,
            "adapter": hyperparameters.adapter,
            "method": method_of(hyperparameters),
        },
    )
    if measured:
        speed, spread, basis = float(measured), 1.5, "measured on this model's earlier jobs"
    else:
        weight = (base_model.parameter_count or _SPEED_AT) / _SPEED_AT
        speed = _SPEED / weight / (1.0 if hyperparameters.adapter == "lora" else 1.6)
        speed /= _SLOWER[method_of(hyperparameters)]
        spread, basis = 3.0, "a rule of thumb for one processor core; no job has been measured yet"
    seconds = tokens / speed + _START_SECONDS
    return Estimate(
        tokens=tokens,
        epochs=resolved.n_epochs,
        steps=resolved.total_steps,
        seconds_low=round(seconds / spread, 1),
        seconds_high=round(seconds * spread, 1),
        cost=round(seconds / 3600 * hourly_cost, 4),
        currency="USD",
        basis=basis,
    )
