"""What hardware there is: what live workers report of themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.catalog.errors import HardwareUnknown
from app.catalog.tables import Worker
from app.core import clock
from app.core.actor import Actor, Scope
from app.core.database import json_text

_SILENT_AFTER = timedelta(seconds=60)
_REPORT = text(
    "INSERT INTO workers (id, host, labels, hardware, started_at, last_seen_at)"
    " VALUES (:id, :host, :labels, CAST(:hardware AS jsonb), :now, :now)"
    " ON CONFLICT (id) DO UPDATE SET last_seen_at = :now, hardware = excluded.hardware"
)
_FORGET = text("DELETE FROM workers WHERE id = :id OR last_seen_at < :long_ago")


@dataclass(frozen=True)
class Hardware:
    """One kind of machine part that a live worker offers. Memory in bytes."""

    id: str
    name: str
    kind: str
    memory: int
    count: int
    labels: tuple[str, ...]
    worker_id: str
    last_seen_at: datetime


async def hardware(session: AsyncSession, actor: Actor) -> list[Hardware]:
    actor.require(Scope.READ)
    query = select(Worker).where(Worker.last_seen_at > clock.now() - _SILENT_AFTER)
    workers = await session.exec(query.order_by(col(Worker.started_at)))
    return [
        Hardware(
            id=f"{worker.id}.{part['id']}",
            name=part["name"],
            kind=part["kind"],
            memory=part["memory"],
            count=part["count"],
            labels=tuple(worker.labels),
            worker_id=worker.id,
            last_seen_at=worker.last_seen_at,
        )
        for worker in workers
        for part in worker.hardware["parts"]
    ]


async def labels_for(session: AsyncSession, actor: Actor, wanted: str | None) -> list[str]:
    """The labels a worker must carry for a job that asks for this hardware."""
    if wanted is None:
        return []
    offered = {label for part in await hardware(session, actor) for label in part.labels}
    if wanted not in offered:
        known = ", ".join(sorted(offered)) or "none"
        raise HardwareUnknown(
            f"No live worker carries the label {wanted[:60]!r}. Labels now: {known}.",
            path=("hardware",),
        )
    return [wanted]


async def report_worker(
    session: AsyncSession,
    worker_id: str,
    host: str,
    labels: Sequence[str],
    hardware: dict[str, Any],
) -> None:
    await (await session.connection()).execute(
        _REPORT,
        {
            "id": worker_id,
            "host": host,
            "labels": list(labels),
            "hardware": json_text(hardware),
            "now": clock.now(),
        },
    )


async def forget_worker(session: AsyncSession, worker_id: str) -> None:
    """Remove a worker that leaves, and any that have been silent for a day."""
    await (await session.connection()).execute(
        _FORGET, {"id": worker_id, "long_ago": clock.now() - timedelta(days=1)}
    )
