"""Statistics over jobs, and estimates."""

from datetime import datetime
from enum import Enum
from typing import Annotated

import strawberry

from app.api.graphql.context import Info
from app.api.graphql.job_inputs import CostEstimate
from app.api.graphql.job_queries import Filter, JobFilter
from app.api.graphql.job_types import JobStatus
from app.api.graphql.method_inputs import MethodInput
from app.api.graphql.pagination import arg
from app.api.graphql.scalars import BigInt
from app.core.actor import Scope
from app.core.errors import Invalid
from app.jobs import estimates, methods, queries
from app.jobs import states as job_states


@strawberry.enum(description="What to group jobs by.")
class StatsGroup(Enum):
    STATUS = strawberry.enum_value("status", description="Where they are in their life.")
    PROVIDER = strawberry.enum_value("provider", description="Where they are tuned.")
    BASE_MODEL = strawberry.enum_value("base_model", description="What is tuned.")
    METHOD = strawberry.enum_value("method", description="How.")
    OWNER = strawberry.enum_value("owner_id", description="Who submitted them.")


@strawberry.enum(description="Stretches of time, by the moment of submission, in UTC.")
class StatsInterval(Enum):
    HOUR = strawberry.enum_value("hour", description="Hours.")
    DAY = strawberry.enum_value("day", description="Days.")
    WEEK = strawberry.enum_value("week", description="Weeks, from Monday.")
    MONTH = strawberry.enum_value("month", description="Months.")


@strawberry.type(description="How many jobs have a status.")
class StatusCount:
    status: JobStatus = strawberry.field(description="The status.")
    count: int = strawberry.field(description="How many.")


@strawberry.type(description="Figures of the jobs that share a key or a stretch of time.")
class StatsBucket:
    key: str | None = strawberry.field(description="What they share, when grouped.")
    start: datetime | None = strawberry.field(description="When the stretch begins.")
    total: int = strawberry.field(description="All of them.")
    succeeded: int = strawberry.field(description="Those with a model.")
    failed: int = strawberry.field(description="Those that failed.")
    cancelled: int = strawberry.field(description="Those that somebody ended.")
    live: int = strawberry.field(description="Those that are not over.")
    trained_tokens: BigInt = strawberry.field(description="Tokens trained on.")
    cost: float = strawberry.field(description="US dollars.")
    estimated_cost: float = strawberry.field(description="US dollars, as estimated.")
    queue_wait_seconds: float | None = strawberry.field(
        description="Mean time from submission to the start of training."
    )
    success_rate: float | None = strawberry.field(
        description="Of the jobs that ended by themselves, 0 to 1."
    )

    @staticmethod
    def of(bucket: queries.Bucket) -> "StatsBucket":
        values = vars(bucket) | {"trained_tokens": BigInt(bucket.trained_tokens)}
        return StatsBucket(**values, success_rate=bucket.success_rate)


@strawberry.type(description="Figures over jobs.")
class JobStats:
    total: int = strawberry.field(description="How many match.")
    overall: StatsBucket = strawberry.field(description="All of them together.")
    by_status: list[StatusCount] = strawberry.field(description="For every status.")
    groups: list[StatsBucket] = strawberry.field(description="One per key of groupBy.")
    intervals: list[StatsBucket] = strawberry.field(description="One per stretch with jobs in it.")


@strawberry.input(description="What to estimate: a dataset version, or just its size.")
class EstimateCostInput:
    base_model: str = strawberry.field(description="A name that baseModels lists.")
    training_data: strawberry.ID | None = strawberry.field(
        description="A dataset version's id.", default=None
    )
    dataset_size: int | None = strawberry.field(description="Number of cases.", default=None)
    tokens_per_case: int = strawberry.field(description="Used with datasetSize only.", default=100)
    epochs: int | None = strawberry.field(description="Automatic when left out.", default=None)
    method: MethodInput | None = strawberry.field(
        description="Supervised, all automatic, when left out. Its nEpochs wins over epochs.",
        default=None,
    )
    hardware: str | None = strawberry.field(
        description="A worker label; any live worker when left out.", default=None
    )


@strawberry.type
class StatsQueries:
    @strawberry.field(description="Figures over the organization's jobs.")
    async def stats(
        self,
        info: Info,
        filter: Filter = None,
        group_by: Annotated[StatsGroup | None, arg("Fill groups by this.")] = None,
        interval: Annotated[StatsInterval | None, arg("Fill intervals by this.")] = None,
    ) -> JobStats:
        async with info.context.transaction() as session:
            found = await queries.stats(
                session,
                info.context.actor,
                (filter or JobFilter()).plain(),
                queries.StatsGroup(str(group_by.value)) if group_by else None,
                queries.StatsInterval(str(interval.value)) if interval else None,
            )
        return JobStats(
            total=found.whole.total,
            overall=StatsBucket.of(found.whole),
            by_status=[
                StatusCount(status=JobStatus(status.value), count=found.by_status.get(status, 0))
                for status in job_states.JobStatus
            ],
            groups=[StatsBucket.of(bucket) for bucket in found.groups],
            intervals=[StatsBucket.of(bucket) for bucket in found.intervals],
        )

    @strawberry.field(description="What a job would take, before there is one.")
    async def estimate_cost(
        self, info: Info, input: Annotated[EstimateCostInput, arg("What to estimate.")]
    ) -> CostEstimate:
        services, who = info.context.services, info.context.actor
        who.require(Scope.READ)
        asked = {} if input.epochs is None else {"n_epochs": input.epochs}
        method = "supervised"
        if input.method is not None:
            method = input.method.name
            asked |= input.method.hyperparameters()
        if input.epochs is not None and not 1 <= input.epochs <= 50:
            raise Invalid("epochs must lie between 1 and 50.", path=("epochs",))
        async with info.context.transaction() as session:
            if input.training_data is not None:
                version = await estimates.size_of(session, who, input.training_data)
            elif input.dataset_size is not None and input.dataset_size > 0:
                version = estimates.Size(
                    input.dataset_size, input.dataset_size * max(1, input.tokens_per_case)
                )
            else:
                raise Invalid("Give trainingData, or a datasetSize above 0.", path=("datasetSize",))
            estimate = await estimates.estimate(
                session,
                services.base_models.get(input.base_model),
                methods.hyperparameters(method, asked),
                version,
                services.settings.hourly_cost,
                input.hardware,
            )
        return CostEstimate.of(estimate)
