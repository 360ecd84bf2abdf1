"""The state machine: one table, held by the service and by the database behind its back."""

import asyncio
from collections.abc import AsyncIterator
from itertools import product

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.database import Database
from app.core.settings import Settings
from app.events import log
from app.events.log import Fenced
from app.events.types import EventType
from app.jobs import states
from app.jobs.repository import JobRepository
from app.jobs.states import TERMINAL, Cause, JobStatus, TransitionRefused, allowed
from app.jobs.tables import Job
from app.jobs.transition import move
from tests.events.tools import everything, execute, head, numbers, owner, until
from tests.jobs.rows import Rows
from tests.support import Api, new_tenant

EVERY = [
    pytest.param(*case, id=" ".join(part.value for part in case))
    for case in product(JobStatus, JobStatus, Cause)
]


@pytest.fixture(scope="module")
async def rows(server: str, database: Database, settings: Settings) -> AsyncIterator[Rows]:
    tenant = await new_tenant(database, settings)
    async with Api(server, tenant.key) as api:
        yield await Rows.of(api, database, tenant)


@pytest.fixture
def org(rows: Rows) -> str:
    return rows.tenant.actor.org_id


async def _job(rows: Rows, status: JobStatus) -> Job:
    [job] = await rows.add({"status": status.value})
    async with rows.database.transaction(job.org_id) as session:
        await log.open_stream(session, job.org_id, job.id)
    return job


async def _move(
    database: Database, job: Job, status: JobStatus, cause: Cause, epoch: int | None = None
) -> None:
    async with database.transaction(job.org_id) as session:
        locked = await JobRepository(session, job.org_id).get(job.id, lock=True)
        await move(session, locked, status, cause=cause, epoch=epoch)


async def _push(session: AsyncSession, job: Job, status: str, cause: str | None) -> None:
    """Change the status behind the service's back."""
    connection = await session.connection()
    if cause is not None:
        say = text("SELECT set_config('luthier.cause', :cause, true)")
        await connection.execute(say, {"cause": cause})
    change = text("UPDATE jobs SET status = :status WHERE id = :id")
    await connection.execute(change, {"status": status, "id": job.id})


async def _status(rows: Rows, job: Job) -> JobStatus:
    async with rows.database.transaction(job.org_id) as session:
        return JobStatus((await JobRepository(session, job.org_id).get(job.id)).status)


def test_the_table_says_what_the_design_draws() -> None:
    """Read off the picture: nobody leaves an end by evidence, nobody goes back."""
    for before, after in product(JobStatus, JobStatus):
        by_evidence = allowed(before, after, Cause.EVIDENCE)
        if before in TERMINAL or before is after or after is JobStatus.PENDING:
            assert not by_evidence
        elif after in (JobStatus.FAILED, JobStatus.CANCELLED):
            assert by_evidence
    assert allowed(JobStatus.RUNNING, JobStatus.PAUSED, Cause.EVIDENCE)
    assert allowed(JobStatus.PAUSED, JobStatus.QUEUED, Cause.EVIDENCE)
    assert not allowed(JobStatus.PAUSED, JobStatus.RUNNING, Cause.EVIDENCE)
    assert not allowed(JobStatus.PAUSED, JobStatus.SUCCEEDED, Cause.EVIDENCE)
    assert not allowed(JobStatus.RUNNING, JobStatus.QUEUED, Cause.EVIDENCE)
    restarts = [pair for pair in product(JobStatus, JobStatus) if allowed(*pair, Cause.RESTART)]
    assert restarts == [(end, JobStatus.QUEUED) for end in (JobStatus.FAILED, JobStatus.CANCELLED)]
    corrections = {p for p in product(JobStatus, JobStatus) if allowed(*p, Cause.CORRECTION)}
    assert corrections == {(a, b) for a, b in product(TERMINAL, TERMINAL) if a is not b}


async def test_the_database_holds_the_same_table(database_url: str) -> None:
    async with owner(database_url) as connection:
        found = await connection.fetch("SELECT before, after, cause FROM job_transitions")
    assert {tuple(row) for row in found} == set(states.table())
    assert len(found) == len(states.table())


@pytest.mark.parametrize("role", ["app", "worker"])
async def test_no_role_of_the_service_can_change_the_table(
    database: Database, worker_database: Database, org: str, role: str
) -> None:
    pool = database if role == "app" else worker_database
    for change in (
        "INSERT INTO job_transitions VALUES ('succeeded', 'queued', 'evidence')",
        "DELETE FROM job_transitions",
        "UPDATE job_transitions SET cause = 'evidence'",
        "ALTER TABLE jobs DISABLE TRIGGER guard_job_status",
        "DROP TRIGGER guard_job_status ON jobs",
        "SET LOCAL session_replication_role = replica",
    ):
        with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
            await execute(pool, org, change)


@pytest.mark.parametrize(("before", "after", "cause"), EVERY)
async def test_the_service_moves_a_job_as_the_table_allows(
    rows: Rows, worker_database: Database, before: JobStatus, after: JobStatus, cause: Cause
) -> None:
    job = await _job(rows, before)
    ledger = await head(rows.database, job.org_id, job.org_id)
    if not allowed(before, after, cause):
        with pytest.raises(TransitionRefused) as refused:
            await _move(worker_database, job, after, cause)
        assert refused.value.detail == {"before": before, "after": after}
        assert await _status(rows, job) is before
        assert await everything(rows.database, job.org_id, job.id) == []
        return
    await _move(worker_database, job, after, cause)
    async with rows.database.transaction(job.org_id) as session:
        moved = await JobRepository(session, job.org_id).get(job.id)
    assert moved.status == after
    assert (moved.finished_at is not None) == (after in TERMINAL)
    assert (moved.started_at is not None) == (after is JobStatus.RUNNING)
    [event] = await everything(rows.database, job.org_id, job.id)
    assert event.type == EventType.JOB_STATUS
    assert (event.data["jobId"], event.data["before"], event.data["after"]) == (
        job.id,
        before,
        after,
    )
    assert event.data.get("cause", Cause.EVIDENCE) == cause
    async with rows.database.transaction(job.org_id) as session:
        told = await log.read(session, job.org_id, ledger, 10)
    assert [entry.data for entry in told] == [event.data]


@pytest.mark.parametrize(("before", "after", "cause"), EVERY)
async def test_the_database_refuses_the_rest_behind_the_services_back(
    rows: Rows, worker_database: Database, before: JobStatus, after: JobStatus, cause: Cause
) -> None:
    job = await _job(rows, before)

    async def push() -> None:
        async with worker_database.transaction(job.org_id) as session:
            await _push(session, job, after, cause.value)

    if allowed(before, after, cause) or before is after:
        await push()
        assert await _status(rows, job) is after
    else:
        with pytest.raises(DBAPIError, match=f"cannot go from {before} to {after}"):
            await push()
        assert await _status(rows, job) is before


@pytest.mark.parametrize("cause", [None, "", "EVIDENCE", "admin", "restart'--"])
async def test_a_cause_that_is_none_opens_nothing(
    rows: Rows, worker_database: Database, cause: str | None
) -> None:
    job = await _job(rows, JobStatus.FAILED)

    async def push() -> None:
        async with worker_database.transaction(job.org_id) as session:
            await _push(session, job, JobStatus.QUEUED, cause)

    with pytest.raises(DBAPIError, match="cannot go from failed to queued"):
        await push()


async def test_a_cause_does_not_outlive_its_transaction(rows: Rows, database_url: str) -> None:
    """A pool of one connection: the next transaction gets the very same one."""
    job = await _job(rows, JobStatus.FAILED)
    single = Database(database_url, "luthier_worker", 1)
    try:
        await _move(single, job, JobStatus.QUEUED, Cause.RESTART)
        await _move(single, job, JobStatus.FAILED, Cause.EVIDENCE)
        with pytest.raises(DBAPIError, match="cannot go from failed to queued"):
            await execute(
                single, job.org_id, "UPDATE jobs SET status = 'queued' WHERE id = :i", i=job.id
            )
    finally:
        await single.close()


@pytest.mark.parametrize("status", [s for s in JobStatus if s is not JobStatus.PENDING])
async def test_a_job_begins_as_pending(rows: Rows, status: JobStatus) -> None:
    job = await _job(rows, JobStatus.PENDING)
    copied = (
        "INSERT INTO jobs SELECT (jsonb_populate_record(j, jsonb_build_object("
        "'id', CAST(:new AS text), 'status', CAST(:status AS text)))).* FROM jobs j WHERE id = :id"
    )
    values = {"id": job.id, "new": f"{job.id}x", "status": status.value}
    with pytest.raises(DBAPIError, match="a job begins as pending"):
        await execute(rows.database, job.org_id, copied, **values)
    await execute(rows.database, job.org_id, copied, **(values | {"status": "pending"}))


@pytest.mark.parametrize("status", ["done", "", "PENDING", "deployed"])
async def test_an_unknown_status_is_none(
    rows: Rows, worker_database: Database, status: str
) -> None:
    job = await _job(rows, JobStatus.RUNNING)
    with pytest.raises(DBAPIError, match=r"cannot go from|jobs_status"):
        await execute(
            worker_database,
            job.org_id,
            "UPDATE jobs SET status = :s WHERE id = :i",
            s=status,
            i=job.id,
        )


async def test_status_and_event_are_committed_together_or_not_at_all(
    rows: Rows, worker_database: Database, database_url: str
) -> None:
    """The connection dies between the move and the commit."""
    job = await _job(rows, JobStatus.RUNNING)
    ledger = await head(rows.database, job.org_id, job.org_id)

    async def doomed() -> None:
        async with worker_database.transaction(job.org_id) as session:
            locked = await JobRepository(session, job.org_id).get(job.id, lock=True)
            await move(session, locked, JobStatus.SUCCEEDED)
            pid = await (await session.connection()).scalar(text("SELECT pg_backend_pid()"))
            async with owner(database_url) as watch:
                await watch.execute("SELECT pg_terminate_backend($1)", pid)
                gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1"

                async def dead() -> bool:
                    return bool(await watch.fetchval(gone, pid) == 0)

                await until(dead)

    with pytest.raises(DBAPIError):
        await doomed()
    assert await _status(rows, job) is JobStatus.RUNNING
    assert await everything(rows.database, job.org_id, job.id) == []
    assert await head(rows.database, job.org_id, job.org_id) == ledger
    await _move(worker_database, job, JobStatus.SUCCEEDED, Cause.EVIDENCE)
    assert numbers(await everything(rows.database, job.org_id, job.id)) == [1]


async def test_a_fenced_move_changes_nothing(rows: Rows, worker_database: Database) -> None:
    job = await _job(rows, JobStatus.RUNNING)
    ledger = await head(rows.database, job.org_id, job.org_id)
    async with worker_database.transaction(job.org_id) as session:
        await log.fence(session, job.id)
    with pytest.raises(Fenced):
        await _move(worker_database, job, JobStatus.SUCCEEDED, Cause.EVIDENCE, epoch=0)
    assert await _status(rows, job) is JobStatus.RUNNING
    assert await everything(rows.database, job.org_id, job.id) == []
    assert await head(rows.database, job.org_id, job.org_id) == ledger


async def test_of_many_movers_at_once_one_ends_the_job(
    rows: Rows, worker_database: Database
) -> None:
    for _ in range(5):
        job = await _job(rows, JobStatus.RUNNING)
        results = await asyncio.gather(
            *(_move(worker_database, job, status, Cause.EVIDENCE) for status in [*TERMINAL] * 5),
            return_exceptions=True,
        )
        assert results.count(None) == 1
        assert all(isinstance(r, TransitionRefused) for r in results if r is not None)
        [event] = await everything(rows.database, job.org_id, job.id)
        assert event.data["after"] == await _status(rows, job)
