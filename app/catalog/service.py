"""What hardware there is: what live workers report of themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import credentials, radar
from app.accounts.tables import ProviderModel
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
    """One kind of machine part that a live worker offers.

    Memory in bytes, `memory` of each, `memory_free` of all together; `utilization` in percent.
    `slots` are the training processes that its worker runs at a time, `busy_slots` those it runs
    now. The cost is of the whole machine, in US dollars.
    """

    id: str
    name: str
    kind: str
    memory: int
    count: int
    memory_free: int | None
    utilization: float | None
    slots: int
    busy_slots: int
    hourly_cost: float
    labels: tuple[str, ...]
    worker_id: str
    last_seen_at: datetime


async def live_workers(session: AsyncSession) -> list[Worker]:
    query = select(Worker).where(Worker.last_seen_at > clock.now() - _SILENT_AFTER)
    return list(await session.exec(query.order_by(col(Worker.started_at))))


def why_waiting(workers: Sequence[Worker], label: str | None) -> str:
    """What keeps a queued job from being worked on, for people."""
    fit = [worker for worker in workers if label is None or label in worker.labels]
    wanted = "a worker" if label is None else f"a worker with the label {label}"
    if not fit:
        return f"Waiting for {wanted}; none is live."
    slots = sum(worker.hardware.get("slots", 0) for worker in fit)
    busy = sum(worker.hardware.get("busySlots", 0) for worker in fit)
    if busy >= slots:
        return f"Waiting for {wanted} to be free: {busy} of {slots} slots are busy."
    return f"Waiting for its turn; {slots - busy} of {slots} slots are free."


async def hardware(session: AsyncSession, actor: Actor) -> list[Hardware]:
    actor.require(Scope.READ)
    return [
        Hardware(
            id=f"{worker.id}.{part['id']}",
            name=part["name"],
            kind=part["kind"],
            memory=part["memory"],
            count=part["count"],
            memory_free=part.get("memoryFree"),
            utilization=part.get("utilization"),
            slots=worker.hardware.get("slots", 0),
            busy_slots=worker.hardware.get("busySlots", 0),
            hourly_cost=worker.hardware.get("hourlyCost", 0.0),
            labels=tuple(worker.labels),
            worker_id=worker.id,
            last_seen_at=worker.last_seen_at,
        )
        for worker in await live_workers(session)
        for part in worker.hardware["parts"]
    ]


async def seen_at_providers(
    session: AsyncSession, actor: Actor
) -> dict[tuple[str, str], ProviderModel]:
    """What the radar knows of the models of the project's providers, by provider and name."""
    return {
        (row.provider, model.name): model
        for row in await credentials.credentials(session, actor)
        for model in await radar.known(session, actor.org_id, row.id)
    }


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
