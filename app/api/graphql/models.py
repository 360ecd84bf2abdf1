"""Models, their deployments, and what can be done with them."""

from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import strawberry

from app.api.graphql.catalog import Provider
from app.api.graphql.context import Info
from app.api.graphql.errors import UserError, refusing
from app.api.graphql.node import Node
from app.api.graphql.pagination import After, Connection, First, arg, connect
from app.api.graphql.scalars import BigInt
from app.core import ids
from app.core.paging import PageRequest
from app.jobs import checkpoints
from app.models import service
from app.models import tables as rows

if TYPE_CHECKING:
    from app.api.graphql.jobs import Job


@strawberry.enum(description="The life of a deployment.")
class DeploymentStatus(Enum):
    PENDING = strawberry.enum_value("pending", description="Waiting for a worker.")
    STARTING = strawberry.enum_value("starting", description="Being loaded, or loaded again.")
    READY = strawberry.enum_value("ready", description="It has really answered.")
    STOPPED = strawberry.enum_value("stopped", description="Taken down.")
    FAILED = strawberry.enum_value("failed", description="It could not be brought up; see error.")


@strawberry.type(description="Why a deployment failed.")
class DeploymentError:
    code: str = strawberry.field(description="For programs.")
    message: str = strawberry.field(description="For people.")


@strawberry.type(description="A model made callable.")
class Deployment(Node):
    status: DeploymentStatus = strawberry.field(description="Where it is in its life.")
    requested_action: str | None = strawberry.field(
        description="UNDEPLOY while it is being taken down."
    )
    hardware: str | None = strawberry.field(description="The worker label asked for.")
    cost_per_hour: float = strawberry.field(description="In US dollars, from the settings.")
    error: DeploymentError | None = strawberry.field(description="Why it failed.")
    created_at: datetime = strawberry.field(description="When it was asked for.")
    ready_at: datetime | None = strawberry.field(description="When it last became ready.")
    stopped_at: datetime | None = strawberry.field(description="When it ended.")
    row: strawberry.Private[rows.Deployment]

    @staticmethod
    def of(row: rows.Deployment, info: Info) -> "Deployment":
        error = row.error
        return Deployment(
            id=strawberry.ID(row.id),
            status=DeploymentStatus(row.status),
            requested_action=row.requested_action.upper() if row.requested_action else None,
            hardware=row.hardware,
            cost_per_hour=info.context.services.settings.hourly_cost,
            error=DeploymentError(**error) if error else None,
            created_at=row.created_at,
            ready_at=row.ready_at,
            stopped_at=row.stopped_at,
            row=row,
        )

    @strawberry.field(description="What is deployed.")
    async def model(self, info: Info) -> "Model":
        found = await info.context.models.load(self.row.model_id)
        assert found is not None  # noqa: S101 - a foreign key holds it
        return Model.of(found)

    @strawberry.field(
        description="Where to call it by the model's name, on this server, while it is ready."
    )
    def endpoint(self) -> str | None:
        return "/v1/chat/completions" if self.status is DeploymentStatus.READY else None


@strawberry.type(description="The result of a job or a checkpoint; it has a name one can call.")
class Model(Node):
    name: str = strawberry.field(
        description="ft:<base>:<organization>:<suffix>:<id>, or as its provider calls it."
    )
    provider: Provider = strawberry.field(description="Where it lives.")
    base_model: str = strawberry.field(description="What it was tuned from.")
    kind: str = strawberry.field(
        description="lora (an adapter), full, or provider when its weights are there."
    )
    step: int | None = strawberry.field(description="The training step it was taken at.")
    size_bytes: BigInt | None = strawberry.field(
        description="Of its weights on disk; null when a provider has them."
    )
    checkpoint_id: strawberry.ID | None = strawberry.field(
        description="The checkpoint of the same weights, while it is kept."
    )
    created_at: datetime = strawberry.field(description="When it was made.")
    row: strawberry.Private[rows.Model]

    @staticmethod
    def of(row: rows.Model) -> "Model":
        return Model(
            id=strawberry.ID(row.id),
            name=row.name,
            provider=Provider(row.provider),
            base_model=row.base_model,
            kind=row.kind,
            step=row.step,
            size_bytes=BigInt(row.size_bytes) if row.provider == "local" else None,
            checkpoint_id=strawberry.ID(row.checkpoint_id) if row.checkpoint_id else None,
            created_at=row.created_at,
            row=row,
        )

    @strawberry.field(
        description="Where its weights can be fetched with a GET, as a tar file; null when a "
        "provider has them."
    )
    def download_path(self) -> str | None:
        if self.provider is not Provider.LOCAL:
            return None
        return f"/v1/models/{self.id}/content"

    @strawberry.field(description="The job that made it.")
    async def job(
        self, info: Info
    ) -> Annotated["Job", strawberry.lazy("app.api.graphql.jobs")] | None:
        from app.api.graphql.jobs import Job  # noqa: PLC0415 - the schema is a cycle

        found = await info.context.jobs.load(self.row.job_id)
        return Job.now(found) if found else None

    @strawberry.field(description="Its deployments, newest first.")
    async def deployments(self, info: Info) -> list[Deployment]:
        found = await info.context.deployments.load(str(self.id))
        return [Deployment.of(row, info) for row in found]


@strawberry.input(description="Which models; every condition given must hold.")
class ModelFilter:
    base_model: str | None = strawberry.field(description="Tuned from this one.", default=None)
    job_id: strawberry.ID | None = strawberry.field(description="Made by this job.", default=None)
    search: str | None = strawberry.field(description="Part of the name.", default=None)
    deployed: bool | None = strawberry.field(
        description="Only models that are, or are not, ready to be called.", default=None
    )


@strawberry.input(description="Which model to make callable, and where.")
class DeployModelInput:
    model_id: strawberry.ID = strawberry.field(description="A model's id, or a checkpoint's.")
    hardware: str | None = strawberry.field(
        description="A worker label; any worker when left out.", default=None
    )
    idempotency_key: str | None = strawberry.field(
        description="The same key again gives the same deployment.", default=None
    )


@strawberry.type(description="What came of deployModel.")
class DeployModelPayload:
    deployment: Deployment | None = strawberry.field(
        description="The deployment; watch it with deploymentChanges.", default=None
    )
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.input(description="Which deployment to take down.")
class UndeployModelInput:
    deployment_id: strawberry.ID = strawberry.field(description="The deployment's id.")


@strawberry.type(description="What came of undeployModel.")
class UndeployModelPayload:
    deployment: Deployment | None = strawberry.field(description="The deployment.", default=None)
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.input(description="Which model to delete.")
class DeleteModelInput:
    id: strawberry.ID = strawberry.field(description="The model's id.")


@strawberry.type(description="What came of deleteModel.")
class DeleteModelPayload:
    deleted_id: strawberry.ID | None = strawberry.field(description="What is gone.", default=None)
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.type
class ModelQueries:
    @strawberry.field(description="Fine-tuned models, newest first.")
    async def models(
        self,
        info: Info,
        filter: Annotated[ModelFilter | None, arg("Which models.")] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[Model]:
        wanted = filter or ModelFilter()
        async with info.context.transaction() as session:
            page = await service.page(
                session,
                info.context.actor,
                PageRequest.of(first, after),
                base_model=wanted.base_model,
                job_id=wanted.job_id,
                search=wanted.search,
                deployed=wanted.deployed,
            )
        found: Connection[Model] = connect(page, Model.of)
        return found

    @strawberry.field(description="One model; null when there is none.")
    async def model(
        self, info: Info, id: Annotated[strawberry.ID, arg("The model's id.")]
    ) -> Model | None:
        with refusing():
            async with info.context.transaction() as session:
                return Model.of(await service.get(session, info.context.actor, id))
        return None

    @strawberry.field(description="Deployments, newest first.")
    async def deployments(
        self,
        info: Info,
        model_id: Annotated[strawberry.ID | None, arg("Only of this model.")] = None,
        live: Annotated[bool | None, arg("Only those that are, or are not, over.")] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[Deployment]:
        async with info.context.transaction() as session:
            page = await service.deployment_page(
                session,
                info.context.actor,
                PageRequest.of(first, after),
                model_id=model_id,
                live=live,
            )
        found: Connection[Deployment] = connect(page, lambda row: Deployment.of(row, info))
        return found


@strawberry.type
class ModelMutations:
    @strawberry.mutation(description="Make a model callable. It is READY once it really answers.")
    async def deploy_model(
        self, info: Info, input: Annotated[DeployModelInput, arg("Which model, and where.")]
    ) -> DeployModelPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                wanted = str(input.model_id)
                if ids.prefix_of(wanted) == ids.CHECKPOINT:
                    wanted = (await checkpoints.as_model(session, info.context.actor, wanted)).id
                deployment = await service.deploy(
                    session,
                    info.context.actor,
                    wanted,
                    hardware=input.hardware,
                    idempotency_key=input.idempotency_key,
                )
            return DeployModelPayload(deployment=Deployment.of(deployment, info))
        return DeployModelPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Take a deployment down and free what it holds.")
    async def undeploy_model(
        self, info: Info, input: Annotated[UndeployModelInput, arg("Which deployment.")]
    ) -> UndeployModelPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                deployment = await service.undeploy(
                    session, info.context.actor, input.deployment_id
                )
            return UndeployModelPayload(deployment=Deployment.of(deployment, info))
        return UndeployModelPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Delete a model that is not deployed.")
    async def delete_model(
        self, info: Info, input: Annotated[DeleteModelInput, arg("Which model.")]
    ) -> DeleteModelPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                model = await service.delete(session, info.context.actor, input.id)
            return DeleteModelPayload(deleted_id=strawberry.ID(model.id))
        return DeleteModelPayload(user_errors=refused.user_errors)
