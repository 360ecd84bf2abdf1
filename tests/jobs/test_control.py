"""Verbs on jobs that nobody is running take effect at once, and say so in events and audit rows."""

import asyncio
from typing import Any

import pytest

from app.core.actor import Role, Scope
from app.core.database import Database
from app.core.settings import Settings
from app.jobs.states import JobStatus
from tests.jobs.work import audited, end, refused, save, seen, start, take, told
from tests.support import Api, Refusal, Tenant, key_with


@pytest.fixture
async def job(api: Api) -> str:
    return await api.job_id()


async def over(
    api: Api, worker: Database, database_url: str, status: JobStatus = JobStatus.FAILED
) -> str:
    """The id of a job that a worker has brought to an end."""
    id = await api.job_id()
    claim = await take(worker, database_url, id)
    await start(worker, claim)
    error = {"code": "out_of_memory", "message": "No memory.", "param": None}
    await end(worker, claim, status, error=error if status is JobStatus.FAILED else None)
    return id


async def test_cancelling_ends_a_waiting_job_at_once(
    api: Api, job: str, tenant: Tenant, database_url: str
) -> None:
    payload = await api.act("cancelJob", job)
    assert payload["job"] == {"id": job, "status": "CANCELLED", "requestedAction": None}
    state = await seen(api, job)
    assert state["finishedAt"] is not None
    assert [a["outcome"] for a in state["attempts"]] == ["cancelled"]
    wanted = ["job.status pending", "job.status cancelled"]
    assert await told(database_url, job, job) == wanted
    assert await told(database_url, tenant.actor.org_id, job) == wanted
    assert await audited(database_url, job) == ["job.submitted", "job.cancelled"]


async def test_pausing_and_resuming_a_waiting_job_take_effect_at_once(
    api: Api, job: str, tenant: Tenant, database_url: str
) -> None:
    assert (await api.act("pauseJob", job))["job"]["status"] == "PAUSED"
    assert (await api.act("resumeJob", job))["job"]["status"] == "QUEUED"
    state = await seen(api, job)
    assert [(a["number"], a["outcome"]) for a in state["attempts"]] == [(1, "paused"), (2, None)]
    wanted = ["job.status pending", "job.status paused", "job.status queued"]
    assert await told(database_url, job, job) == wanted
    assert await told(database_url, tenant.actor.org_id, job) == wanted
    assert await audited(database_url, job) == ["job.submitted", "job.paused", "job.resumed"]


@pytest.mark.parametrize(("verb", "status"), [("cancelJob", "CANCELLED"), ("pauseJob", "PAUSED")])
async def test_asking_again_changes_nothing(
    api: Api, job: str, database_url: str, verb: str, status: str
) -> None:
    first = await api.act(verb, job)
    before = await told(database_url, job, job), await audited(database_url, job)
    again = await asyncio.gather(*(api.act(verb, job) for _ in range(5)))
    assert all(payload == first for payload in again)
    assert first["job"]["status"] == status
    assert (await told(database_url, job, job), await audited(database_url, job)) == before


async def test_twenty_people_cancelling_at_once_end_it_once(
    api: Api, job: str, database_url: str
) -> None:
    answers = await asyncio.gather(*(api.act("cancelJob", job) for _ in range(20)))
    assert {a["job"]["status"] for a in answers} == {"CANCELLED"}
    assert await told(database_url, job, job) == ["job.status pending", "job.status cancelled"]
    assert await audited(database_url, job) == ["job.submitted", "job.cancelled"]


async def test_a_paused_job_can_be_cancelled(api: Api, job: str) -> None:
    await api.act("pauseJob", job)
    assert (await api.act("cancelJob", job))["job"]["status"] == "CANCELLED"


async def test_restarting_queues_a_cancelled_job_again(
    api: Api, job: str, tenant: Tenant, database_url: str
) -> None:
    await api.act("cancelJob", job)
    assert (await api.act("restartJob", job))["job"]["status"] == "QUEUED"
    state = await seen(api, job)
    assert (state["finishedAt"], len(state["attempts"])) == (None, 2)
    assert (await told(database_url, tenant.actor.org_id, job))[-1] == "job.status queued"
    assert (await told(database_url, job, job))[-1] == "job.status queued"
    assert (await audited(database_url, job))[-1] == "job.restarted"


async def test_restarting_a_failed_job_clears_its_error_and_keeps_its_checkpoints(
    api: Api, worker_database: Database, database_url: str
) -> None:
    id = await api.job_id()
    claim = await take(worker_database, database_url, id)
    await start(worker_database, claim)
    await save(worker_database, claim, 10)
    error = {"code": "diverged", "message": "The loss is not a number.", "param": None}
    await end(worker_database, claim, JobStatus.FAILED, error=error)
    assert (await seen(api, id))["error"] == {"code": "diverged"}
    await api.act("restartJob", id)
    state = await seen(api, id)
    assert (state["status"], state["error"]) == ("QUEUED", None)
    assert state["checkpoints"]["nodes"] == [{"step": 10}]
    second = await take(worker_database, database_url, id)
    await start(worker_database, second)
    assert (await seen(api, id))["attempts"][1]["fromStep"] == 10


async def test_restarting_from_scratch_forgets_the_checkpoints(
    api: Api, worker_database: Database, database_url: str
) -> None:
    id = await api.job_id()
    claim = await take(worker_database, database_url, id)
    await start(worker_database, claim)
    await save(worker_database, claim, 10)
    await end(worker_database, claim, JobStatus.FAILED)
    await api.act("restartJob", id, fromScratch=True)
    state = await seen(api, id)
    assert state["checkpoints"]["nodes"] == []
    assert state["attempts"][1]["fromStep"] == 0


async def test_the_same_key_restarts_once(api: Api, job: str) -> None:
    await api.act("cancelJob", job)
    made = await asyncio.gather(
        *(api.act("restartJob", job, idempotencyKey="again") for _ in range(5))
    )
    assert [m["job"]["status"] for m in made] == ["QUEUED"] * 5
    assert len((await seen(api, job))["attempts"]) == 2
    error = await refused(api, "restartJob", job, idempotencyKey="again", fromScratch=True)
    assert error["code"] == "IDEMPOTENCY_MISMATCH"


@pytest.mark.parametrize(
    ("done", "verb", "before", "after"),
    [
        ([], "resumeJob", "pending", "queued"),
        ([], "restartJob", "pending", "queued"),
        (["pauseJob"], "restartJob", "paused", "queued"),
        (["cancelJob"], "pauseJob", "cancelled", "paused"),
        (["cancelJob"], "resumeJob", "cancelled", "queued"),
        (["pauseJob", "resumeJob"], "resumeJob", "queued", "queued"),
    ],
)
async def test_what_the_state_forbids_is_refused_with_both_states(
    api: Api, job: str, database_url: str, done: list[str], verb: str, before: str, after: str
) -> None:
    for earlier in done:
        await api.act(earlier, job)
    trail = await told(database_url, job, job), await audited(database_url, job)
    error = await refused(api, verb, job)
    assert (error["__typename"], error["code"]) == ("InvalidTransitionError", "INVALID_TRANSITION")
    assert (error["before"], error["after"], error["path"]) == (before, after, ["id"])
    assert (await told(database_url, job, job), await audited(database_url, job)) == trail


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED])
async def test_a_finished_job_cannot_be_cancelled_or_paused(
    api: Api, worker_database: Database, database_url: str, status: JobStatus
) -> None:
    id = await over(api, worker_database, database_url, status)
    for verb, after in (("cancelJob", "cancelled"), ("pauseJob", "paused")):
        error = await refused(api, verb, id)
        assert (error["before"], error["after"]) == (status.value, after)


async def test_an_outcome_can_be_corrected_with_a_reason(
    api: Api, worker_database: Database, database_url: str, tenant: Tenant
) -> None:
    id = await over(api, worker_database, database_url)
    payload = await api.act("correctJob", id, status="SUCCEEDED", reason=" The check was wrong. ")
    assert payload["job"]["status"] == "SUCCEEDED"
    assert (await told(database_url, tenant.actor.org_id, id))[-1] == "job.status succeeded"
    data = await api.execute(
        "query ($id: ID!) { auditLog(filter: {objectId: $id}) { nodes { action reason before after"
        " } } job(id: $id) { events { nodes { message data } } } }",
        id=id,
    )
    newest = data["auditLog"]["nodes"][0]
    assert (newest["action"], newest["reason"]) == ("job.corrected", "The check was wrong.")
    assert (newest["before"], newest["after"]) == ({"status": "failed"}, {"status": "succeeded"})
    last = data["job"]["events"]["nodes"][-1]
    assert last["data"]["cause"] == "correction"
    assert "The check was wrong." in last["message"]


@pytest.mark.parametrize("status", ["FAILED", "RUNNING", "QUEUED", "PENDING", "PAUSED"])
async def test_only_another_outcome_is_a_correction(
    api: Api, worker_database: Database, database_url: str, status: str
) -> None:
    id = await over(api, worker_database, database_url)
    error = await refused(api, "correctJob", id, status=status, reason="because")
    assert error["__typename"] == "InvalidTransitionError"
    assert (error["before"], error["after"]) == ("failed", status.lower())
    waiting = await api.job_id()
    error = await refused(api, "correctJob", waiting, status="SUCCEEDED", reason="because")
    assert error["before"] == "pending"
    error = await refused(api, "correctJob", id, status="CANCELLED", reason="  ")
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["reason"])


async def test_a_deleted_job_is_hidden_but_its_trail_stays(
    api: Api, job: str, tenant: Tenant, database_url: str
) -> None:
    error = await refused(api, "deleteJob", job)
    assert (error["code"], error["path"]) == ("JOB_STILL_LIVE", ["id"])
    await api.act("cancelJob", job)
    answer = await api.execute(
        "mutation ($i: DeleteJobInput!) { deleteJob(input: $i) { deletedId userErrors { code } } }",
        i={"id": job},
    )
    assert answer["deleteJob"] == {"deletedId": job, "userErrors": []}
    data = await api.execute(
        "query ($id: ID!) { job(id: $id) { id } node(id: $id) { id } jobs { totalCount }"
        " stats { total } }",
        id=job,
    )
    hidden: dict[str, Any] = {"job": None, "node": None}
    assert data == hidden | {"jobs": {"totalCount": 0}, "stats": {"total": 0}}
    wanted = ["job.status pending", "job.status cancelled", "job.deleted"]
    assert await told(database_url, job, job) == wanted
    assert await told(database_url, tenant.actor.org_id, job) == wanted
    assert await audited(database_url, job) == ["job.submitted", "job.cancelled", "job.deleted"]
    for verb in ("cancelJob", "pauseJob", "resumeJob", "restartJob", "deleteJob"):
        assert (await refused(api, verb, job))["code"] == "JOB_NOT_FOUND"


async def test_acting_needs_the_role_admin_and_deleting_the_owner(
    api: Api, job: str, server: str, database: Database, settings: Settings, tenant: Tenant
) -> None:
    member = await key_with(database, settings, tenant, Role.MEMBER, *Scope)
    admin = await key_with(database, settings, tenant, Role.ADMIN, *Scope)
    reader = await key_with(database, settings, tenant, Role.OWNER, Scope.READ)
    for key, verbs in (
        (member, ["cancelJob", "pauseJob", "resumeJob", "restartJob"]),
        (reader, ["cancelJob", "pauseJob", "resumeJob", "restartJob"]),
        (admin, ["deleteJob"]),
    ):
        async with Api(server, key) as other:
            for verb in verbs:
                with pytest.raises(Refusal) as refusal:
                    await refused(other, verb, job)
                assert refusal.value.code == "FORBIDDEN"
    assert (await seen(api, job))["status"] == "PENDING"
