"""Base models, hardware and providers."""

from datetime import datetime
from enum import Enum
from typing import Annotated

import strawberry

from app.api.graphql.context import Info
from app.api.graphql.node import Node
from app.api.graphql.pagination import After, Connection, First, arg, connect
from app.api.graphql.scalars import BigInt
from app.catalog import base_models, service
from app.core.actor import Scope
from app.core.errors import Invalid
from app.core.paging import DEFAULT, Page


@strawberry.enum(description="Where a model is tuned. New values may be added: keep a default.")
class Provider(Enum):
    LOCAL = strawberry.enum_value("local", description="Luthier's own training worker.")


@strawberry.type(description="Something that can be fine-tuned, at one provider.")
class BaseModel(Node):
    name: str = strawberry.field(description="What submitJob takes as baseModel.")
    provider: Provider = strawberry.field(description="Where it is tuned.")
    description: str = strawberry.field(description="For people.")
    license: str | None = strawberry.field(description="Its licence, where known.")
    parameter_count: BigInt | None = strawberry.field(description="Its size, where known.")
    max_sequence_length: int | None = strawberry.field(description="Longest case, in tokens.")
    supported_methods: list[str] = strawberry.field(description="How it can be tuned.")
    supported_tasks: list[str] = strawberry.field(description="What it is for.")

    @staticmethod
    def of(model: base_models.BaseModel) -> "BaseModel":
        count = model.parameter_count
        return BaseModel(
            id=strawberry.ID(model.id),
            name=model.name,
            provider=Provider(model.provider),
            description=model.description,
            license=model.license,
            parameter_count=None if count is None else BigInt(count),
            max_sequence_length=model.max_sequence_length,
            supported_methods=list(model.methods),
            supported_tasks=list(model.tasks),
        )


@strawberry.type(description="A part of a machine that a live worker reports.")
class Hardware:
    id: strawberry.ID = strawberry.field(description="Opaque id.")
    name: str = strawberry.field(description="As the machine names it.")
    kind: str = strawberry.field(description="cpu or gpu.")
    memory_bytes: BigInt = strawberry.field(description="Of each.")
    count: int = strawberry.field(description="Processor cores, or GPUs.")
    memory_free_bytes: BigInt | None = strawberry.field(
        description="Of all of them together; null when the machine does not tell."
    )
    utilization: float | None = strawberry.field(
        description="How busy they are, in percent; null when the machine does not tell."
    )
    slots: int = strawberry.field(description="Jobs that the worker trains at a time.")
    busy_slots: int = strawberry.field(description="Jobs that it trains now.")
    cost_per_hour: float = strawberry.field(
        description="Of the whole machine in US dollars, from its worker's settings."
    )
    labels: list[str] = strawberry.field(description="What submitJob(hardware:) can ask for.")
    provider: Provider = strawberry.field(description="Whose machine it is.")
    worker_id: strawberry.ID = strawberry.field(description="The worker on it.")
    last_seen_at: datetime = strawberry.field(description="When the worker last reported.")


@strawberry.type(description="A provider and what it can do here.")
class ProviderInfo:
    provider: Provider = strawberry.field(description="Which.")
    name: str = strawberry.field(description="For people.")
    configured: bool = strawberry.field(description="Whether jobs can be submitted to it now.")
    healthy: bool = strawberry.field(description="Whether it answers: for local, a live worker.")
    methods: list[str] = strawberry.field(description="Fine-tuning methods it takes.")
    can_pause: bool = strawberry.field(description="Whether running jobs can be paused.")
    can_deploy: bool = strawberry.field(description="Whether results can be deployed.")


@strawberry.type
class CatalogQueries:
    @strawberry.field(description="What can be fine-tuned.")
    async def base_models(
        self,
        info: Info,
        provider: Annotated[Provider | None, arg("Only at this provider.")] = None,
        search: Annotated[str | None, arg("Part of the name.")] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[BaseModel]:
        info.context.actor.require(Scope.READ)
        found = [
            model
            for model in info.context.services.base_models.all()
            if (provider is None or model.provider == provider.value)
            and (search or "").lower() in model.name.lower()
        ]
        names = [model.name for model in found]
        if after is not None and after not in names:
            raise Invalid("This is not a cursor of this list.", path=("after",))
        start = 0 if after is None else names.index(after) + 1
        size = DEFAULT if first is None else first
        rows = found[start : start + size]

        async def count(_: object) -> int:
            return len(found)

        page = Page(rows, [row.name for row in rows], start + size < len(found), start > 0, count)
        connection: Connection[BaseModel] = connect(page, BaseModel.of)
        return connection

    @strawberry.field(description="What live workers report of their machines.")
    async def hardware(
        self,
        info: Info,
        provider: Annotated[Provider | None, arg("Only at this provider.")] = None,
    ) -> list[Hardware]:
        async with info.context.transaction() as session:
            found = await service.hardware(session, info.context.actor)
        return [
            Hardware(
                id=strawberry.ID(part.id),
                name=part.name,
                kind=part.kind,
                memory_bytes=BigInt(part.memory),
                count=part.count,
                memory_free_bytes=(None if part.memory_free is None else BigInt(part.memory_free)),
                utilization=part.utilization,
                slots=part.slots,
                busy_slots=part.busy_slots,
                cost_per_hour=part.hourly_cost,
                labels=list(part.labels),
                provider=Provider.LOCAL,
                worker_id=strawberry.ID(part.worker_id),
                last_seen_at=part.last_seen_at,
            )
            for part in found
        ]

    @strawberry.field(description="Every provider, and what it can do here.")
    async def providers(self, info: Info) -> list[ProviderInfo]:
        async with info.context.transaction() as session:
            live = await service.hardware(session, info.context.actor)
        return [
            ProviderInfo(
                provider=Provider.LOCAL,
                name="This installation's workers",
                configured=True,
                healthy=bool(live),
                methods=list(base_models.METHODS),
                can_pause=True,
                can_deploy=True,
            )
        ]
