"""Rows of models and deployments."""

from dataclasses import dataclass

from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.paging import Page, PageRequest, fetch_page
from app.models.errors import DeploymentNotFound, ModelNotFound
from app.models.states import OVER, DeploymentStatus
from app.models.tables import CheckpointPermission, Deployment, Model


@dataclass(frozen=True)
class ModelRepository:
    session: AsyncSession
    org_id: str

    async def get(self, id: str) -> Model:
        found = await self.session.get(Model, (self.org_id, id))
        if found is None or found.deleted_at is not None:
            raise ModelNotFound(f"There is no model {id[:60]!r} here.", path=("modelId",))
        return found

    async def by_id(self, wanted: list[str]) -> list[Model]:
        query = select(Model).where(Model.org_id == self.org_id, col(Model.id).in_(wanted))
        return list(await self.session.exec(query))

    async def by_name(self, name: str) -> Model | None:
        query = select(Model).where(
            Model.org_id == self.org_id, Model.name == name, col(Model.deleted_at).is_(None)
        )
        return (await self.session.exec(query)).first()

    async def of_checkpoint(self, checkpoint_id: str) -> Model | None:
        query = select(Model).where(
            Model.org_id == self.org_id,
            Model.checkpoint_id == checkpoint_id,
            col(Model.deleted_at).is_(None),
        )
        return (await self.session.exec(query)).first()

    async def permissions(self, checkpoint_id: str) -> list[CheckpointPermission]:
        query = (
            select(CheckpointPermission)
            .where(
                CheckpointPermission.org_id == self.org_id,
                CheckpointPermission.checkpoint_id == checkpoint_id,
            )
            .order_by(col(CheckpointPermission.created_at), col(CheckpointPermission.id))
        )
        return list(await self.session.exec(query))

    async def page(
        self,
        request: PageRequest,
        *,
        base_model: str | None,
        job_id: str | None,
        search: str | None,
        deployed: bool | None,
    ) -> Page[Model]:
        query = select(Model).where(Model.org_id == self.org_id, col(Model.deleted_at).is_(None))
        if base_model:
            query = query.where(Model.base_model == base_model)
        if job_id:
            query = query.where(Model.job_id == job_id)
        if search:
            query = query.where(col(Model.name).icontains(search, autoescape=True))
        if deployed is not None:
            ready = select(Deployment.model_id).where(
                Deployment.org_id == self.org_id, Deployment.status == DeploymentStatus.READY
            )
            inside = col(Model.id).in_(ready)
            query = query.where(inside if deployed else ~inside)
        return await fetch_page(
            self.session, query, request, col(Model.created_at), col(Model.id), descending=True
        )

    async def deployment(self, id: str, *, lock: bool = False) -> Deployment:
        query = select(Deployment).where(Deployment.org_id == self.org_id, Deployment.id == id)
        if lock:
            query = query.with_for_update().execution_options(populate_existing=True)
        found = (await self.session.exec(query)).first()
        if found is None:
            raise DeploymentNotFound(f"There is no deployment {id[:60]!r} here.", path=("id",))
        return found

    async def live_deployment(self, model_id: str) -> Deployment | None:
        query = select(Deployment).where(
            Deployment.org_id == self.org_id,
            Deployment.model_id == model_id,
            col(Deployment.status).not_in(OVER),
        )
        return (await self.session.exec(query)).first()

    async def deployments_of(self, model_ids: list[str]) -> list[Deployment]:
        query = (
            select(Deployment)
            .where(Deployment.org_id == self.org_id, col(Deployment.model_id).in_(model_ids))
            .order_by(col(Deployment.created_at).desc())
        )
        return list(await self.session.exec(query))

    async def ready_on_base(self, base_model: str, project_id: str) -> Deployment | None:
        """A ready adapter over this base model: its server answers for the base as well."""
        query = (
            select(Deployment)
            .join(
                Model,
                (col(Model.org_id) == Deployment.org_id) & (col(Model.id) == Deployment.model_id),
            )
            .where(
                Deployment.org_id == self.org_id,
                Deployment.project_id == project_id,
                Deployment.status == DeploymentStatus.READY,
                Model.base_model == base_model,
                Model.kind == "lora",
            )
            .limit(1)
        )
        return (await self.session.exec(query)).first()

    async def deployment_page(
        self, request: PageRequest, *, model_id: str | None, live: bool | None
    ) -> Page[Deployment]:
        query = select(Deployment).where(Deployment.org_id == self.org_id)
        if model_id:
            query = query.where(Deployment.model_id == model_id)
        if live is not None:
            over = or_(*(Deployment.status == status for status in OVER))
            query = query.where(~over if live else over)
        return await fetch_page(
            self.session,
            query,
            request,
            col(Deployment.created_at),
            col(Deployment.id),
            descending=True,
        )
