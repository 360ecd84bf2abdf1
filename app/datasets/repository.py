"""Rows of datasets and their versions."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.paging import Page, PageRequest, fetch_page
from app.datasets.errors import DatasetNotFound, DatasetVersionNotFound
from app.datasets.tables import Dataset, DatasetVersion

_LOCK_CONTENTS = text("SELECT pg_advisory_xact_lock(hashtextextended('contents of ' || :org, 0))")


@dataclass(frozen=True)
class DatasetRepository:
    session: AsyncSession
    org_id: str

    async def get(self, id: str, *, lock: bool = False) -> Dataset:
        found = await self.session.get(Dataset, (self.org_id, id), with_for_update=lock or None)
        if found is None:
            raise DatasetNotFound(f"There is no dataset {id[:60]!r} here.")
        return found

    async def page(self, request: PageRequest) -> Page[Dataset]:
        query = select(Dataset).where(Dataset.org_id == self.org_id)
        return await fetch_page(
            self.session, query, request, col(Dataset.created_at), col(Dataset.id), descending=True
        )

    async def version(self, id: str) -> DatasetVersion:
        found = await self.session.get(DatasetVersion, (self.org_id, id))
        if found is None:
            raise DatasetVersionNotFound(f"There is no dataset version {id[:60]!r} here.")
        return found

    async def versions(self, dataset_id: str) -> list[DatasetVersion]:
        query = (
            select(DatasetVersion)
            .where(DatasetVersion.org_id == self.org_id, DatasetVersion.dataset_id == dataset_id)
            .order_by(col(DatasetVersion.number).desc())
        )
        return list(await self.session.exec(query))

    async def versions_by_id(self, wanted: list[str]) -> list[DatasetVersion]:
        query = select(DatasetVersion).where(
            DatasetVersion.org_id == self.org_id, col(DatasetVersion.id).in_(wanted)
        )
        return list(await self.session.exec(query))

    async def lock_contents(self) -> None:
        """Until commit nobody else looks a content up in order to make its version."""
        await (await self.session.connection()).execute(_LOCK_CONTENTS, {"org": self.org_id})

    async def version_of_content(self, sha256: str) -> DatasetVersion | None:
        query = (
            select(DatasetVersion)
            .where(DatasetVersion.org_id == self.org_id, DatasetVersion.sha256 == sha256)
            .order_by(col(DatasetVersion.created_at))
            .limit(1)
        )
        return (await self.session.exec(query)).first()
