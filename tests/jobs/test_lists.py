"""Lists of jobs: pages that neither repeat nor skip while the list grows, orders, bad cursors."""

import base64
import json
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from app.core.database import Database
from app.jobs.tables import Job
from tests.jobs.rows import EPOCH, Rows
from tests.support import Api, Refusal, Tenant

PAGE = """
query ($o: JobOrder! = CREATED_AT_DESC, $first: Int, $after: String, $last: Int, $before: String) {
  jobs(orderBy: $o, first: $first, after: $after, last: $last, before: $before) {
    totalCount nodes { id } edges { cursor node { id } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }
"""
ORDERS: dict[str, tuple[Callable[[Job], Any], bool]] = {
    "CREATED_AT_DESC": (lambda job: (job.created_at, job.id), True),
    "CREATED_AT_ASC": (lambda job: (job.created_at, job.id), False),
    "UPDATED_AT_DESC": (lambda job: (job.updated_at, job.id), True),
    "UPDATED_AT_ASC": (lambda job: (job.updated_at, job.id), False),
}
NAMES = {"NAME_ASC": False, "NAME_DESC": True}


@pytest.fixture
async def rows(api: Api, database: Database, tenant: Tenant) -> Rows:
    return await Rows.of(api, database, tenant)


def some(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Jobs with many equal times and names, so that the id has to decide."""
    dice = random.Random(seed)
    return [
        {
            "name": f"job {dice.randrange(8)}",
            "created_at": EPOCH + timedelta(microseconds=dice.randrange(12)),
            "updated_at": EPOCH + timedelta(hours=dice.randrange(12)),
        }
        for _ in range(count)
    ]


async def page(api: Api, **variables: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await api.execute(PAGE, **variables))["jobs"]
    assert [edge["node"] for edge in found["edges"]] == found["nodes"]
    if found["edges"]:
        assert found["pageInfo"]["startCursor"] == found["edges"][0]["cursor"]
        assert found["pageInfo"]["endCursor"] == found["edges"][-1]["cursor"]
    return found


@pytest.mark.parametrize("order", [*ORDERS, *NAMES])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
async def test_pages_neither_repeat_nor_skip_while_jobs_are_added(
    api: Api, rows: Rows, order: str, backward: bool
) -> None:
    known = {job.id for job in await rows.add(*some(60))}
    found: list[str] = []
    cursor = None
    for n in range(200):
        size, place = ("last", "before") if backward else ("first", "after")
        got = await page(api, o=order, **{size: 7, place: cursor})
        ids = [node["id"] for node in got["nodes"]]
        found = ids + found if backward else found + ids
        info = got["pageInfo"]
        if not info["hasPreviousPage" if backward else "hasNextPage"]:
            break
        cursor = info["startCursor" if backward else "endCursor"]
        if n < 9:
            await rows.add(*some(3, seed=100 + n))
    assert len(found) == len(set(found))
    assert known <= set(found)


@pytest.mark.parametrize("order", ORDERS)
async def test_each_order_is_kept_with_the_id_deciding_between_equals(
    api: Api, rows: Rows, order: str
) -> None:
    key, descending = ORDERS[order]
    made = await rows.add(*some(40))
    wanted = [job.id for job in sorted(made, key=key, reverse=descending)]
    got = await page(api, o=order, first=200)
    assert [node["id"] for node in got["nodes"]] == wanted
    end = await page(api, o=order, last=5)
    assert [node["id"] for node in end["nodes"]] == wanted[-5:]
    assert (end["pageInfo"]["hasNextPage"], end["pageInfo"]["hasPreviousPage"]) == (False, True)


@pytest.mark.parametrize("order", NAMES)
async def test_names_are_ordered(api: Api, rows: Rows, order: str) -> None:
    await rows.add(*({"name": name} for name in ("b", "a", "c")))
    data = await api.execute(
        "query ($o: JobOrder!) { jobs(orderBy: $o) { nodes { name } } }", o=order
    )
    names = [node["name"] for node in data["jobs"]["nodes"]]
    assert names == sorted(names, reverse=NAMES[order])


async def test_the_total_counts_the_filter_not_the_page(api: Api, rows: Rows) -> None:
    await rows.add(*({"status": s} for s in ["running"] * 3 + ["failed"] * 2))
    data = await api.execute(
        "{ all: jobs(first: 1) { totalCount pageInfo { hasNextPage hasPreviousPage } }"
        " some: jobs(first: 0, filter: {status: [FAILED]}) { totalCount nodes { id } }"
        " none: jobs(filter: {status: []}) { totalCount nodes { id } } }"
    )
    assert data["all"]["totalCount"] == 5
    assert data["all"]["pageInfo"] == {"hasNextPage": True, "hasPreviousPage": False}
    assert data["some"] == {"totalCount": 2, "nodes": []}
    assert data["none"] == {"totalCount": 0, "nodes": []}


async def test_a_page_has_twenty_jobs_unless_told(api: Api, rows: Rows) -> None:
    await rows.add(*some(25))
    assert len((await page(api))["nodes"]) == 20
    assert len((await page(api, first=200))["nodes"]) == 25


def packed(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "abc",
        "!!!!",
        "ü",
        "x" * 50_000,
        "0",
        "s12",
        packed(None),
        packed([]),
        packed([1, 2]),
        packed([2, EPOCH.isoformat(), "ftjob_x"]),
        packed([1, EPOCH.isoformat(), 5]),
        packed([1, None, "ftjob_x"]),
        packed([1, "a job", "ftjob_x"]),
        packed([1, EPOCH.isoformat(), "\0"]),
        packed([1, "0001-01-01T00:00:00+14:00", "x"]),
        packed([1, {}, "x"]),
    ],
)
@pytest.mark.parametrize("place", ["after", "before"])
async def test_a_bad_cursor_is_refused_by_name(api: Api, cursor: str, place: str) -> None:
    with pytest.raises(Refusal) as refused:
        await page(api, **{place: cursor})
    assert refused.value.code == "INVALID_INPUT"
    assert "cursor" in refused.value.errors[0]["message"]


@pytest.mark.parametrize("key", [10**30, -(10**30), "x", None, "\0"])
async def test_a_bad_cursor_of_numbers_is_refused_too(api: Api, key: Any) -> None:
    job = await api.job_id()
    with pytest.raises(Refusal) as refused:
        await api.execute(
            "query ($j: ID!, $c: String!)"
            " { job(id: $j) { checkpoints(after: $c) { totalCount } } }",
            j=job,
            c=packed([1, key, "ftckpt_x"]),
        )
    assert refused.value.code == "INVALID_INPUT"


async def test_a_cursor_without_a_time_zone_does_no_harm(api: Api, rows: Rows) -> None:
    await rows.add(*some(3))
    assert await page(api, after=packed([1, "2026-01-01T00:00:00", "ftjob_x"]))


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"first": 201}, "LIMIT_EXCEEDED"),
        ({"first": -1}, "LIMIT_EXCEEDED"),
        ({"last": 201}, "LIMIT_EXCEEDED"),
        ({"first": 5, "last": 5}, "INVALID_INPUT"),
        ({"first": 5, "before": "x"}, "INVALID_INPUT"),
        ({"last": 5, "after": "x"}, "INVALID_INPUT"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(api: Api, asked: dict[str, Any], code: str) -> None:
    with pytest.raises(Refusal) as refused:
        await page(api, **asked)
    assert refused.value.code == code
