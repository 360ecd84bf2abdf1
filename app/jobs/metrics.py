"""Metric points: one per step, from the newest attempt that reached it, down-sampled for charts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.events.log import LoggedEvent

_POINTS = text(
    """
    SELECT DISTINCT ON (step) stream_id, seq, attempt, type, step, at, data FROM events
     WHERE stream_id = :stream AND type = 'metrics' AND step >= :low AND step <= :high
       AND attempt >= coalesce((SELECT max(number) FROM attempts
                                 WHERE subject_id = :stream AND from_step = 0), 0)
     ORDER BY step, attempt DESC, seq DESC
    """
)
_INT_MAX = 2**31 - 1
_FEW = 8  # too few points to keep extremes: they are taken evenly


@dataclass(frozen=True)
class Point:
    """The values measured at one step. `non_finite` names those that were NaN or infinite."""

    job_id: str
    attempt: int
    step: int
    at: datetime
    epoch: float | None
    values: dict[str, float | None]
    non_finite: list[str] = field(default_factory=list)

    @staticmethod
    def of(event: LoggedEvent) -> "Point":
        data = event.data
        return Point(
            event.stream_id,
            event.attempt or 1,
            event.step or 0,
            event.at,
            data.get("epoch"),
            data.get("values", {}),
            data.get("nonFinite", []),
        )


async def points(
    session: AsyncSession, job_id: str, low: int | None, high: int | None, most: int
) -> list[Point]:
    rows = await (await session.connection()).execute(
        _POINTS,
        {
            "stream": job_id,
            "low": low or 0,
            "high": _INT_MAX if high is None else high,
        },
    )
    return down_sample([Point.of(LoggedEvent(*row)) for row in rows], most)


def down_sample(found: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points: the first, the last, the lowest and highest validation loss and score,
    of each stretch the lowest and highest training loss, and further scores and validation points
    evenly."""
    if len(found) <= most:
        return list(found)
    if most < _FEW:
        return [found[i] for i in _evenly(range(len(found)), most)]
    kept = {0, len(found) - 1}
    scored = _losses(found, "score", range(len(found)))
    if scored:
        kept.update((min(scored)[1], max(scored, key=lambda pair: pair[0])[1]))
        kept.update(_evenly([i for _, i in scored], (most - _FEW) // 4))
    validated = _losses(found, "validation_loss", range(len(found)))
    if validated:
        kept.update((min(validated)[1], max(validated)[1]))
        kept.update(_evenly([i for _, i in validated], (most - _FEW) // 2))
    stretches = (most - len(kept)) // 2
    for n in range(stretches):
        stretch = range(n * len(found) // stretches, (n + 1) * len(found) // stretches)
        if known := _losses(found, "training_loss", stretch):
            kept.update((min(known)[1], max(known)[1]))
        elif stretch:
            kept.add(stretch[0])
    return [found[i] for i in sorted(kept)]


def _losses(found: Sequence[Point], name: str, where: Sequence[int]) -> list[tuple[float, int]]:
    losses = ((found[i].values.get(name), i) for i in where)
    return [(loss, i) for loss, i in losses if loss is not None]


def _evenly(indices: Sequence[int], count: int) -> list[int]:
    """At most so many of them, the last one among them."""
    count = min(count, len(indices))
    return [indices[(n + 1) * len(indices) // count - 1] for n in range(count)]
