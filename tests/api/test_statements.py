"""What a page of jobs asks of the database: the columns asked for, and nothing per row."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from app.core.database import Database
from app.core.settings import Settings
from app.jobs.errors import JobNotFound
from app.jobs.queries import Standing
from app.jobs.states import JobStatus
from tests.api.live import Server, serving
from tests.jobs.rows import Rows
from tests.support import Api, Tenant

_JSON = ("hyperparameters", "resolved", "metadata", "manifest", "integrations", "error")
_SUBOBJECTS = """query ($n: Int!) { jobs(first: $n) { cursor nodes { id cursor
  progress { step } latestMetrics { step } trainedTokens lastEvidence { at }
  trainingData { id } validationData { id } model { id } deployments { id } } } }"""


@pytest.fixture(scope="module")
async def counted(settings: Settings, database_url: str) -> AsyncIterator[Server]:
    async with serving(settings, database_url) as server:
        yield server


@contextmanager
def statements(server: Server) -> Iterator[list[str]]:
    sent: list[str] = []
    engine = server.engine.services.database.engine.sync_engine

    def note(*args: Any) -> None:
        sent.append(args[2])

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


@pytest.fixture
async def api(counted: Server, tenant: Tenant, database: Database) -> AsyncIterator[Api]:
    async with Api(counted.url, tenant.key) as client:
        rows = await Rows.of(client, database, tenant)
        await rows.add(*({"name": f"job {n}"} for n in range(12)))
        yield client


async def test_only_what_is_asked_is_read(counted: Server, api: Api) -> None:
    await api.execute("{ viewer { role } }")  # the key is known from here on
    with statements(counted) as sent:
        found = await api.execute("{ jobs { edges { node { id ...S } } } } fragment S on Job"
                                  " { status @include(if: true) name }")  # fmt: skip
    assert {edge["node"]["status"] for edge in found["jobs"]["edges"]} == {"PENDING"}
    [page] = sent
    read, _, _ = page.partition(" FROM ")
    assert not any(name in read for name in (*_JSON, "description", "model_id")), read


async def test_sub_objects_cost_the_same_for_one_row_as_for_all(counted: Server, api: Api) -> None:
    await api.execute("{ viewer { role } }")
    counts = []
    for size in (1, 12):
        with statements(counted) as sent:
            found = await api.execute(_SUBOBJECTS, n=size)
        assert len(found["jobs"]["nodes"]) == size
        counts.append(len(sent))
    assert counts[0] == counts[1] <= 5, counts


async def test_every_field_is_answered_alone_as_it_is_among_others(api: Api) -> None:
    """A field whose column was left out of a narrow page would be an error here."""
    made = await api.execute('{ __type(name: "Job") { fields { name args { name }'
                             " type { kind ofType { kind } } } } }")  # fmt: skip
    leaves = []
    for field in made["__type"]["fields"]:
        kinds = {field["type"]["kind"], (field["type"]["ofType"] or {}).get("kind")}
        leaves.append(field["name"] + ("" if kinds & {"SCALAR", "ENUM"} else " { __typename }"))
    together = await api.execute(f"{{ jobs(first: 2) {{ nodes {{ {' '.join(leaves)} }} }} }}")
    for leaf in leaves:
        alone = await api.execute(f"{{ jobs(first: 2) {{ nodes {{ {leaf} }} }} }}")
        name = leaf.split()[0]
        expected = [{name: node[name]} for node in together["jobs"]["nodes"]]
        assert alone["jobs"]["nodes"] == expected


async def test_viewers_who_come_together_cost_one_query(
    counted: Server, api: Api, tenant: Tenant
) -> None:
    page = await api.execute("{ jobs(first: 9) { nodes { id } } }")
    jobs = [job["id"] for job in page["jobs"]["nodes"]]
    loader = counted.engine.services.standings(tenant.actor.org_id)
    with statements(counted) as sent:
        found = await asyncio.gather(
            *(loader.load(id) for id in [*jobs, "ftjob_none", "\0", jobs[0]]),
            return_exceptions=True,
        )
    assert len(sent) == 1
    assert [type(one) for one in found] == [*[Standing] * 9, JobNotFound, JobNotFound, Standing]
    assert found[0] == found[-1] == Standing(JobStatus.PENDING, 0)
