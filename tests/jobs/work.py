"""A worker's side of a job, made directly, and what a job left behind."""

from datetime import timedelta
from typing import Any

from app.attempts import queue
from app.attempts.queue import Claim
from app.core.database import Database
from app.events.log import NewEvent
from app.events.types import EventType
from app.jobs import progress
from app.jobs.states import JobStatus
from tests.support import Api, as_owner

LONG, GONE = timedelta(minutes=5), timedelta(seconds=-1)

# Each call puts its job before all others, and before those of earlier calls.
_FIRST = """
UPDATE attempts
   SET due_at = timestamptz '2000-01-01' - (clock_timestamp() - timestamptz '2020-01-01')
 WHERE subject_id = :id AND finished_at IS NULL
"""


async def take(worker: Database, database_url: str, job_id: str, lease: timedelta = LONG) -> Claim:
    """Claim this job, as the one that is due first."""
    await as_owner(database_url, _FIRST, id=job_id)
    async with worker.transaction(None) as session:
        claim = await queue.claim(session, "worker_test", "ftjob", [queue.LOCAL], lease)
    assert claim is not None
    assert claim.subject_id == job_id
    return claim


async def start(worker: Database, claim: Claim) -> None:
    """Open the attempt and say that it runs."""
    async with worker.transaction(claim.org_id) as session:
        assert await progress.begin(session, claim) is not None
        await progress.reached(session, claim, JobStatus.RUNNING)


async def end(worker: Database, claim: Claim, status: JobStatus, **more: Any) -> None:
    async with worker.transaction(claim.org_id) as session:
        await progress.end(session, claim, status, outcome=status.value, **more)


async def measure(worker: Database, claim: Claim, points: dict[int, dict[str, Any]]) -> None:
    """Report the values of these steps."""
    events = [
        NewEvent(
            EventType.METRICS, {"epoch": 0.5, "values": values}, step=step, attempt=claim.number
        )
        for step, values in points.items()
    ]
    async with worker.transaction(claim.org_id) as session:
        await progress.report(session, claim, events)


async def save(worker: Database, claim: Claim, step: int) -> None:
    async with worker.transaction(claim.org_id) as session:
        await progress.add_checkpoint(
            session,
            claim,
            step=step,
            path=f"checkpoints/{claim.subject_id}/{claim.epoch}/{step}",
            manifest_sha256="0" * 64,
            size_bytes=10,
            metrics={"training_loss": 1.0},
        )


async def told(database_url: str, stream_id: str, job_id: str) -> list[str]:
    """What a stream says of a job: statuses, wishes and other events, in order."""
    rows = await as_owner(
        database_url,
        "SELECT type, coalesce(data ->> 'after', data ->> 'action', data ->> 'outcome', '') AS what"
        " FROM events WHERE stream_id = :s AND (stream_id = :j OR data ->> 'jobId' = :j)"
        " AND type <> 'message' ORDER BY seq",
        s=stream_id,
        j=job_id,
    )
    return [f"{row['type']} {row['what']}".strip() for row in rows]


async def audited(database_url: str, job_id: str) -> list[str]:
    rows = await as_owner(
        database_url, "SELECT action FROM audit WHERE object_id = :j ORDER BY at, id", j=job_id
    )
    return [row["action"] for row in rows]


async def seen(api: Api, job_id: str) -> dict[str, Any]:
    data = await api.execute(
        "query ($id: ID!) { job(id: $id) { status requestedAction error { code } finishedAt"
        " attempts { number outcome fromStep } checkpoints { nodes { step } }"
        " metrics { step attempt trainingLoss } } }",
        id=job_id,
    )
    found: dict[str, Any] = data["job"]
    return found


async def refused(api: Api, verb: str, id: str, **more: Any) -> dict[str, Any]:
    """The one user error of a verb, with the detail of an InvalidTransitionError."""
    kind = verb[0].upper() + verb[1:]
    answer = await api.execute(
        f"mutation ($i: {kind}Input!) {{ {verb}(input: $i) {{ userErrors {{ __typename code path"
        " message ... on InvalidTransitionError { before after } } } }",
        i={"id": id, **more},
    )
    [error] = answer[verb]["userErrors"]
    found: dict[str, Any] = error
    return found
