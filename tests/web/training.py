"""A training that no machine does: what its worker would write, at the test's own pace."""

from collections.abc import Iterable

from app.attempts.queue import Claim
from app.core import clock
from app.core.database import Database
from app.events.log import NewEvent
from app.events.types import EventType
from app.jobs import progress
from tests.jobs import work

TOTAL = 40


async def running(worker: Database, database_url: str, job: str) -> Claim:
    claim = await work.take(worker, database_url, job)
    await work.start(worker, claim)
    return claim


async def report(worker: Database, claim: Claim, steps: Iterable[int]) -> None:
    """Steps of a training whose loss falls from 4, as a worker reports them."""
    values = {step: {"training_loss": 4 / (1 + step / 5)} for step in steps}
    for step in values:
        if step % 10 == 0:
            values[step]["validation_loss"] = 4.2 / (1 + step / 5)
    events = [
        NewEvent(EventType.METRICS, {"epoch": 0.5, "values": found}, step, claim.number)
        for step, found in values.items()
    ]
    last = max(values)
    latest = {
        "attempt": claim.number, "step": last, "epoch": 0.5, "at": clock.now().isoformat(),
        "values": values[last],
        "progress": {
            "step": last, "total_steps": TOTAL, "epoch": 2 * last / TOTAL, "total_epochs": 2,
            "trained_tokens": 100 * last, "tokens_per_second": 1234.0, "remaining_seconds": 90.0,
        },
    }  # fmt: skip
    async with worker.transaction(claim.org_id) as session:
        await progress.report(session, claim, events, latest)


async def finish(worker: Database, claim: Claim, result_file: str) -> None:
    async with worker.transaction(claim.org_id) as session:
        await progress.succeed(
            session,
            claim,
            step=TOTAL,
            kind="lora",
            path="nowhere",
            manifest_sha256="0" * 64,
            size_bytes=1_000,
            trained_tokens=4_000,
            result_file_ids=[result_file],
            cost=0.0,
        )
