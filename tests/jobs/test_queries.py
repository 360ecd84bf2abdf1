"""Reading one job: its points, checkpoints and events."""

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.database import Database
from app.jobs import results
from app.jobs.metrics import Point, down_sample
from app.jobs.states import JobStatus
from tests.jobs.work import end, measure, save, seen, start, take
from tests.support import Api, Refusal

AT = datetime(2026, 1, 1, tzinfo=UTC)
LOSS = st.none() | st.floats(-1e6, 1e6)


def series(losses: list[tuple[float | None, float | None]]) -> list[Point]:
    return [
        Point("ftjob_a", 1, n, AT, None, {"training_loss": t, "validation_loss": v})
        for n, (t, v) in enumerate(losses)
    ]


@given(st.lists(st.tuples(LOSS, LOSS), max_size=400), st.integers(1, 60))
def test_down_sampling_keeps_the_ends_and_the_extremes(
    losses: list[tuple[float | None, float | None]], most: int
) -> None:
    found = series(losses)
    kept = down_sample(found, most)
    assert len(kept) <= most
    assert [point.step for point in kept] == sorted({point.step for point in kept})
    if len(found) <= most:
        assert kept == found
        return
    assert kept[-1] == found[-1]
    if most >= 8:
        assert kept[0] == found[0]
        for name in ("training_loss", "validation_loss"):
            whole, left = (
                [v for p in some if (v := p.values[name]) is not None] for some in (found, kept)
            )
            if whole:
                assert (min(left), max(left)) == (min(whole), max(whole))


def test_down_sampling_thins_validation_points_evenly() -> None:
    found = series([(1.0, 1.0 if n % 2 else None) for n in range(4_000)])
    kept = [p.step for p in down_sample(found, 100) if p.values["validation_loss"] is not None]
    assert len(kept) >= 40
    assert kept[-1] > 3_900
    assert sum(step > 2_000 for step in kept) >= 15


@pytest.fixture
async def job(api: Api) -> str:
    return await api.job_id()


def flat(*steps: int, loss: float) -> dict[int, dict[str, Any]]:
    return {step: {"training_loss": loss} for step in steps}


async def points(api: Api, job: str, **window: Any) -> list[tuple[int, int, float]]:
    data = await api.execute(
        "query ($id: ID!, $from: Int, $to: Int, $most: Int! = 500) { job(id: $id) { metrics"
        " (fromStep: $from, toStep: $to, maxPoints: $most) { step attempt trainingLoss } } }",
        id=job,
        **window,
    )
    return [(p["step"], p["attempt"], p["trainingLoss"]) for p in data["job"]["metrics"]]


async def test_of_each_step_the_newest_attempt_is_shown(
    api: Api, job: str, worker_database: Database, database_url: str
) -> None:
    first = await take(worker_database, database_url, job)
    await start(worker_database, first)
    await measure(worker_database, first, flat(1, 2, 3, 4, 5, loss=1.0))
    await save(worker_database, first, 3)
    await end(worker_database, first, JobStatus.PAUSED)
    await api.act("resumeJob", job)
    second = await take(worker_database, database_url, job)
    await start(worker_database, second)
    await measure(worker_database, second, flat(4, 5, 6, loss=2.0))
    assert await points(api, job) == [
        *[(step, 1, 1.0) for step in (1, 2, 3)],
        *[(step, 2, 2.0) for step in (4, 5, 6)],
    ]
    assert await points(api, job, **{"from": 3, "to": 5}) == [(3, 1, 1.0), (4, 2, 2.0), (5, 2, 2.0)]
    assert [p[0] for p in await points(api, job, most=2)][-1] == 6


async def test_a_restart_from_scratch_hides_the_old_points(
    api: Api, job: str, worker_database: Database, database_url: str
) -> None:
    first = await take(worker_database, database_url, job)
    await start(worker_database, first)
    await measure(worker_database, first, flat(1, 2, 3, loss=1.0))
    await save(worker_database, first, 3)
    await end(worker_database, first, JobStatus.FAILED)
    await api.act("restartJob", job, fromScratch=True)
    assert await points(api, job) == []
    second = await take(worker_database, database_url, job)
    await start(worker_database, second)
    await measure(worker_database, second, flat(1, loss=2.0))
    assert await points(api, job) == [(1, 2, 2.0)]
    async with worker_database.transaction(first.org_id) as session:
        table = await results.metrics_csv(session, job)
    assert list(csv.reader(io.StringIO(table.decode()))) == [
        ["step", "epoch", "training_loss"],
        ["1", "0.5", "2.0"],
    ]


async def test_values_that_are_not_numbers_are_null_and_named(
    api: Api, job: str, worker_database: Database, database_url: str
) -> None:
    claim = await take(worker_database, database_url, job)
    await start(worker_database, claim)
    await measure(worker_database, claim, {1: {"training_loss": float("nan"), "mine": 4.0}})
    data = await api.execute(
        "query ($id: ID!) { job(id: $id) { metrics { trainingLoss other epoch } } }", id=job
    )
    assert data["job"]["metrics"] == [{"trainingLoss": None, "other": {"mine": 4.0}, "epoch": 0.5}]
    async with worker_database.transaction(claim.org_id) as session:
        assert (await results.metrics_csv(session, job)).endswith(b"1,0.5,4.0,\n")


@pytest.mark.parametrize("most", [0, -1, 5_001])
async def test_the_number_of_points_is_bounded(api: Api, job: str, most: int) -> None:
    with pytest.raises(Refusal) as refused:
        await points(api, job, most=most)
    assert refused.value.code == "INVALID_INPUT"


async def test_checkpoints_are_paged_the_furthest_first(
    api: Api, job: str, worker_database: Database, database_url: str
) -> None:
    claim = await take(worker_database, database_url, job)
    await start(worker_database, claim)
    for step in (10, 20, 30, 20):
        await save(worker_database, claim, step)
    query = (
        "query ($id: ID!, $after: String) { job(id: $id) { checkpoints(first: 2, after: $after) {"
        " totalCount nodes { step attempt sizeBytes metrics { trainingLoss } }"
        " pageInfo { hasNextPage endCursor } } } }"
    )
    one = (await api.execute(query, id=job))["job"]["checkpoints"]
    assert [node["step"] for node in one["nodes"]] == [30, 20]
    assert one["nodes"][0] == {
        "step": 30,
        "attempt": 1,
        "sizeBytes": "10",
        "metrics": {"trainingLoss": 1.0},
    }
    two = (await api.execute(query, id=job, after=one["pageInfo"]["endCursor"]))["job"]
    assert [node["step"] for node in two["checkpoints"]["nodes"]] == [10]
    assert two["checkpoints"]["pageInfo"]["hasNextPage"] is False
    assert one["totalCount"] == 3


EVENTS = """
query ($id: ID!, $first: Int, $after: String, $level: LogLevel, $types: [JobEventType!]) {
  job(id: $id) { cursor events(first: $first, after: $after, level: $level, types: $types) {
    nodes { cursor type level message } pageInfo { hasNextPage hasPreviousPage endCursor } } } }
"""


async def events(api: Api, job: str, **asked: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await api.execute(EVENTS, id=job, **asked))["job"]["events"]
    return found


async def test_events_are_filtered_by_the_level_and_type_they_show(
    api: Api, job: str, worker_database: Database, database_url: str
) -> None:
    claim = await take(worker_database, database_url, job)
    await start(worker_database, claim)
    error = {"code": "diverged", "message": "No.", "param": None}
    await end(worker_database, claim, JobStatus.FAILED, error=error)
    everything = (await events(api, job))["nodes"]
    levels = ["DEBUG", "INFO", "WARN", "ERROR"]
    for n, level in enumerate(levels):
        found = (await events(api, job, level=level))["nodes"]
        assert found == [e for e in everything if levels.index(e["level"]) >= n], level
    assert {e["level"] for e in everything} == {"INFO", "WARN", "ERROR"}
    for kind in ("STATUS", "MESSAGE", "ATTEMPT_ENDED", "MODEL"):
        found = (await events(api, job, types=[kind]))["nodes"]
        assert found == [e for e in everything if e["type"] == kind]
    assert (await events(api, job, types=[]))["nodes"] == []


async def test_events_are_paged_by_the_streams_own_cursors(
    api: Api, job: str, worker_database: Database, database_url: str
) -> None:
    claim = await take(worker_database, database_url, job)
    await start(worker_database, claim)
    await measure(worker_database, claim, flat(*range(1, 31), loss=1.0))
    found: list[str] = []
    cursor = "0"
    while True:
        page = await events(api, job, first=7, after=cursor)
        found += [node["cursor"] for node in page["nodes"]]
        cursor = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
        await measure(worker_database, claim, flat(99, loss=1.0)) if len(found) < 15 else None
    assert found == [f"s{n}" for n in range(1, len(found) + 1)]
    assert len(found) == 2 + 1 + 2 + 30 + 2
    data = await api.execute(EVENTS, id=job)
    assert data["job"]["cursor"] == found[-1]
    assert (await events(api, job, after=found[-1]))["nodes"] == []
    for bad in ("x", "-1", "s", "9" * 30, "s1 "):
        with pytest.raises(Refusal) as refused:
            await events(api, job, after=bad)
        assert refused.value.code == "INVALID_INPUT"


async def test_a_step_at_nothing_measured_is_no_point(api: Api, job: str) -> None:
    assert (await seen(api, job))["metrics"] == []
    assert await points(api, job, **{"from": 5, "to": 1}) == []
    assert await points(api, job, **{"from": -5, "to": 2**31 - 1}) == []
