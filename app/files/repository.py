"""Rows of files and of the bytes they share."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.paging import Page, PageRequest, fetch_page
from app.files.errors import FileNotFound
from app.files.tables import File

_ADD_REFERENCE = text(
    'INSERT INTO blobs (org_id, sha256, size, "references") VALUES (:org, :sha256, :size, 1)'
    ' ON CONFLICT (org_id, sha256) DO UPDATE SET "references" = blobs."references" + 1'
)
_DROP_REFERENCE = text(
    'UPDATE blobs SET "references" = "references" - 1'
    ' WHERE org_id = :org AND sha256 = :sha256 RETURNING "references"'
)
_KNOWN = text("SELECT sha256 FROM blobs WHERE org_id = :org AND sha256 = ANY(:wanted)")
_FORGET = text("DELETE FROM blobs WHERE org_id = :org AND sha256 = :sha256")


@dataclass(frozen=True)
class FileRepository:
    session: AsyncSession
    org_id: str

    async def add(self, file: File) -> None:
        await (await self.session.connection()).execute(
            _ADD_REFERENCE, {"org": self.org_id, "sha256": file.sha256, "size": file.size}
        )
        self.session.add(file)
        await self.session.flush()

    async def get(self, id: str) -> File:
        found = await self.session.get(File, (self.org_id, id))
        if found is None:
            raise FileNotFound(f"There is no file {id[:60]!r} here. Upload it first.")
        return found

    async def page(self, request: PageRequest, purpose: str | None) -> Page[File]:
        query = select(File).where(File.org_id == self.org_id)
        if purpose:
            query = query.where(File.purpose == purpose)
        return await fetch_page(
            self.session, query, request, col(File.created_at), col(File.id), descending=True
        )

    async def known(self, wanted: set[str]) -> set[str]:
        """Which of these contents some file refers to."""
        rows = await (await self.session.connection()).execute(
            _KNOWN, {"org": self.org_id, "wanted": list(wanted)}
        )
        return set(rows.scalars())

    async def remove(self, file: File) -> bool:
        """Delete the row; True when nothing else needs the bytes any more."""
        await self.session.delete(file)
        await self.session.flush()
        connection = await self.session.connection()
        where = {"org": self.org_id, "sha256": file.sha256}
        if (await connection.execute(_DROP_REFERENCE, where)).scalar_one() > 0:
            return False
        await connection.execute(_FORGET, where)
        return True
