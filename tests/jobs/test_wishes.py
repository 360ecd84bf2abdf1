"""What is asked of a job that a worker holds is recorded first, and carried out by the worker."""

import asyncio

import pytest

from app.core.database import Database
from app.events.log import Fenced
from app.jobs import progress
from app.jobs.states import JobStatus
from tests.jobs.work import GONE, audited, end, measure, refused, seen, start, take, told
from tests.support import Api, Tenant


@pytest.fixture
async def job(api: Api) -> str:
    return await api.job_id()


async def wish(api: Api, job: str) -> tuple[str, str | None]:
    state = await seen(api, job)
    return state["status"], state["requestedAction"]


@pytest.mark.parametrize(
    ("verb", "action", "audit"),
    [("cancelJob", "CANCEL", "job.cancelled"), ("pauseJob", "PAUSE", "job.paused")],
)
async def test_a_wish_about_a_held_job_is_only_recorded(
    api: Api,
    job: str,
    worker_database: Database,
    database_url: str,
    tenant: Tenant,
    verb: str,
    action: str,
    audit: str,
) -> None:
    claim = await take(worker_database, database_url, job)
    await start(worker_database, claim)
    for _ in range(3):
        payload = await api.act(verb, job)
        assert payload["job"] == {"id": job, "status": "RUNNING", "requestedAction": action}
    assert await told(database_url, job, job) == [
        "job.status pending",
        "attempt.started",
        "job.status running",
        f"job.requested {action.lower()}",
    ]
    assert await told(database_url, tenant.actor.org_id, job) == [
        "job.status pending",
        "job.status running",
    ]
    assert audit in await audited(database_url, job)
    async with worker_database.transaction(claim.org_id) as session:
        assert await progress.wish(session, claim) == action.lower()
    await measure(worker_database, claim, {1: {"training_loss": 1.0}})  # still its work


async def test_a_job_claimed_but_not_begun_is_held_too(
    api: Api, job: str, worker_database: Database, database_url: str
) -> None:
    await take(worker_database, database_url, job)
    assert (await api.act("cancelJob", job))["job"]["status"] == "PENDING"
    assert await wish(api, job) == ("PENDING", "CANCEL")


async def test_pause_then_resume_pauses_and_goes_on(
    api: Api, job: str, worker_database: Database, database_url: str
) -> None:
    claim = await take(worker_database, database_url, job)
    await start(worker_database, claim)
    await api.act("pauseJob", job)
    assert (await api.act("resumeJob", job))["job"]["requestedAction"] == "RESUME"
    assert (await api.act("resumeJob", job))["job"]["requestedAction"] == "RESUME"
    await end(worker_database, claim, JobStatus.PAUSED)
    assert await wish(api, job) == ("QUEUED", None)
    assert (await told(database_url, job, job))[3:] == [
        "job.requested pause",
        "job.requested resume",
        "attempt.ended paused",
        "job.status paused",
        "job.status queued",
    ]
    again = await take(worker_database, database_url, job)
    await start(worker_database, again)
    assert await wish(api, job) == ("RUNNING", None)


async def test_pause_resume_pause_ends_paused(
    api: Api, job: str, worker_database: Database, database_url: str
) -> None:
    claim = await take(worker_database, database_url, job)
    await start(worker_database, claim)
    for verb in ("pauseJob", "resumeJob", "pauseJob"):
        await api.act(verb, job)
    await end(worker_database, claim, JobStatus.PAUSED)
    assert await wish(api, job) == ("PAUSED", None)


async def test_pause_then_cancel_cancels(
    api: Api, job: str, worker_database: Database, database_url: str
) -> None:
    claim = await take(worker_database, database_url, job)
    await start(worker_database, claim)
    await api.act("pauseJob", job)
    assert (await api.act("cancelJob", job))["job"]["requestedAction"] == "CANCEL"
    await end(worker_database, claim, JobStatus.CANCELLED)
    assert await wish(api, job) == ("CANCELLED", None)


@pytest.mark.parametrize(
    ("verb", "after"), [("pauseJob", "paused"), ("resumeJob", "queued"), ("restartJob", "queued")]
)
async def test_nothing_supersedes_a_wish_to_cancel(
    api: Api, job: str, worker_database: Database, database_url: str, verb: str, after: str
) -> None:
    await start(worker_database, await take(worker_database, database_url, job))
    await api.act("cancelJob", job)
    error = await refused(api, verb, job)
    assert error["__typename"] == "InvalidTransitionError"
    assert (error["before"], error["after"]) == ("running", after)
    assert await wish(api, job) == ("RUNNING", "CANCEL")


@pytest.mark.parametrize(("verb", "status"), [("cancelJob", "CANCELLED"), ("pauseJob", "PAUSED")])
async def test_a_job_whose_lease_ran_out_obeys_at_once_and_the_old_worker_is_shut_out(
    api: Api, job: str, worker_database: Database, database_url: str, verb: str, status: str
) -> None:
    claim = await take(worker_database, database_url, job, GONE)
    await start(worker_database, claim)
    assert (await api.act(verb, job))["job"]["status"] == status
    before = await told(database_url, job, job)
    with pytest.raises(Fenced):
        await measure(worker_database, claim, {1: {"training_loss": 1.0}})
    await end(worker_database, claim, JobStatus.SUCCEEDED)  # too late: its attempt is over
    assert await told(database_url, job, job) == before
    assert await wish(api, job) == (status, None)


@pytest.mark.parametrize(("verb", "status"), [("cancelJob", "CANCELLED"), ("pauseJob", "PAUSED")])
async def test_a_wish_whose_worker_died_is_carried_out_by_the_next(
    api: Api, job: str, worker_database: Database, database_url: str, verb: str, status: str
) -> None:
    claim = await take(worker_database, database_url, job)
    await start(worker_database, claim)
    await api.act(verb, job)
    async with worker_database.transaction(claim.org_id) as session:
        await (await session.connection()).exec_driver_sql(
            "UPDATE attempts SET lease_until = clock_timestamp() - interval '1 s'"
            f" WHERE id = '{claim.id}'"
        )
    heir = await take(worker_database, database_url, job)
    assert heir.lost_number == claim.number
    async with worker_database.transaction(heir.org_id) as session:
        assert await progress.begin(session, heir) is None
    assert await wish(api, job) == (status, None)
    outcomes = [a["outcome"] for a in (await seen(api, job))["attempts"]]
    assert outcomes == ["lost", status.lower()]


async def test_wishes_and_a_worker_racing_leave_one_consistent_story(
    api: Api, job: str, worker_database: Database, database_url: str
) -> None:
    claim = await take(worker_database, database_url, job)
    await start(worker_database, claim)

    async def work() -> None:
        for step in range(1, 15):
            await measure(worker_database, claim, {step: {"training_loss": 1.0}})
        await end(worker_database, claim, JobStatus.SUCCEEDED)

    await asyncio.gather(
        work(), *(api.act(verb, job) for verb in ["pauseJob", "resumeJob", "cancelJob"] * 4)
    )
    assert await wish(api, job) == ("SUCCEEDED", None)
    story = await told(database_url, job, job)
    assert story.count("job.status succeeded") == 1
    assert story[-1] == "job.status succeeded"
