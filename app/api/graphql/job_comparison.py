"""Jobs side by side, as the API shows them."""

from typing import Annotated, Any

import strawberry

from app.api.graphql.context import Info
from app.api.graphql.jobs import Job
from app.api.graphql.pagination import arg
from app.api.graphql.scalars import JSON
from app.core.errors import Invalid
from app.jobs import comparison


@strawberry.type(description="One setting or result in each of the jobs.")
class ComparedValue:
    name: str = strawberry.field(description="Which, such as hyperparameters.learning_rate.")
    values: list[JSON | None] = strawberry.field(description="In the order of jobs.")
    same: bool = strawberry.field(description="Whether they are all equal.")

    @staticmethod
    def of(found: comparison.Compared) -> "ComparedValue":
        return ComparedValue(name=found.name, values=found.values, same=found.same)


@strawberry.type(description="A metric's value at a step.")
class CurvePoint:
    step: int = strawberry.field(description="The step.")
    value: float = strawberry.field(description="What was measured.")


@strawberry.type(description="One job's part of a curve.")
class CurveSeries:
    job_id: strawberry.ID = strawberry.field(description="The job.")
    points: list[CurvePoint] = strawberry.field(description="By step; the extremes are kept.")


@strawberry.type(description="One metric in each of the jobs.")
class ComparedCurve:
    metric: str = strawberry.field(description="Which, such as validation_loss.")
    series: list[CurveSeries] = strawberry.field(description="In the order of jobs.")
    first_different_step: int | None = strawberry.field(
        description="The first step that all measured and not all alike, to the last digit."
    )


@strawberry.type(description="What sets jobs apart.")
class JobComparison:
    jobs: list[Job] = strawberry.field(description="In the order asked for.")
    settings: list[ComparedValue] = strawberry.field(
        description="Data by content, resolved hyperparameters, seed, libraries, machine."
    )
    results: list[ComparedValue] = strawberry.field(
        description="Status, cost, time, and each metric's last and lowest value."
    )
    curves: list[ComparedCurve] = strawberry.field(description="Every metric, step by step.")

    @staticmethod
    def of(found: comparison.Comparison) -> "JobComparison":
        return JobComparison(
            jobs=[Job.of(job) for job in found.jobs],
            settings=[ComparedValue.of(value) for value in found.settings],
            results=[ComparedValue.of(value) for value in found.results],
            curves=[_curve(found, curve) for curve in found.curves],
        )


def _curve(found: comparison.Comparison, curve: comparison.Curve) -> ComparedCurve:
    return ComparedCurve(
        metric=curve.metric,
        series=[
            CurveSeries(
                job_id=strawberry.ID(job.id),
                points=[CurvePoint(step=step, value=float(value)) for step, value in series],
            )
            for job, series in zip(found.jobs, curve.series, strict=True)
        ],
        first_different_step=curve.first_difference,
    )


@strawberry.type
class ComparisonQueries:
    @strawberry.field(description="Up to five jobs side by side: settings, curves, results.")
    async def compare_jobs(
        self,
        info: Info,
        ids: Annotated[list[strawberry.ID], arg("The jobs' ids.")],
        max_points: Annotated[int, arg("Of each job in a curve, at most so many, to 5000.")] = 500,
    ) -> JobComparison:
        if not 1 <= max_points <= 5_000:
            raise Invalid("maxPoints must lie between 1 and 5000.", path=("maxPoints",))
        wanted: list[Any] = list(ids)
        async with info.context.transaction(snapshot=True) as session:
            found = await comparison.compare(session, info.context.actor, wanted, max_points)
        return JobComparison.of(found)
