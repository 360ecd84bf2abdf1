"""Rows of jobs and checkpoints."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import TypeDecorator, inspect, type_coerce
from sqlalchemy import select as select_columns
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.paging import Page, PageRequest, fetch_page
from app.jobs.errors import CheckpointNotFound, JobNotFound
from app.jobs.filters import JOBS, JobFilter, JobOrder
from app.jobs.tables import Checkpoint, Job


def _plain(kind: Any) -> Any:
    return kind.impl_instance if isinstance(kind, TypeDecorator) else kind


# Columns, not objects: rows of a page are only read, and there are up to 200 of them. For the same
# reason their text goes past SQLModel's own type, which looks at each value in Python.
_COLUMNS = {
    attribute.key: type_coerce(column, _plain(column.type)).label(attribute.key)
    for attribute in inspect(Job).column_attrs
    for column in attribute.columns
}


def no_job(id: str) -> JobNotFound:
    return JobNotFound(f"There is no job {id[:60]!r} here.", path=("id",))


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
            raise no_job(id)
        return found

    async def by_id(self, wanted: list[str]) -> list[Job]:
        query = select(Job).where(
            Job.org_id == self.org_id, col(Job.id).in_(wanted), col(Job.deleted_at).is_(None)
        )
        return list(await self.session.exec(query))

    async def page(
        self,
        request: PageRequest,
        where: JobFilter,
        order: JobOrder,
        columns: Collection[str] | None = None,
    ) -> Page[Job]:
        """With `columns`, rows of these and of what the order needs."""
        name, direction = order.value.split()
        wanted = _COLUMNS.keys() if columns is None else {*columns, name, "id"}
        query = select_columns(*(_COLUMNS[name] for name in sorted(wanted))).where(
            JOBS.c.org_id == self.org_id, JOBS.c.deleted_at.is_(None), *where.conditions()
        )
        return await fetch_page(
            self.session, query, request, JOBS.c[name], JOBS.c.id, descending=direction == "desc"
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
