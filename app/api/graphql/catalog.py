"""Base models, hardware and providers."""

from collections.abc import Iterable
from datetime import date, datetime
from enum import Enum
from typing import Annotated

import strawberry

from app.accounts import credentials
from app.accounts.tables import ProviderCredential, ProviderModel
from app.api.graphql.context import Info
from app.api.graphql.node import Node
from app.api.graphql.pagination import After, Connection, First, arg, connect
from app.api.graphql.scalars import BigInt
from app.catalog import base_models, service
from app.catalog.offers import offer_of, offers
from app.core.actor import Scope
from app.core.errors import Invalid
from app.core.paging import DEFAULT, Page
from app.jobs.elsewhere import as_base_model
from app.jobs.methods import camel
from app.providers.registry import ADAPTERS, capabilities
from app.training.hyperparameters import HYPERPARAMETERS


@strawberry.enum(description="Where a model is tuned. New values may be added: keep a default.")
class Provider(Enum):
    LOCAL = strawberry.enum_value("local", description="Luthier's own training worker.")
    OPENAI = strawberry.enum_value("openai", description="OpenAI.")
    AZURE = strawberry.enum_value("azure", description="Azure OpenAI.")
    BEDROCK = strawberry.enum_value("bedrock", description="Amazon Bedrock: Claude and others.")
    VERTEX = strawberry.enum_value("vertex", description="Google Vertex AI.")
    FIREWORKS = strawberry.enum_value("fireworks", description="Fireworks AI.")
    TOGETHER = strawberry.enum_value("together", description="Together AI.")


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
    shuts_down_on: date | None = strawberry.field(
        description="When its provider shuts it down, where that is known."
    )
    missing_since: datetime | None = strawberry.field(
        description="Since when its provider has not listed it, while the project has access."
    )
    price_per_million_tokens: float | None = strawberry.field(
        description="Of training, in US dollars; null where no price is known."
    )
    price_source: str | None = strawberry.field(description="Where that price was read, and when.")

    @staticmethod
    def by_id(info: Info, id: str) -> "BaseModel | None":
        found = next((model for model in _all(info) if model.id == id), None)
        return BaseModel.of(found) if found else None

    @staticmethod
    def of(model: base_models.BaseModel, seen: ProviderModel | None = None) -> "BaseModel":
        offer = offer_of(model.provider, model.name)
        price = offer.price if offer else None
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
            shuts_down_on=(seen.ends if seen else None) or model.ends,
            missing_since=seen.gone_at if seen else None,
            price_per_million_tokens=price.per_million if price else None,
            price_source=f"{price.source} ({price.as_of})" if price else None,
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


@strawberry.type(description="What a method can be told at a provider.")
class MethodHyperparameters:
    method: str = strawberry.field(description="The method.")
    names: list[str] = strawberry.field(description="Its hyperparameters, as submitJob has them.")


@strawberry.type(description="A provider and what it can do here.")
class ProviderInfo:
    provider: Provider = strawberry.field(description="Which.")
    name: str = strawberry.field(description="For people.")
    configured: bool = strawberry.field(description="Whether jobs can be submitted to it now.")
    healthy: bool = strawberry.field(description="Whether it answers: for local, a live worker.")
    methods: list[str] = strawberry.field(description="Fine-tuning methods it takes.")
    hyperparameters: list[MethodHyperparameters] = strawberry.field(
        description="What each method can be told there."
    )
    can_pause: bool = strawberry.field(description="Whether running jobs can be paused.")
    can_resume: bool = strawberry.field(description="Whether paused jobs can go on.")
    can_deploy: bool = strawberry.field(description="Whether results can be deployed.")
    needs_deployment: bool = strawberry.field(
        description="Whether a result has to be deployed before it can be called."
    )
    has_checkpoints: bool = strawberry.field(description="Whether checkpoints can be seen.")
    messages: str = strawberry.field(description="Where a job's messages come from.")
    metrics: str | None = strawberry.field(
        description="Where the values of its steps come from; null when there are none."
    )
    webhooks: str | None = strawberry.field(
        description="How it tells of changes: signed, or EventBridge; null when it does not."
    )
    longest_suffix: int = strawberry.field(description="Characters of a suffix, at most.")
    credential_trouble: str | None = strawberry.field(
        description="What it said against the project's credential, when it last did."
    )


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
        wanted = None if provider is None else str(provider.value)
        found = [
            model
            for model in _all(info)
            if wanted in (None, model.provider) and (search or "").lower() in model.name.lower()
        ]
        async with info.context.transaction() as session:
            seen = await service.seen_at_providers(session, info.context.actor)
        names = [model.id for model in found]
        if after is not None and after not in names:
            raise Invalid("This is not a cursor of this list.", path=("after",))
        start = 0 if after is None else names.index(after) + 1
        size = DEFAULT if first is None else first
        rows = found[start : start + size]

        async def count(_: object) -> int:
            return len(found)

        page = Page(rows, [row.id for row in rows], start + size < len(found), start > 0, count)
        connection: Connection[BaseModel] = connect(
            page, lambda row: BaseModel.of(row, seen.get((row.provider, row.name)))
        )
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
            rows = {
                row.provider: row
                for row in await credentials.credentials(session, info.context.actor)
            }
        local = ProviderInfo(
            provider=Provider.LOCAL,
            name="This installation's workers",
            configured=True,
            healthy=bool(live),
            methods=list(base_models.METHODS),
            hyperparameters=[
                MethodHyperparameters(method=method, names=_camel(kind.model_fields))
                for method, kind in HYPERPARAMETERS.items()
            ],
            can_pause=True,
            can_resume=True,
            can_deploy=True,
            needs_deployment=True,
            has_checkpoints=True,
            messages="the training process",
            metrics="the training process",
            webhooks=None,
            longest_suffix=64,
            credential_trouble=None,
        )
        return [local, *(_provider_info(name, rows.get(name)) for name in ADAPTERS)]


def _all(info: Info) -> list[base_models.BaseModel]:
    """Ours, and those that providers are known to tune."""
    elsewhere = [as_base_model(place, offer.name, offer) for place, offer in offers()]
    return [*info.context.services.base_models.all(), *elsewhere]


def _provider_info(name: str, row: ProviderCredential | None) -> ProviderInfo:
    found = capabilities(name)
    return ProviderInfo(
        provider=Provider(name),
        name=found.name,
        configured=row is not None,
        healthy=row is not None and row.status == "ok",
        methods=list(found.methods),
        hyperparameters=[
            MethodHyperparameters(method=method, names=_camel(sorted(names)))
            for method, names in found.hyperparameters.items()
        ],
        can_pause=found.pause,
        can_resume=found.resume,
        can_deploy=True,
        needs_deployment=found.deployment == "dedicated",
        has_checkpoints=found.checkpoints,
        messages=found.messages,
        metrics=found.metrics or None,
        webhooks=found.webhooks,
        longest_suffix=found.longest_suffix,
        credential_trouble=row.trouble if row else None,
    )


def _camel(names: Iterable[str]) -> list[str]:
    return [camel(name) for name in names]
