"""What a job will take: tokens, time, money; from measured speed where there is some."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel.ext.asyncio.session import AsyncSession

from app.catalog import service as catalog
from app.catalog.base_models import BaseModel
from app.catalog.tables import Worker
from app.core.actor import Actor
from app.datasets import service as datasets
from app.datasets.tables import DatasetVersion
from app.jobs.speeds import Machine, Measured, measured, percentile
from app.training.hyperparameters import Hyperparameters
from app.training.resolve import ResolvedHyperparameters, method_of, resolve

# Measured on one core with LoRA on the embedded model of 135 M parameters: 280 to 370 tokens a
# second. Work per token grows with the parameters; a full fine-tune costs about half as much again.
_SPEED, _SPEED_AT = 300.0, 134_515_008
_START_SECONDS = 15.0
# Preference reads every token a second time for comparison; reinforcement also writes the answers,
# token by token.
_SLOWER = {"supervised": 1.0, "dpo": 1.4, "reinforcement": 8.0}
_RULE_OF_THUMB = 3.0  # how far off it may be, either way
# A few jobs do not show how much they differ: then the range is at least this wide, either way.
_FEW, _AT_LEAST = 5, 1.3
_OTHER_MACHINE = 3.0


@dataclass(frozen=True)
class Estimate:
    """`seconds_low` and `seconds_high` bracket the time; `basis` says how it was found."""

    tokens: int
    epochs: int
    steps: int
    seconds_low: float
    seconds_high: float
    cost: float | None
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


@dataclass(frozen=True)
class _Time:
    """In seconds."""

    low: float
    likely: float
    high: float
    basis: str


async def size_of(session: AsyncSession, actor: Actor, version_id: str) -> Size:
    return Size.of(await datasets.get_version(session, actor, version_id))


async def estimate(
    session: AsyncSession,
    base_model: BaseModel,
    hyperparameters: Hyperparameters,
    size: Size,
    hourly_cost: float,
    label: str | None = None,
) -> Estimate:
    """On the workers that carry the label, any when None. `hourly_cost` stands in for theirs."""
    resolved = resolve(hyperparameters, size.cases)
    method = method_of(hyperparameters)
    tokens = size.tokens * resolved.n_epochs
    workers = [
        worker
        for worker in await catalog.live_workers(session)
        if label is None or label in worker.labels
    ]
    jobs = await measured(session, base_model.name, method, hyperparameters.adapter)
    time = _measured_time(tokens, jobs, workers) or _guessed_time(
        tokens, base_model, resolved, method
    )
    costs = [worker.hardware.get("hourlyCost", hourly_cost) for worker in workers]
    return Estimate(
        tokens=tokens,
        epochs=resolved.n_epochs,
        steps=resolved.total_steps,
        seconds_low=round(time.low, 1),
        seconds_high=round(time.high, 1),
        cost=round(time.likely / 3600 * max(costs, default=hourly_cost), 4),
        currency="USD",
        basis=time.basis,
    )


def _measured_time(
    tokens: int, jobs: Sequence[Measured], workers: Sequence[Worker]
) -> _Time | None:
    machines = {Machine.of(worker.hardware) for worker in workers}
    alike = [job for job in jobs if job.machine in machines]
    found = alike or jobs
    if not found:
        return None
    speeds, beside = [job.speed for job in found], [job.beside for job in found]

    def seconds(share: float) -> float:
        """By the jobs that were this slow, from 0 for the fastest to 1."""
        return tokens / percentile(speeds, 1 - share) + percentile(beside, share)

    low, likely, high = seconds(0.1), seconds(0.5), seconds(0.9)
    margin = 1.0 if len(found) >= _FEW else _AT_LEAST
    count = "one earlier job" if len(found) == 1 else f"{len(found)} earlier jobs"
    basis = (
        f"measured on {count} with this model, method and adapter: {percentile(speeds, 0.5):.0f} "
        f"tokens per second on {_surroundings(found)}"
    )
    if not alike:
        margin = _OTHER_MACHINE
        basis += "; no live worker has that hardware" if workers else "; no worker is live"
    return _Time(min(low, likely / margin), likely, max(high, likely * margin), basis)


def _surroundings(jobs: Sequence[Measured]) -> str:
    kinds = dict.fromkeys(
        f"{job.machine.name} ({job.machine.device}, {job.dtype}"
        + (f", {job.processes} processes)" if job.processes > 1 else ")")
        for job in jobs
    )
    return " and ".join(kinds)


def _guessed_time(
    tokens: int, base_model: BaseModel, resolved: ResolvedHyperparameters, method: str
) -> _Time:
    weight = (base_model.parameter_count or _SPEED_AT) / _SPEED_AT
    speed = _SPEED / weight / (1.0 if resolved.adapter == "lora" else 1.6) / _SLOWER[method]
    seconds = tokens / speed + _START_SECONDS
    return _Time(
        seconds / _RULE_OF_THUMB,
        seconds,
        seconds * _RULE_OF_THUMB,
        "a rule of thumb for one processor core; no job has been measured yet",
    )
