"""Scores: what graders make of a job's checkpoints, beside the loss in its metrics."""

from datetime import datetime
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from app.attempts.queue import Claim
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.jobs import metrics, retention
from app.jobs.repository import JobRepository
from app.jobs.tables import Checkpoint

PART = "score/"
"""Before a grader's name, in the values of a metric point."""


async def add(
    session: AsyncSession, claim: Claim, step: int, at: datetime, said: dict[str, Any]
) -> None:
    """Judged: write it to the checkpoint, to the stream, and to the metric point of the step.

    The point is written again with all its values, because the newest one of a step counts.
    """
    checkpoint = await JobRepository(session, claim.org_id).checkpoint_at(claim.subject_id, step)
    if checkpoint is None:
        return
    data = {"checkpointId": checkpoint.id, **said}
    if said["score"] is None:
        data["level"] = "warn"
    events = [NewEvent(EventType.SCORE, data, step, claim.number, at)]
    if await log.contains(session, claim.subject_id, events[0]):
        return  # said before; the answer was lost
    checkpoint.score = said["score"]
    session.add(checkpoint)
    latest = None
    if said["score"] is not None:
        parts = {f"{PART}{g['name']}": g["score"] for g in said["graders"]}
        values = {"score": said["score"], **parts}
        points = await metrics.points(session, claim.subject_id, step, step, 1)
        known = points[0] if points else None
        data = {"values": {**(known.values if known else {}), **values}}
        data["epoch"] = known.epoch if known else None
        if known and known.non_finite:
            data["nonFinite"] = known.non_finite
        events.append(NewEvent(EventType.METRICS, data, step, claim.number, at))
        latest = await _latest(session, claim.subject_id, step, values)
    await log.append(session, claim.subject_id, events, epoch=claim.epoch, latest=latest)


async def best(session: AsyncSession, claim: Claim) -> Checkpoint | None:
    """Of those that have a score; of equals the earlier one."""
    found = await JobRepository(session, claim.org_id).checkpoints(claim.subject_id)
    return next(iter(retention.by_score(found)), None)


async def _latest(
    session: AsyncSession, job_id: str, step: int, values: dict[str, Any]
) -> dict[str, Any] | None:
    """The newest values with these added, where they are of this step."""
    head = (await log.heads(session, [job_id])).get(job_id)
    if head is None or head.latest is None or head.latest["step"] != step:
        return None
    return {**head.latest, "values": {**head.latest["values"], **values}}
