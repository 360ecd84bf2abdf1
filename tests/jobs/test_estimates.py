"""Estimates from what jobs measured, what a queued job waits for, and when a running one ends."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.catalog import service as catalog
from app.core import clock, ids
from app.core.database import Database
from app.events.log import NewEvent
from app.events.types import EventType
from app.jobs import progress
from app.jobs.states import JobStatus
from tests.jobs.rows import Rows
from tests.jobs.work import GONE, start, take
from tests.support import Api, Tenant, as_owner

ESTIMATE = """query ($i: EstimateCostInput!) { estimateCost(input: $i) {
  tokens secondsLow secondsHigh cost basis } }"""
# 1000 cases of 100 tokens, twice.
ASKED = {"baseModel": "smollm2-135m-instruct", "datasetSize": 1000, "epochs": 2}
TOKENS = 200_000


def machine(name: str, **more: Any) -> dict[str, Any]:
    part = {"id": "cpu", "name": name, "kind": "cpu", "memory": 2**34, "count": 8}
    return {"parts": [part | {"memoryFree": 2**33, "utilization": 12.5}], **more}


@pytest.fixture
async def live(worker_database: Database) -> AsyncIterator[Any]:
    """Reports workers by label, gone again at the end."""
    made = []

    async def report(label: str, told: dict[str, Any]) -> str:
        made.append(ids.new(ids.WORKER))
        async with worker_database.transaction(None) as session:
            await catalog.report_worker(session, made[-1], "host", ["local", label], told)
        return made[-1]

    yield report
    async with worker_database.transaction(None) as session:
        for id in made:
            await catalog.forget_worker(session, id)


async def finished(
    rows: Rows, database_url: str, name: str, *speeds: float, beside: float = 20, **fields: Any
) -> None:
    """Jobs that trained 10000 tokens at these speeds, and took so long beside it."""
    for speed in speeds:
        manifest = {"hardware": machine(name), "device": "cpu", "dtype": "bfloat16"}
        [job] = await rows.add(
            {
                "status": "succeeded",
                "manifest": manifest,
                "trained_tokens": 10_000,
                "hyperparameters": {"adapter": "lora"},
                **fields,
            }
        )
        await as_owner(
            database_url,
            "INSERT INTO streams (stream_id, org_id, last_seq, epoch, latest) VALUES (:j, :o, 0, 0,"
            " jsonb_build_object('progress', jsonb_build_object('tokens_per_second', CAST(:s AS"
            " float))))",
            j=job.id,
            o=job.org_id,
            s=speed,
        )
        await as_owner(
            database_url,
            "INSERT INTO attempts (org_id, id, subject_id, number, labels, due_at, created_at,"
            " started_at, finished_at, outcome) VALUES (:o, :a, :j, 1, '{}', now(), now(), now(),"
            " now() + make_interval(secs => :s), 'succeeded')",
            o=job.org_id,
            a=ids.new(ids.ATTEMPT),
            j=job.id,
            s=10_000 / speed + beside,
        )


async def estimate(api: Api, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await api.execute(ESTIMATE, i=ASKED | more))["estimateCost"]
    assert found["tokens"] == str(TOKENS)
    return found


async def test_the_range_is_that_of_measured_jobs_on_the_same_hardware(
    api: Api, tenant: Tenant, database: Database, database_url: str, live: Any, server: str,
    other_tenant: Tenant,
) -> None:  # fmt: skip
    label = ids.new("label")
    await live(label, machine("Slow", slots=1, busySlots=0, hourlyCost=3.6))
    rows = await Rows.of(api, database, tenant)
    guessed = await estimate(api, hardware=label)
    assert "rule of thumb" in guessed["basis"]

    await finished(rows, database_url, "Fast", *[1000.0] * 5)
    elsewhere = await estimate(api, hardware=label)
    assert "1000 tokens per second on Fast (cpu, bfloat16)" in elsewhere["basis"]
    assert "no live worker has that hardware" in elsewhere["basis"]
    assert elsewhere["secondsLow"] == pytest.approx(220 / 3, abs=1)
    assert elsewhere["secondsHigh"] == pytest.approx(220 * 3, abs=1)

    await finished(rows, database_url, "Slow", 100)
    one = await estimate(api, hardware=label)
    assert "one earlier job" in one["basis"]
    assert one["secondsLow"] == pytest.approx(2020 / 1.3, abs=1)
    assert one["secondsHigh"] == pytest.approx(2020 * 1.3, abs=1)

    # Neither another method nor another adapter says anything about this one.
    await finished(rows, database_url, "Slow", 9999, method="dpo")
    await finished(rows, database_url, "Slow", 9999, hyperparameters={"adapter": "full"})
    await finished(rows, database_url, "Slow", 110, 120, 130, 140, 150, 160, 170, 180, 190, 200)
    many = await estimate(api, hardware=label)
    assert "11 earlier jobs" in many["basis"]
    assert "150 tokens per second on Slow (cpu, bfloat16)" in many["basis"]
    assert many["secondsLow"] == pytest.approx(TOKENS / 190 + 20, abs=1)
    assert many["secondsHigh"] == pytest.approx(TOKENS / 110 + 20, abs=1)
    assert many["cost"] == pytest.approx((TOKENS / 150 + 20) / 3600 * 3.6, abs=0.01)
    by_preference = await estimate(api, hardware=label, method={"dpo": {}})
    assert "9999 tokens per second" in by_preference["basis"]

    async with Api(server, other_tenant.key) as other:
        assert "rule of thumb" in (await estimate(other, hardware=label))["basis"]


async def test_a_queued_job_says_what_it_waits_for(
    api: Api, tenant: Tenant, database: Database, live: Any, worker_database: Database
) -> None:
    label = ids.new("label")
    rows = await Rows.of(api, database, tenant)
    [job, running] = await rows.add(
        {"hardware": label, "status": "queued"}, {"hardware": label, "status": "running"}
    )

    async def reason(id: str) -> str | None:
        found = await api.execute("query ($j: ID!) { job(id: $j) { queueReason } }", j=id)
        said: str | None = found["job"]["queueReason"]
        return said

    assert await reason(running.id) is None
    assert await reason(job.id) == f"Waiting for a worker with the label {label}; none is live."
    worker = await live(label, machine("Any", slots=2, busySlots=2, hourlyCost=0.5))
    assert await reason(job.id) == (
        f"Waiting for a worker with the label {label} to be free: 2 of 2 slots are busy."
    )
    found = await api.execute(
        "{ hardware { workerId slots busySlots memoryFreeBytes utilization costPerHour } }"
    )
    [part] = [part for part in found["hardware"] if part.pop("workerId") == worker]
    assert part == {
        "slots": 2,
        "busySlots": 2,
        "memoryFreeBytes": str(2**33),
        "utilization": 12.5,
        "costPerHour": 0.5,
    }
    await live(label, machine("Any", slots=1, busySlots=0))
    assert await reason(job.id) == "Waiting for its turn; 1 of 3 slots are free."


async def test_the_end_is_foreseen_by_the_session_that_runs(
    api: Api, worker_database: Database, database_url: str
) -> None:
    job = await api.job_id()

    async def foreseen() -> Any:
        query = """query ($j: ID!) { job(id: $j) {
            progress { step tokensPerSecond estimatedFinishAt } } }"""
        return (await api.execute(query, j=job))["job"]["progress"]

    async def report(claim: Any, step: int, speed: float, left: float) -> None:
        latest = {
            "attempt": claim.number, "step": step, "epoch": 0.5, "at": clock.now().isoformat(),
            "values": {}, "nonFinite": [],
            "progress": {
                "step": step, "total_steps": 100, "epoch": 0.5, "total_epochs": 1,
                "trained_tokens": 10, "tokens_per_second": speed, "remaining_seconds": left,
            },
        }  # fmt: skip
        event = NewEvent(EventType.METRICS, {"epoch": 0.5, "values": {}}, step, claim.number)
        async with worker_database.transaction(claim.org_id) as session:
            await progress.report(session, claim, [event], latest)

    claim = await take(worker_database, database_url, job, GONE)
    await start(worker_database, claim)
    await report(claim, 10, 500.0, 3600)
    before = await foreseen()
    assert before["estimatedFinishAt"] is not None

    again = await take(worker_database, database_url, job)  # on a machine of its own speed
    await start(worker_database, again)
    assert await foreseen() == {"step": 10, "tokensPerSecond": None, "estimatedFinishAt": None}
    await report(again, 11, 50.0, 36_000)
    after = await foreseen()
    assert after["tokensPerSecond"] == 50.0
    assert after["estimatedFinishAt"] > before["estimatedFinishAt"]
    async with worker_database.transaction(again.org_id) as session:
        await progress.end(session, again, JobStatus.CANCELLED, outcome="cancelled")
