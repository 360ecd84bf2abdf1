"""What sets jobs apart: their settings, their curves, and what came of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.actor import Actor, Scope
from app.core.errors import Invalid
from app.datasets import service as datasets
from app.jobs import metrics
from app.jobs.metrics import Point
from app.jobs.repository import JobRepository
from app.jobs.tables import Job

MOST = 5
_EVERY = 10**9
# They tell of the machine, not of the training.
_PACE = frozenset({"tokens_per_second", "trained_tokens"})


@dataclass(frozen=True)
class Compared:
    """One setting or result: its value in each job, None where it has none."""

    name: str
    values: list[Any]

    @property
    def same(self) -> bool:
        return all(value == self.values[0] for value in self.values)


@dataclass(frozen=True)
class Curve:
    """One metric in each job. `first_difference` is the first step that all of them measured and
    not all alike, to the last digit."""

    metric: str
    series: list[list[tuple[int, float]]]
    first_difference: int | None


@dataclass(frozen=True)
class Comparison:
    jobs: list[Job]
    settings: list[Compared]
    results: list[Compared]
    curves: list[Curve]


async def compare(
    session: AsyncSession, actor: Actor, wanted: Sequence[str], most_points: int
) -> Comparison:
    """Jobs side by side, in the order asked for. `most_points` bounds each job's part of a curve;
    differences are looked for in all points."""
    actor.require(Scope.READ)
    if len(set(wanted)) != len(wanted) or not 1 <= len(wanted) <= MOST:
        raise Invalid(f"Compare up to {MOST} different jobs at once.", path=("ids",))
    repository = JobRepository(session, actor.org_id)
    jobs = [await repository.get(id) for id in wanted]
    points = [await metrics.points(session, job.id, None, None, _EVERY) for job in jobs]
    return Comparison(
        jobs,
        _compared([await _settings(session, actor, job) for job in jobs]),
        _compared([_results(job, found) for job, found in zip(jobs, points, strict=True)]),
        _curves(points, most_points),
    )


async def _settings(session: AsyncSession, actor: Actor, job: Job) -> dict[str, Any]:
    manifest = job.manifest or {}
    found: dict[str, Any] = {
        "provider": job.provider,
        "baseModel": job.base_model,
        "method": job.method,
        "seed": job.seed,
        "trainingData": None,
        "validationData": None,
        "evaluationData": None,
        "hardware": job.hardware,
    }
    if job.training_version_id:
        version = await datasets.get_version(session, actor, job.training_version_id)
        found["trainingData"] = version.sha256
    if job.validation_version_id:
        version = await datasets.get_version(session, actor, job.validation_version_id)
        found["validationData"] = version.sha256
    if job.evaluation_version_id:
        version = await datasets.get_version(session, actor, job.evaluation_version_id)
        found["evaluationData"] = version.sha256
    for name, value in (job.evaluation or {}).items():
        found[f"evaluation.{name}"] = value
    for name, value in (job.resolved or job.hyperparameters).items():
        found[f"hyperparameters.{name}"] = value
    for name in ("baseSha256", "templateSha256", "device", "dtype", "threads", "luthier"):
        found[name] = manifest.get(name)
    for name, value in manifest.get("versions", {}).items():
        found[f"versions.{name}"] = value
    return found


def _results(job: Job, points: Sequence[Point]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "status": job.status,
        "trainedTokens": job.trained_tokens,
        "cost": job.cost,
        "seconds": None,
        "steps": points[-1].step if points else None,
    }
    if job.started_at and job.finished_at:
        found["seconds"] = round((job.finished_at - job.started_at).total_seconds(), 1)
    for name in _metrics_of(points):
        known = [v for p in points if (v := p.values.get(name)) is not None]
        found[f"last.{name}"] = known[-1] if known else None
        if name.endswith("loss"):
            found[f"lowest.{name}"] = min(known, default=None)
        if name == "score":
            found["highest.score"] = max(known, default=None)
    return found


def _compared(sides: Sequence[dict[str, Any]]) -> list[Compared]:
    names = dict.fromkeys(name for side in sides for name in side)
    return [Compared(name, [side.get(name) for side in sides]) for name in names]


def _curves(sides: Sequence[Sequence[Point]], most: int) -> list[Curve]:
    shown = [metrics.down_sample(side, most) for side in sides]
    return [
        Curve(name, [_series(side, name) for side in shown], _first_difference(sides, name))
        for name in _metrics_of(point for side in sides for point in side)
    ]


def _metrics_of(points: Iterable[Point]) -> list[str]:
    return [
        name for name in dict.fromkeys(n for p in points for n in p.values) if name not in _PACE
    ]


def _series(points: Sequence[Point], name: str) -> list[tuple[int, float]]:
    return [(p.step, v) for p in points if (v := p.values.get(name)) is not None]


def _first_difference(sides: Sequence[Sequence[Point]], name: str) -> int | None:
    measured = [{p.step: p.values[name] for p in side if name in p.values} for side in sides]
    for step in sorted(set(measured[0]).intersection(*measured[1:])):
        if any(side[step] != measured[0][step] for side in measured[1:]):
            return step
    return None
