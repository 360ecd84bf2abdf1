"""Who did what, and what it changed. Written in the act's own transaction, without secrets."""

from typing import Any

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts.tables import AuditRow
from app.core import clock, ids
from app.core.actor import Actor, Role, Scope


def record(
    session: AsyncSession,
    actor: Actor,
    action: str,
    object_id: str,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str | None = None,
) -> None:
    session.add(
        AuditRow(
            org_id=actor.org_id,
            id=ids.new("audit"),
            at=clock.now(),
            project_id=actor.project_id,
            member_id=actor.member_id,
            key_id=actor.key_id,
            request_id=actor.request_id,
            action=action,
            object_id=object_id,
            before=before,
            after=after,
            reason=reason,
        )
    )


async def page(
    session: AsyncSession,
    actor: Actor,
    *,
    object_id: str | None,
    action: str | None,
    after: str | None,
    limit: int,
) -> list[AuditRow]:
    """Newest first; `after` is the id of the row before the page."""
    actor.require(Scope.ADMIN, Role.ADMIN)
    query = select(AuditRow).where(AuditRow.org_id == actor.org_id)
    if object_id:
        query = query.where(AuditRow.object_id == object_id)
    if action:
        query = query.where(AuditRow.action == action)
    if after:
        query = query.where(AuditRow.id < after)
    return list(await session.exec(query.order_by(col(AuditRow.id).desc()).limit(limit)))
