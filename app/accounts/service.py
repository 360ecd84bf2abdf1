"""What can be done with accounts: first start, authentication, keys, members, projects."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import audit, keys, repository
from app.accounts.errors import KeyExpired, KeyRevoked, KeyUnknown, LastOwner, ScopeTooWide
from app.accounts.repository import AccountRepository
from app.accounts.tables import ApiKey, Member, Organization, Project
from app.core import clock, ids
from app.core.actor import Actor, Role, Scope
from app.core.database import Database
from app.core.errors import Invalid
from app.core.secrets import write_secret
from app.events import log

_USED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True)
class NewKey:
    """A key just made: `secret` is shown this once."""

    key: ApiKey
    secret: str


async def first_start(database: Database, pepper: bytes, key_file: Path) -> bool:
    """Create the first organization, project, owner and key, once per database.

    The key is on disk (mode 0600) before it is in the database: a crash in between loses nothing.
    """
    write_secret(key_file, keys.generate())
    secret = key_file.read_text().strip()
    org_id = ids.new(ids.ORGANIZATION)
    async with database.transaction(org_id) as session:
        rows = await (await session.connection()).execute(repository.FIRST_START)
        if rows.first() is None:
            return False
        await _found(session, pepper, org_id, "My organization", secret)
    return True


async def create_organization(database: Database, pepper: bytes, name: str) -> NewKey:
    """A new tenant with one project, one owner and the owner's key with every scope."""
    org_id = ids.new(ids.ORGANIZATION)
    async with database.transaction(org_id) as session:
        return await _found(session, pepper, org_id, name, keys.generate())


async def _found(
    session: AsyncSession, pepper: bytes, org_id: str, name: str, secret: str
) -> NewKey:
    now = clock.now()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:24] or "org"
    session.add(
        Organization(id=org_id, name=name, slug=f"{slug}-{secrets.token_hex(4)}", created_at=now)
    )
    await session.flush()
    owner = Member(
        org_id=org_id, id=ids.new(ids.MEMBER), name="owner", role=Role.OWNER.value, created_at=now
    )
    home = Project(org_id=org_id, id=ids.new(ids.PROJECT), name="main", created_at=now)
    session.add_all([owner, home])
    await session.flush()
    await log.open_stream(session, org_id, org_id)
    return await _add_key(
        session, pepper, org_id, home.id, owner.id, "owner", list(Scope), None, secret
    )


async def authenticate(database: Database, pepper: bytes, key: str, request_id: str) -> Actor:
    """Who this key acts for. Raises KeyUnknown, KeyExpired or KeyRevoked."""
    if not keys.plausible(key):
        raise KeyUnknown("This is not a valid API key. Check for missing characters.")
    async with database.transaction(None) as session:
        rows = await (await session.connection()).execute(
            repository.AUTHENTICATE, {"hash": keys.hashed(key, pepper)}
        )
        row = rows.first()
    if row is None:
        raise KeyUnknown("This API key is not known here. Check that it is for this server.")
    now = clock.now()
    if row.revoked_at is not None:
        raise KeyRevoked("This API key was revoked. Ask an owner for a new one.")
    if row.expires_at is not None and row.expires_at <= now:
        raise KeyExpired(
            f"This API key expired on {clock.rfc3339(row.expires_at)}. Ask an owner for a new one."
        )
    if row.last_used_at is None or now - row.last_used_at > _USED_EVERY:
        async with database.transaction(row.org_id) as session:
            await (await session.connection()).execute(
                repository.USED, {"now": now, "org": row.org_id, "id": row.key_id}
            )
    return Actor(
        org_id=row.org_id,
        project_id=row.project_id,
        member_id=row.member_id,
        key_id=row.key_id,
        role=Role(row.role),
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        expires_at=row.expires_at,
        request_id=request_id,
    )


async def create_key(
    session: AsyncSession,
    actor: Actor,
    pepper: bytes,
    *,
    name: str,
    scopes: Sequence[Scope],
    member_id: str | None,
    project_id: str | None,
    expires_at: datetime | None,
) -> NewKey:
    """A key for a member and a project; it may have only scopes that the actor's key has."""
    actor.require(Scope.ADMIN, Role.ADMIN)
    accounts = AccountRepository(session, actor.org_id)
    member = await accounts.member(member_id or actor.member_id)
    project = await accounts.project(project_id or actor.project_id)
    if not name.strip():
        raise Invalid("Give the key a name by which you will know it.", path=("name",))
    if missing := [scope.value for scope in scopes if scope not in actor.scopes]:
        raise ScopeTooWide(
            f"Your own key lacks {', '.join(missing)}, so it cannot give it.", path=("scopes",)
        )
    if Role(member.role).rank > actor.role.rank:
        raise ScopeTooWide("The member has a higher role than you.", path=("memberId",))
    if expires_at is not None and expires_at <= clock.now():
        raise Invalid("The expiry lies in the past.", path=("expiresAt",))
    made = await _add_key(
        session,
        pepper,
        actor.org_id,
        project.id,
        member.id,
        name,
        scopes,
        expires_at,
        keys.generate(),
    )
    audit.record(
        session,
        actor,
        "key.created",
        made.key.id,
        after={"name": name, "scopes": made.key.scopes, "memberId": member.id},
    )
    return made


async def revoke_key(session: AsyncSession, actor: Actor, id: str) -> ApiKey:
    """End a key for ever. A key may revoke itself; others need the role admin."""
    if id != actor.key_id:
        actor.require(Scope.ADMIN, Role.ADMIN)
    accounts = AccountRepository(session, actor.org_id)
    key = await accounts.key(id)
    if Role((await accounts.member(key.member_id)).role).rank > actor.role.rank:
        raise ScopeTooWide("The key's member has a higher role than you.", path=("id",))
    if key.revoked_at is None:
        key.revoked_at = clock.now()
        session.add(key)
        audit.record(session, actor, "key.revoked", id, before={"name": key.name})
    return key


async def set_member(
    session: AsyncSession, actor: Actor, *, id: str | None, name: str | None, role: Role
) -> Member:
    """Add a member, or change one's role. Nobody gives a role above their own."""
    actor.require(Scope.ADMIN, Role.ADMIN)
    if role.rank > actor.role.rank:
        raise Invalid(f"Your own role is {actor.role.value}.", path=("role",))
    if id is None:
        if not name:
            raise Invalid("A new member needs a name.", path=("name",))
        member = Member(
            org_id=actor.org_id,
            id=ids.new(ids.MEMBER),
            name=name,
            role=role.value,
            created_at=clock.now(),
        )
        before = None
    else:
        accounts = AccountRepository(session, actor.org_id)
        member = await accounts.member(id, "id")
        if Role(member.role).rank > actor.role.rank:
            raise Invalid("This member has a higher role than you.", path=("id",))
        if member.role == Role.OWNER and role is not Role.OWNER:
            owners = [m for m in await accounts.members() if m.role == Role.OWNER]
            if len(owners) == 1:
                raise LastOwner("An organization keeps at least one owner.", path=("role",))
        before = {"role": member.role}
        member.role = role.value
        member.name = name or member.name
    session.add(member)
    audit.record(
        session, actor, "member.set", member.id, before=before, after={"role": member.role}
    )
    return member


async def create_project(session: AsyncSession, actor: Actor, name: str) -> Project:
    actor.require(Scope.ADMIN, Role.ADMIN)
    if not name.strip():
        raise Invalid("A project needs a name.", path=("name",))
    project = Project(
        org_id=actor.org_id, id=ids.new(ids.PROJECT), name=name.strip(), created_at=clock.now()
    )
    session.add(project)
    audit.record(session, actor, "project.created", project.id, after={"name": project.name})
    return project


async def organization(session: AsyncSession, actor: Actor) -> Organization:
    return await AccountRepository(session, actor.org_id).organization()


async def own_project(session: AsyncSession, actor: Actor) -> Project:
    return await AccountRepository(session, actor.org_id).project(actor.project_id)


async def own_member(session: AsyncSession, actor: Actor) -> Member:
    return await AccountRepository(session, actor.org_id).member(actor.member_id)


async def projects(session: AsyncSession, actor: Actor) -> list[Project]:
    actor.require(Scope.READ)
    return await AccountRepository(session, actor.org_id).projects()


async def members(session: AsyncSession, actor: Actor) -> list[Member]:
    actor.require(Scope.READ)
    return await AccountRepository(session, actor.org_id).members()


async def api_keys(session: AsyncSession, actor: Actor) -> list[ApiKey]:
    """Every key of the organization, without its secret."""
    actor.require(Scope.ADMIN, Role.ADMIN)
    return await AccountRepository(session, actor.org_id).keys()


async def _add_key(
    session: AsyncSession,
    pepper: bytes,
    org_id: str,
    project_id: str,
    member_id: str,
    name: str,
    scopes: Sequence[Scope],
    expires_at: datetime | None,
    secret: str,
) -> NewKey:
    key = ApiKey(
        org_id=org_id,
        id=ids.new(ids.API_KEY),
        project_id=project_id,
        member_id=member_id,
        name=name,
        prefix=secret[: keys.SHOWN],
        hash=keys.hashed(secret, pepper),
        scopes=[scope.value for scope in scopes],
        created_at=clock.now(),
        expires_at=expires_at,
    )
    session.add(key)
    await session.flush()
    return NewKey(key, secret)
