"""Which projects may call and deploy a checkpoint's weights, besides the job's own."""

from collections.abc import Sequence

from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import audit
from app.accounts.errors import ProjectNotFound
from app.accounts.tables import Project
from app.core import clock, ids
from app.core.actor import Actor, Role, Scope
from app.core.errors import Limited
from app.models.errors import PermissionNotFound
from app.models.repository import ModelRepository
from app.models.tables import CheckpointPermission, Model

MOST = 100


async def of(session: AsyncSession, actor: Actor, checkpoint_id: str) -> list[CheckpointPermission]:
    """The oldest first."""
    actor.require(Scope.READ)
    return await ModelRepository(session, actor.org_id).permissions(checkpoint_id)


async def grant(
    session: AsyncSession, actor: Actor, checkpoint_id: str, project_ids: Sequence[str]
) -> list[CheckpointPermission]:
    """Let these projects use it as well. One that may already keeps what it has."""
    actor.require(Scope.ADMIN, Role.ADMIN)
    shared = await ModelRepository(session, actor.org_id).permissions(checkpoint_id)
    known = {permission.project_id: permission for permission in shared}
    if len(known.keys() | set(project_ids)) > MOST:
        raise Limited(
            f"At most {MOST} projects may share a checkpoint.", limit=MOST, path=("projectIds",)
        )
    for project_id in project_ids:
        if project_id in known:
            continue
        if await session.get(Project, (actor.org_id, project_id)) is None:
            raise ProjectNotFound(
                f"There is no project {project_id[:60]!r} here.", path=("projectIds",)
            )
        known[project_id] = CheckpointPermission(
            org_id=actor.org_id,
            id=ids.new(ids.PERMISSION),
            checkpoint_id=checkpoint_id,
            project_id=project_id,
            created_at=clock.now(),
        )
        session.add(known[project_id])
        audit.record(
            session, actor, "checkpoint.shared", checkpoint_id, after={"project": project_id}
        )
    await session.flush()
    return [known[project_id] for project_id in dict.fromkeys(project_ids)]


async def revoke(session: AsyncSession, actor: Actor, id: str) -> CheckpointPermission:
    """From the next call on, the project is refused."""
    actor.require(Scope.ADMIN, Role.ADMIN)
    found = await session.get(CheckpointPermission, (actor.org_id, id))
    if found is None:
        raise PermissionNotFound(f"There is no permission {id[:60]!r} here.", path=("id",))
    await session.delete(found)
    audit.record(
        session, actor, "checkpoint.unshared", found.checkpoint_id,
        before={"project": found.project_id},
    )  # fmt: skip
    return found


async def may_use(session: AsyncSession, actor: Actor, model: Model) -> bool:
    """Whether the actor's project may call and deploy this model."""
    return await may_use_checkpoint(session, actor, model.project_id, model.checkpoint_id)


async def may_use_checkpoint(
    session: AsyncSession, actor: Actor, project_id: str, checkpoint_id: str | None
) -> bool:
    """The same of weights that belong to a project and are a checkpoint's."""
    if project_id == actor.project_id:
        return True
    if checkpoint_id is None:
        return False
    granted = await ModelRepository(session, actor.org_id).permissions(checkpoint_id)
    return any(permission.project_id == actor.project_id for permission in granted)
