"""Claiming, leasing and finishing attempts. Leases are judged by the database's clock alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.attempts.tables import Attempt
from app.core import clock, ids

_CLAIM = text("SELECT * FROM claim_attempt(:worker, :kind, :labels, :lease, :now, :new_id)")
_RENEW = text(
    "UPDATE attempts SET lease_until = clock_timestamp() + :lease"
    " WHERE id = :id AND epoch = :epoch AND worker_id IS NOT NULL AND finished_at IS NULL"
    " RETURNING id"
)
_GIVE_BACK = text(
    "UPDATE attempts SET worker_id = NULL, lease_until = NULL,"
    " due_at = CASE WHEN nudged IS NULL"
    " THEN CAST(:due_at AS timestamptz) ELSE CAST(:now AS timestamptz) END"
    " WHERE id = :id AND epoch = :epoch AND worker_id IS NOT NULL AND finished_at IS NULL"
    " RETURNING id"
)
# One that is nudged already is not touched again, so that a storm of news waits for nobody's lock.
_NUDGE = text(
    "UPDATE attempts SET nudged = :why, due_at = least(due_at, :now)"
    " WHERE org_id = :org AND subject_id = ANY(:subjects) AND finished_at IS NULL"
    " AND nudged IS NULL"
)
LOCAL, PROVIDER = "local", "provider"


@dataclass(frozen=True)
class Claim:
    """The right to work on a subject until the lease ends. `epoch` goes into every write.

    `lost_number` is the attempt whose worker fell silent, when this one takes over from it.
    """

    org_id: str
    id: str
    subject_id: str
    number: int
    epoch: int
    lost_number: int | None


async def open_attempt(
    session: AsyncSession,
    org_id: str,
    subject_id: str,
    labels: Sequence[str] = (),
    from_step: int | None = None,
) -> Attempt:
    """Put the subject's next attempt into the queue, due now. `from_step` 0: from scratch."""
    newest = await session.exec(
        select(Attempt.number)
        .where(Attempt.org_id == org_id, Attempt.subject_id == subject_id)
        .order_by(col(Attempt.number).desc())
        .limit(1)
    )
    now = clock.now()
    attempt = Attempt(
        org_id=org_id,
        id=ids.new(ids.ATTEMPT),
        subject_id=subject_id,
        number=(newest.first() or 0) + 1,
        labels=list(labels),
        due_at=now,
        created_at=now,
        from_step=from_step,
    )
    session.add(attempt)
    await session.flush()
    return attempt


async def held(session: AsyncSession, attempt: Attempt) -> bool:
    """Whether a worker's lease on the attempt lives, by the database's clock."""
    if attempt.lease_until is None:
        return False
    connection = await session.connection()
    now = await connection.scalar(text("SELECT clock_timestamp()"))
    return bool(attempt.lease_until > now)


async def current(session: AsyncSession, org_id: str, subject_id: str) -> Attempt | None:
    """The subject's unfinished attempt, locked."""
    found = await session.exec(
        select(Attempt)
        .where(
            Attempt.org_id == org_id,
            Attempt.subject_id == subject_id,
            col(Attempt.finished_at).is_(None),
        )
        .with_for_update()
    )
    return found.first()


async def history(session: AsyncSession, org_id: str, subject_id: str) -> list[Attempt]:
    """Every attempt of the subject, the first one first."""
    found = await session.exec(
        select(Attempt)
        .where(Attempt.org_id == org_id, Attempt.subject_id == subject_id)
        .order_by(col(Attempt.number))
    )
    return list(found)


async def untaken(session: AsyncSession, wanted: Sequence[str]) -> set[str]:
    """Those of these subjects whose unfinished attempt no worker has."""
    found = await session.exec(
        select(Attempt.subject_id).where(
            col(Attempt.subject_id).in_(wanted),
            col(Attempt.finished_at).is_(None),
            col(Attempt.worker_id).is_(None),
        )
    )
    return set(found)


async def claim(
    session: AsyncSession, worker_id: str, kind: str, labels: Sequence[str], lease: timedelta
) -> Claim | None:
    """Take the next attempt of this kind of subject that is due and that no live lease holds."""
    rows = await (await session.connection()).execute(
        _CLAIM,
        {
            "worker": worker_id,
            "kind": kind,
            "labels": list(labels),
            "lease": lease,
            "now": clock.now(),
            "new_id": ids.new(ids.ATTEMPT),
        },
    )
    row = rows.first()
    return Claim(*row) if row else None


async def renew(session: AsyncSession, claim: Claim, lease: timedelta) -> bool:
    """Prolong the lease. False: it is no longer ours."""
    rows = await (await session.connection()).execute(
        _RENEW, {"id": claim.id, "epoch": claim.epoch, "lease": lease}
    )
    return rows.first() is not None


def finish(attempt: Attempt, outcome: str, at: datetime | None = None) -> None:
    attempt.finished_at = at or clock.now()
    attempt.outcome = outcome


async def give_back(session: AsyncSession, claim: Claim, due_at: datetime) -> bool:
    """Put the attempt back into the queue without ending it: due then, or at once when something
    came in the meantime. False: it is no longer ours."""
    rows = await (await session.connection()).execute(
        _GIVE_BACK,
        {"id": claim.id, "epoch": claim.epoch, "due_at": due_at, "now": clock.now()},
    )
    return rows.first() is not None


async def nudge(session: AsyncSession, org_id: str, subjects: Sequence[str], why: str) -> None:
    """Something came that makes these attempts due, whoever holds them now."""
    await (await session.connection()).execute(
        _NUDGE, {"org": org_id, "subjects": list(subjects), "why": why, "now": clock.now()}
    )
    session.info.setdefault("rings", set()).update(subjects)
