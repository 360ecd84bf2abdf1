"""Rows of organizations, projects, members and keys."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts.errors import KeyNotFound, MemberNotFound, ProjectNotFound
from app.accounts.tables import ApiKey, Member, Organization, Project

AUTHENTICATE = text("SELECT * FROM authenticate_key(:hash)")
FIRST_START = text(
    "INSERT INTO installation (id, created_at) VALUES (1, now()) ON CONFLICT DO NOTHING"
    " RETURNING id"
)
USED = text("UPDATE api_keys SET last_used_at = :now WHERE org_id = :org AND id = :id")


@dataclass(frozen=True)
class AccountRepository:
    session: AsyncSession
    org_id: str

    async def organization(self) -> Organization:
        return await self.session.get_one(Organization, self.org_id)

    async def projects(self) -> list[Project]:
        query = select(Project).where(Project.org_id == self.org_id).order_by(col(Project.id))
        return list(await self.session.exec(query))

    async def project(self, id: str) -> Project:
        found = await self.session.get(Project, (self.org_id, id))
        if found is None:
            raise ProjectNotFound(f"There is no project {id!r} here.", path=("projectId",))
        return found

    async def members(self) -> list[Member]:
        query = select(Member).where(Member.org_id == self.org_id).order_by(col(Member.id))
        return list(await self.session.exec(query))

    async def member(self, id: str, field: str = "memberId") -> Member:
        found = await self.session.get(Member, (self.org_id, id))
        if found is None:
            raise MemberNotFound(f"There is no member {id!r} here.", path=(field,))
        return found

    async def keys(self) -> list[ApiKey]:
        query = select(ApiKey).where(ApiKey.org_id == self.org_id).order_by(col(ApiKey.id))
        return list(await self.session.exec(query))

    async def key(self, id: str) -> ApiKey:
        found = await self.session.get(ApiKey, (self.org_id, id))
        if found is None:
            raise KeyNotFound(f"There is no API key {id!r} here.", path=("id",))
        return found
