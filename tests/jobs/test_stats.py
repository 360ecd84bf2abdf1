"""Statistics: every group and interval agrees with counting by hand."""

import random
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.database import Database
from app.jobs.states import LIVE, JobStatus
from app.jobs.tables import Job
from tests.jobs.rows import EPOCH, Rows
from tests.support import Api, Tenant

FIGURES = (
    "key start total succeeded failed cancelled live trainedTokens cost estimatedCost"
    " queueWaitSeconds successRate"
)
STATS = f"""
query ($f: JobFilter, $g: StatsGroup, $i: StatsInterval) {{
  stats(filter: $f, groupBy: $g, interval: $i) {{
    total overall {{ {FIGURES} }} byStatus {{ status count }}
    groups {{ {FIGURES} }} intervals {{ {FIGURES} }} }} }}
"""


@pytest.fixture
async def made(api: Api, database: Database, tenant: Tenant) -> list[Job]:
    dice = random.Random(7)
    rows = await Rows.of(api, database, tenant)
    fields: list[dict[str, Any]] = []
    for _ in range(60):
        begun = EPOCH + timedelta(hours=dice.randrange(24 * 70), minutes=dice.randrange(60))
        started = dice.random() < 0.7
        fields.append(
            {
                "created_at": begun,
                "status": dice.choice(list(JobStatus)).value,
                "base_model": dice.choice(["m1", "m2"]),
                "method": dice.choice(["supervised", "dpo"]),
                "owner_id": dice.choice(["member_a", "member_b"]),
                "started_at": begun + timedelta(seconds=dice.randrange(600)) if started else None,
                "trained_tokens": dice.choice([None, dice.randrange(2**40)]),
                "cost": dice.choice([None, dice.random()]),
                "estimated_cost": dice.random(),
            }
        )
    return await rows.add(*fields)


def by_hand(jobs: list[Job]) -> dict[str, Any]:
    def count(*statuses: str) -> int:
        return sum(job.status in statuses for job in jobs)

    waits = [(job.started_at - job.created_at).total_seconds() for job in jobs if job.started_at]
    ended = count("succeeded", "failed")
    return {
        "total": len(jobs),
        "succeeded": count("succeeded"),
        "failed": count("failed"),
        "cancelled": count("cancelled"),
        "live": count(*LIVE),
        "trainedTokens": str(sum(job.trained_tokens or 0 for job in jobs)),
        "cost": pytest.approx(sum(job.cost or 0 for job in jobs)),
        "estimatedCost": pytest.approx(sum(job.estimated_cost or 0 for job in jobs)),
        "queueWaitSeconds": pytest.approx(sum(waits) / len(waits)) if waits else None,
        "successRate": pytest.approx(count("succeeded") / ended) if ended else None,
    }


def split(jobs: list[Job], key: Callable[[Job], Any]) -> dict[Any, list[Job]]:
    found: dict[Any, list[Job]] = defaultdict(list)
    for job in jobs:
        found[key(job)].append(job)
    return dict(sorted(found.items()))


async def test_the_whole_is_counted(api: Api, made: list[Job]) -> None:
    stats = (await api.execute(STATS))["stats"]
    assert stats["total"] == 60
    assert stats["overall"] == by_hand(made) | {"key": None, "start": None}
    assert (stats["groups"], stats["intervals"]) == ([], [])
    counts = {row["status"].lower(): row["count"] for row in stats["byStatus"]}
    assert counts == {s.value: sum(job.status == s for job in made) for s in JobStatus}


@pytest.mark.parametrize(
    ("group", "column"),
    [
        ("STATUS", "status"),
        ("PROVIDER", "provider"),
        ("BASE_MODEL", "base_model"),
        ("METHOD", "method"),
        ("OWNER", "owner_id"),
    ],
)
async def test_each_group_is_counted(api: Api, made: list[Job], group: str, column: str) -> None:
    stats = (await api.execute(STATS, g=group))["stats"]
    wanted = split(made, lambda job: getattr(job, column))
    assert stats["groups"] == [
        by_hand(jobs) | {"key": key, "start": None} for key, jobs in wanted.items()
    ]


def beginning(interval: str, at: datetime) -> datetime:
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        "HOUR": at.replace(minute=0, second=0, microsecond=0),
        "DAY": day,
        "WEEK": day - timedelta(days=day.weekday()),
        "MONTH": day.replace(day=1),
    }[interval]


@pytest.mark.parametrize("interval", ["HOUR", "DAY", "WEEK", "MONTH"])
async def test_each_interval_is_counted_in_utc(api: Api, made: list[Job], interval: str) -> None:
    stats = (await api.execute(STATS, i=interval, g="STATUS"))["stats"]
    wanted = split(made, lambda job: beginning(interval, job.created_at.astimezone(UTC)))
    assert stats["intervals"] == [
        by_hand(jobs) | {"key": None, "start": f"{start:%Y-%m-%dT%H:%M:%S}.000Z"}
        for start, jobs in wanted.items()
    ]
    assert sum(group["total"] for group in stats["groups"]) == 60


async def test_the_filter_applies_to_all_of_it(api: Api, made: list[Job]) -> None:
    asked = {"baseModel": "m1"}
    stats = (await api.execute(STATS, f=asked, g="STATUS", i="MONTH"))["stats"]
    mine = [job for job in made if job.base_model == "m1"]
    assert stats["total"] == len(mine)
    for part in ("groups", "intervals"):
        assert sum(bucket["total"] for bucket in stats[part]) == len(mine)
    assert sum(row["count"] for row in stats["byStatus"]) == len(mine)


async def test_no_jobs_have_no_rates_rather_than_zero(api: Api) -> None:
    stats = (await api.execute(STATS, g="STATUS", i="DAY"))["stats"]
    assert stats["overall"] == by_hand([]) | {"key": None, "start": None}
    assert (stats["groups"], stats["intervals"]) == ([], [])
