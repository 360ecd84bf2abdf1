"""Rows of jobs and checkpoints."""

from dataclasses import dataclass

from sqlalchemy import select as select_columns
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.paging import Page, PageRequest, fetch_page
from app.jobs.errors import CheckpointNotFound, JobNotFound
from app.jobs.filters import JobFilter, JobOrder
from app.jobs.tables import Checkpoint, Job

# Columns, not objects: rows of a page are only read, and there are up to 200 of them.
_PAGE = select_columns(*(getattr(Job, name) for name in Job.model_fields))


@dataclass(frozen=True)
class JobRepository:
    session: AsyncSession
    org_id: str

    async def get(self, id: str, *, lock: bool = False) -> Job:
        query = select(Job).where(
            Job.org_id == self.org_id, Job.id == id, col(Job.deleted_at).is_(None)
        )
        if lock:
            query = query.with_for_update().execution_options(populate_existing=True)
        found = (await self.session.exec(query)).first()
        if found is None:
            raise JobNotFound(f"There is no job {id[:60]!r} here.", path=("id",))
        return found

    async def by_id(self, wanted: list[str]) -> list[Job]:
        query = select(Job).where(
            Job.org_id == self.org_id, col(Job.id).in_(wanted), col(Job.deleted_at).is_(None)
        )
        return list(await self.session.exec(query))

    async def page(self, request: PageRequest, where: JobFilter, order: JobOrder) -> Page[Job]:
        query = _PAGE.where(
            col(Job.org_id) == self.org_id, col(Job.deleted_at).is_(None), *where.conditions()
        )
        name, direction = order.value.split()
        return await fetch_page(
            self.session,
            query,
            request,
            col(getattr(Job, name)),
            col(Job.id),
            descending=direction == "desc",
        )

    async def newest_checkpoint(self, job_id: str) -> Checkpoint | None:
        """Where work goes on: the newest attempt's furthest checkpoint."""
        query = (
            select(Checkpoint)
            .where(Checkpoint.org_id == self.org_id, Checkpoint.job_id == job_id)
            .order_by(col(Checkpoint.attempt).desc(), col(Checkpoint.step).desc())
            .limit(1)
        )
        return (await self.session.exec(query)).first()

    async def checkpoint(self, id: str, *, lock: bool = False) -> Checkpoint:
        found = await self.session.get(Checkpoint, (self.org_id, id), with_for_update=lock)
        if found is None:
            raise self.no_checkpoint(id)
        return found

    def no_checkpoint(self, id: str) -> CheckpointNotFound:
        return CheckpointNotFound(f"There is no checkpoint {id[:60]!r} here.", path=("id",))

    async def checkpoint_at(self, job_id: str, step: int) -> Checkpoint | None:
        query = select(Checkpoint).where(
            Checkpoint.org_id == self.org_id, Checkpoint.job_id == job_id, Checkpoint.step == step
        )
        return (await self.session.exec(query)).first()

    async def checkpoints(self, job_id: str) -> list[Checkpoint]:
        query = (
            select(Checkpoint)
            .where(Checkpoint.org_id == self.org_id, Checkpoint.job_id == job_id)
            .order_by(col(Checkpoint.step).desc())
        )
        return list(await self.session.exec(query))

    async def checkpoint_page(self, job_id: str, request: PageRequest) -> Page[Checkpoint]:
        query = select(Checkpoint).where(
            Checkpoint.org_id == self.org_id, Checkpoint.job_id == job_id
        )
        return await fetch_page(
            self.session, query, request, col(Checkpoint.step), col(Checkpoint.id), descending=True
        )
