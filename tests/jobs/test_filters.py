"""Filters: the conditions in SQL and the judgement on a row in hand agree; each one works."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.database import Database
from app.core.paging import PageRequest
from app.jobs import queries
from app.jobs.filters import JobFilter
from app.jobs.states import JobStatus
from tests.jobs.rows import EPOCH, Rows
from tests.support import Api, Tenant, chat_lines

NAMES = ["Router", "router 2", "100%", "a_b", "ab", "back\\slash", "Äpfel", "STRASSE", "", "x'y"]
KEYS = st.dictionaries(st.sampled_from(["team", "stage"]), st.sampled_from(["a", "b", ""]))
TIMES = st.integers(0, 4).map(lambda n: EPOCH + timedelta(hours=n))
MODELS, METHODS = st.sampled_from(["m1", "m2"]), st.sampled_from(["supervised", "dpo"])
VERSIONS = st.integers(0, 1)


@pytest.fixture
async def rows(api: Api, database: Database, tenant: Tenant) -> Rows:
    return await Rows.of(api, database, tenant)


def jobs() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "name": st.sampled_from(NAMES),
            "description": st.none() | st.sampled_from(NAMES),
            "status": st.sampled_from([status.value for status in JobStatus]),
            "base_model": MODELS,
            "method": METHODS,
            "labels": KEYS,
            "created_at": TIMES,
            "owner_id": st.sampled_from(["member_a", "member_b"]),
            "validation": st.none() | VERSIONS,
        }
    )


def filters() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "status": st.none() | st.lists(st.sampled_from(JobStatus), max_size=3),
            "provider": st.none() | st.lists(st.sampled_from(["local", "openai"]), max_size=2),
            "base_model": MODELS,
            "method": METHODS,
            "search": st.sampled_from([*NAMES, "%", "_", "\\", "ROUTER", "äpf", "straße", "zzz"]),
            "metadata": KEYS,
            "version": VERSIONS,
            "created_after": TIMES,
            "created_before": TIMES,
            "owner_id": st.sampled_from(["member_a", "member_b", "member_c"]),
        },
    )


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    some=st.lists(jobs(), min_size=5, max_size=15),
    asked=st.lists(filters(), min_size=8, max_size=8),
)
async def test_sql_and_python_judge_alike(
    api: Api, rows: Rows, some: list[dict[str, Any]], asked: list[dict[str, Any]]
) -> None:
    versions = [rows.version_id, await _other_version(api, rows)]
    made = await rows.add(*(_placed(fields, versions) for fields in some))
    org = rows.tenant.actor.org_id
    for fields in asked:
        given = dict(fields)
        if "version" in given:
            given["dataset_version_id"] = versions[given.pop("version")]
        where = JobFilter(**given)
        async with rows.database.transaction(org) as session:
            page = await queries.page(session, rows.tenant.actor, PageRequest(200), where)
            wanted = {job.id for job in made}
            found = {job.id for job in page.rows} & wanted
            assert found == {job.id for job in made if where.accepts(job)}, fields
    async with rows.database.transaction(org) as session:
        for job in made:  # out of the way of the next example
            job.deleted_at = EPOCH
            session.add(job)


async def _other_version(api: Api, rows: Rows) -> str:
    known = vars(rows).setdefault("other", None) or await api.dataset_version(chat_lines(3))
    vars(rows)["other"] = known
    return str(known)


def _placed(fields: dict[str, Any], versions: list[str]) -> dict[str, Any]:
    values = dict(fields)
    validation = values.pop("validation")
    values["validation_version_id"] = None if validation is None else versions[validation]
    return values


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"status": ["RUNNING", "FAILED"]}, "AB"),
        ({"provider": ["LOCAL"]}, "ABC"),
        ({"provider": []}, ""),
        ({"baseModel": "m2"}, "B"),
        ({"method": "dpo"}, "C"),
        ({"search": "rout"}, "AC"),
        ({"search": ""}, "ABC"),
        ({"metadata": [{"key": "team", "value": "a"}]}, "AB"),
        ({"metadata": [{"key": "team", "value": "a"}, {"key": "stage", "value": "x"}]}, "B"),
        ({"createdAfter": "2026-03-01T01:00:00Z"}, "C"),
        ({"createdBefore": "2026-03-01T02:00:00+01:00"}, "A"),
        ({"ownerId": "member_z"}, "C"),
        ({"status": ["RUNNING"], "baseModel": "m2"}, ""),
    ],
)
async def test_each_condition_works_through_the_api(
    api: Api, rows: Rows, asked: dict[str, Any], wanted: str
) -> None:
    made = await rows.add(
        {"name": "Router", "status": "running", "labels": {"team": "a"}},
        {
            "base_model": "m2",
            "status": "failed",
            "labels": {"team": "a", "stage": "x"},
            "created_at": EPOCH + timedelta(hours=1),
        },
        {
            "method": "dpo",
            "description": "a router",
            "owner_id": "member_z",
            "created_at": EPOCH + timedelta(hours=2),
        },
    )
    letters = dict(zip([job.id for job in made], "ABC", strict=True))
    data = await api.execute(
        "query ($f: JobFilter) { jobs(filter: $f) { nodes { id } } stats(filter: $f) { total } }",
        f=asked,
    )
    found = "".join(sorted(letters[node["id"]] for node in data["jobs"]["nodes"]))
    assert found == wanted
    assert data["stats"]["total"] == len(wanted)


async def test_jobs_can_be_found_by_their_data(api: Api, rows: Rows) -> None:
    other = await api.dataset_version(chat_lines(4))
    trained, validated, _ = await rows.add(
        {"training_version_id": other}, {"validation_version_id": other}, {}
    )
    data = await api.execute(
        "query ($v: ID!) { jobs(filter: {datasetVersionId: $v}) { nodes { id } } }", v=other
    )
    assert {node["id"] for node in data["jobs"]["nodes"]} == {trained.id, validated.id}


async def test_no_filter_reaches_another_tenant(
    api: Api, rows: Rows, other_tenant: Tenant, server: str
) -> None:
    await rows.add({"owner_id": "member_z"})
    async with Api(server, other_tenant.key) as other:
        data = await other.execute(
            'query { jobs(filter: {ownerId: "member_z"}) { totalCount nodes { id } }'
            " stats { total } }"
        )
    assert data == {"jobs": {"totalCount": 0, "nodes": []}, "stats": {"total": 0}}
