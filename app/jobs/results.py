"""The result file: a job's metrics as CSV, one row per step."""

import csv
import io

from sqlmodel.ext.asyncio.session import AsyncSession

from app.jobs import metrics

FILENAME = "metrics.csv"
_ALL = 10**9


async def metrics_csv(session: AsyncSession, job_id: str) -> bytes:
    """Every step once, from the newest attempt that reached it; empty where not measured."""
    points = await metrics.points(session, job_id, None, None, _ALL)
    names = sorted({name for point in points for name in point.values})
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["step", "epoch", *names])
    for point in points:
        values = [point.values.get(name) for name in names]
        table.writerow([point.step, point.epoch, *("" if v is None else v for v in values)])
    return out.getvalue().encode()
