"""Who asks, and who else there is: viewer, organization, projects, members, API keys, audit log."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import strawberry

from app.accounts import audit, service
from app.accounts import tables as rows
from app.api.graphql.context import Info
from app.api.graphql.errors import UserError, refusing
from app.api.graphql.pagination import After, First, arg
from app.api.graphql.scalars import JSON
from app.core import actor
from app.core.paging import PageRequest
from app.events import cursors


@strawberry.enum(
    name="Role", description="What a member may do; each may do what the one before may."
)
class Role(Enum):
    MEMBER = strawberry.enum_value("member", description="Reads.")
    ADMIN = strawberry.enum_value(
        "admin", description="Submits, cancels, pauses, deploys, corrects."
    )
    OWNER = strawberry.enum_value("owner", description="Deletes.")


@strawberry.enum(name="Scope", description="What a key may be used for, besides its member's role.")
class Scope(Enum):
    FINE_TUNING_READ = strawberry.enum_value("fine-tuning:read", description="Reading.")
    FINE_TUNING_WRITE = strawberry.enum_value("fine-tuning:write", description="Changing.")
    INFERENCE = strawberry.enum_value("inference", description="Calling models.")
    ADMIN = strawberry.enum_value("admin", description="Keys, members, projects, the audit log.")


@strawberry.type(description="The tenant: its members see all its jobs and streams.")
class Organization:
    id: strawberry.ID = strawberry.field(description="Opaque id.")
    name: str = strawberry.field(description="For people.")
    slug: str = strawberry.field(description="As it appears in model names.")
    cursor: str = strawberry.field(description="Where the ledger's stream now ends.", default="0")

    @staticmethod
    def of(row: rows.Organization) -> "Organization":
        return Organization(id=strawberry.ID(row.id), name=row.name, slug=row.slug)


@strawberry.type(description="Bounds keys, credentials, budgets and who may call a model.")
class Project:
    id: strawberry.ID = strawberry.field(description="Opaque id.")
    name: str = strawberry.field(description="For people.")
    created_at: datetime = strawberry.field(description="When it was made.")

    @staticmethod
    def of(row: rows.Project) -> "Project":
        return Project(id=strawberry.ID(row.id), name=row.name, created_at=row.created_at)


@strawberry.type(description="A person or program of the organization.")
class Member:
    id: strawberry.ID = strawberry.field(description="Opaque id.")
    name: str = strawberry.field(description="For people.")
    role: Role = strawberry.field(description="What the member may do.")
    created_at: datetime = strawberry.field(description="When it was added.")

    @staticmethod
    def of(row: rows.Member) -> "Member":
        return Member(
            id=strawberry.ID(row.id), name=row.name, role=Role(row.role), created_at=row.created_at
        )


@strawberry.type(description="A key to the API. The key itself is shown only when it is made.")
class ApiKey:
    id: strawberry.ID = strawberry.field(description="Opaque id.")
    name: str = strawberry.field(description="For people.")
    prefix: str = strawberry.field(description="How the key begins.")
    scopes: list[Scope] = strawberry.field(description="What it may be used for.")
    member_id: strawberry.ID = strawberry.field(description="Whose key it is.")
    project_id: strawberry.ID = strawberry.field(description="The project it acts in.")
    created_at: datetime = strawberry.field(description="When it was made.")
    expires_at: datetime | None = strawberry.field(description="When it ends by itself.")
    revoked_at: datetime | None = strawberry.field(description="When it was ended.")
    last_used_at: datetime | None = strawberry.field(
        description="When it was last used, to the minute."
    )

    @staticmethod
    def of(row: rows.ApiKey) -> "ApiKey":
        return ApiKey(
            id=strawberry.ID(row.id),
            name=row.name,
            prefix=row.prefix,
            scopes=[Scope(scope) for scope in row.scopes],
            member_id=strawberry.ID(row.member_id),
            project_id=strawberry.ID(row.project_id),
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
            last_used_at=row.last_used_at,
        )


@strawberry.type(description="Who asks: the key, and what it may do.")
class Viewer:
    organization: Organization = strawberry.field(description="The key's organization.")
    project: Project = strawberry.field(description="The key's project.")
    member: Member = strawberry.field(description="The key's member.")
    key_id: strawberry.ID = strawberry.field(description="The key.")
    role: Role = strawberry.field(description="The member's role.")
    scopes: list[Scope] = strawberry.field(description="The key's scopes.")


@strawberry.type(description="Who did what, and what it changed.")
class AuditEntry:
    id: strawberry.ID = strawberry.field(description="Opaque id; newest sort last.")
    at: datetime = strawberry.field(description="When.")
    action: str = strawberry.field(description="What was done, such as job.submitted.")
    object_id: strawberry.ID = strawberry.field(description="To what.")
    member_id: strawberry.ID = strawberry.field(description="By whom.")
    key_id: strawberry.ID = strawberry.field(description="With which key.")
    request_id: str = strawberry.field(description="In which request.")
    before: JSON | None = strawberry.field(description="What it was.")
    after: JSON | None = strawberry.field(description="What it became.")
    reason: str | None = strawberry.field(description="Why, where that was asked for.")


@strawberry.type(description="One page of the audit log, newest first.")
class AuditPage:
    nodes: list[AuditEntry] = strawberry.field(description="The entries.")
    end_cursor: str | None = strawberry.field(description="Pass as after for the next page.")


@strawberry.input(description="Which audit entries.")
class AuditFilter:
    object_id: strawberry.ID | None = strawberry.field(
        description="Only about this thing.", default=None
    )
    action: str | None = strawberry.field(description="Only this action.", default=None)


@strawberry.input(description="A new API key.")
class CreateApiKeyInput:
    name: str = strawberry.field(description="For people.")
    scopes: list[Scope] = strawberry.field(description="What it may be used for.")
    member_id: strawberry.ID | None = strawberry.field(
        description="Whose key; yours when left out.", default=None
    )
    project_id: strawberry.ID | None = strawberry.field(
        description="For which project; yours when left out.", default=None
    )
    expires_at: datetime | None = strawberry.field(
        description="When it ends by itself; never when left out.", default=None
    )


@strawberry.type(description="What came of createApiKey.")
class CreateApiKeyPayload:
    api_key: ApiKey | None = strawberry.field(description="The key made.", default=None)
    secret: str | None = strawberry.field(
        description="The key itself. It is shown this once.", default=None
    )
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.input(description="Which API key to end.")
class RevokeApiKeyInput:
    id: strawberry.ID = strawberry.field(description="The key's id.")


@strawberry.type(description="What came of revokeApiKey.")
class RevokeApiKeyPayload:
    api_key: ApiKey | None = strawberry.field(description="The key ended.", default=None)
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.input(description="A member to add, or one to change.")
class SetMemberInput:
    role: Role = strawberry.field(description="What the member may do.")
    id: strawberry.ID | None = strawberry.field(
        description="The member to change; a new one when left out.", default=None
    )
    name: str | None = strawberry.field(description="For people.", default=None)


@strawberry.type(description="What came of setMember.")
class SetMemberPayload:
    member: Member | None = strawberry.field(description="The member.", default=None)
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.input(description="A new project.")
class CreateProjectInput:
    name: str = strawberry.field(description="For people.")


@strawberry.type(description="What came of createProject.")
class CreateProjectPayload:
    project: Project | None = strawberry.field(description="The project made.", default=None)
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.type
class AccountQueries:
    @strawberry.field(description="Who asks.")
    async def viewer(self, info: Info) -> Viewer:
        who = info.context.actor
        async with info.context.transaction() as session:
            organization = await service.organization(session, who)
            project = await service.own_project(session, who)
            member = await service.own_member(session, who)
            ledger = Organization.of(organization)
        ledger.cursor = await ledger_cursor(info)
        return Viewer(
            organization=ledger,
            project=Project.of(project),
            member=Member.of(member),
            key_id=strawberry.ID(who.key_id),
            role=Role(who.role.value),
            scopes=sorted((Scope(s.value) for s in who.scopes), key=lambda s: str(s.value)),
        )

    @strawberry.field(description="The organization's projects.")
    async def projects(self, info: Info) -> list[Project]:
        async with info.context.transaction() as session:
            return [Project.of(row) for row in await service.projects(session, info.context.actor)]

    @strawberry.field(description="The organization's members.")
    async def members(self, info: Info) -> list[Member]:
        async with info.context.transaction() as session:
            return [Member.of(row) for row in await service.members(session, info.context.actor)]

    @strawberry.field(description="The organization's API keys, without their secrets.")
    async def api_keys(self, info: Info) -> list[ApiKey]:
        async with info.context.transaction() as session:
            return [ApiKey.of(row) for row in await service.api_keys(session, info.context.actor)]

    @strawberry.field(description="Who did what, newest first.")
    async def audit_log(
        self,
        info: Info,
        filter: Annotated[AuditFilter | None, arg("Which entries.")] = None,
        first: First = None,
        after: After = None,
    ) -> AuditPage:
        wanted = filter or AuditFilter()
        async with info.context.transaction() as session:
            found = await audit.page(
                session,
                info.context.actor,
                object_id=wanted.object_id,
                action=wanted.action,
                after=after,
                limit=PageRequest.of(first).size,
            )
        return AuditPage(
            nodes=[_entry(row) for row in found], end_cursor=found[-1].id if found else None
        )


@strawberry.type
class AccountMutations:
    @strawberry.mutation(description="Make an API key. Its secret is shown this once.")
    async def create_api_key(
        self, info: Info, input: Annotated[CreateApiKeyInput, arg("The key.")]
    ) -> CreateApiKeyPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                made = await service.create_key(
                    session,
                    info.context.actor,
                    info.context.services.pepper,
                    name=input.name,
                    scopes=[actor.Scope(str(scope.value)) for scope in input.scopes],
                    member_id=input.member_id,
                    project_id=input.project_id,
                    expires_at=input.expires_at,
                )
            return CreateApiKeyPayload(api_key=ApiKey.of(made.key), secret=made.secret)
        return CreateApiKeyPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="End an API key for ever.")
    async def revoke_api_key(
        self, info: Info, input: Annotated[RevokeApiKeyInput, arg("Which key.")]
    ) -> RevokeApiKeyPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                key = await service.revoke_key(session, info.context.actor, input.id)
            info.context.services.keys.forget(info.context.actor.org_id)
            return RevokeApiKeyPayload(api_key=ApiKey.of(key))
        return RevokeApiKeyPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Add a member, or change one's name or role.")
    async def set_member(
        self, info: Info, input: Annotated[SetMemberInput, arg("The member.")]
    ) -> SetMemberPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                member = await service.set_member(
                    session,
                    info.context.actor,
                    id=input.id,
                    name=input.name,
                    role=actor.Role(str(input.role.value)),
                )
            info.context.services.keys.forget(info.context.actor.org_id)
            return SetMemberPayload(member=Member.of(member))
        return SetMemberPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Make a project.")
    async def create_project(
        self, info: Info, input: Annotated[CreateProjectInput, arg("The project.")]
    ) -> CreateProjectPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                project = await service.create_project(session, info.context.actor, input.name)
            return CreateProjectPayload(project=Project.of(project))
        return CreateProjectPayload(user_errors=refused.user_errors)


async def ledger_cursor(info: Info) -> str:

    head = await info.context.heads.load(info.context.actor.org_id)
    return cursors.encode(head.last_seq)


def _entry(row: rows.AuditRow) -> AuditEntry:
    before: Any = row.before
    after: Any = row.after
    return AuditEntry(
        id=strawberry.ID(row.id),
        at=row.at,
        action=row.action,
        object_id=strawberry.ID(row.object_id),
        member_id=strawberry.ID(row.member_id),
        key_id=strawberry.ID(row.key_id),
        request_id=row.request_id,
        before=before,
        after=after,
        reason=row.reason,
    )
