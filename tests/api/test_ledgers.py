"""The organization's ledger over the real WebSocket: jobs, their progress, deployments."""

import asyncio
import time
from typing import Any

from app.core.database import Database
from app.jobs import control
from app.jobs.states import Cause, JobStatus
from app.models import service as models
from app.models.states import DeploymentStatus
from app.models.tables import Deployment, Model
from tests.api.live import CHANGES, DEPLOYMENTS, Server, Story, gather, place, watched
from tests.jobs.rows import Rows
from tests.support import Api, Tenant

RUNNING = {"status": ["RUNNING"]}


async def _finish(changes: Any, of: str) -> list[dict[str, Any]]:
    """The changes up to the one about this job."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while not found or found[-1]["jobId"] != of:
            found.append((await anext(changes))["jobChanges"])
    return found[:-1]


def _told(changes: list[dict[str, Any]]) -> list[tuple[str, str | None, bool]]:
    return [(change["type"], change["statusThen"], change["matches"]) for change in changes]


async def _marker(rows: Rows, ringer: Database) -> str:
    """A job that every filter of these tests lets through, to end a list with."""
    marker = await Story.begin(rows, ringer, JobStatus.QUEUED, name="wanted marker")
    await marker.becomes(JobStatus.RUNNING)
    return marker.id


async def test_without_a_filter_every_change_is_told(
    viewer: Api, rows: Rows, ringer: Database
) -> None:
    first, second = [await Story.begin(rows, ringer, JobStatus.PENDING) for _ in range(2)]
    await first.becomes(JobStatus.QUEUED)
    await second.becomes(JobStatus.CANCELLED)
    await first.say(5)  # stays in the job's own stream
    await first.becomes(JobStatus.RUNNING)
    async with viewer.subscribe(CHANGES, a="0") as results:
        got = await gather(results, "jobChanges", 3)
    assert [(c["jobId"], c["statusThen"], c["matches"]) for c in got] == [
        (first.id, "QUEUED", True),
        (second.id, "CANCELLED", True),
        (first.id, "RUNNING", True),
    ]
    assert [place(change["cursor"]) for change in got] == [1, 2, 3]
    assert got[0]["job"] == {"id": first.id, "status": "RUNNING"}  # as it is by now


async def test_changes_join_where_the_last_cursor_was(
    live: Server, viewer: Api, rows: Rows, ringer: Database
) -> None:
    story = await Story.begin(rows, ringer, JobStatus.PENDING)
    steps = [JobStatus.VALIDATING, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED]
    cursor, got = "0", []
    for step in [*steps, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]:
        await story.becomes(step)
        async with viewer.subscribe(CHANGES, a=cursor) as results:
            got += await gather(results, "jobChanges", 1)
        cursor = got[-1]["cursor"]
    assert [place(change["cursor"]) for change in got] == list(range(1, 8))
    async with viewer.subscribe(CHANGES) as results:  # from now
        await watched(live)
        await story.becomes(JobStatus.FAILED, Cause.CORRECTION)
        [last] = await gather(results, "jobChanges", 1)
    assert (place(last["cursor"]), last["statusThen"]) == (8, "FAILED")


async def test_a_job_that_leaves_the_filter_is_told_of_once(
    viewer: Api, rows: Rows, ringer: Database
) -> None:
    story = await Story.begin(rows, ringer, JobStatus.PENDING)
    for status in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.QUEUED):
        await story.becomes(status)
    for status in (JobStatus.RUNNING, JobStatus.SUCCEEDED):
        await story.becomes(status)
    await story.becomes(JobStatus.FAILED, Cause.CORRECTION)
    marker = await _marker(rows, ringer)
    async with viewer.subscribe(CHANGES, f=RUNNING, a="0") as results:
        got = await _finish(results, marker)
    assert _told(got) == [
        ("STATUS", "RUNNING", True),
        ("STATUS", "PAUSED", False),
        ("STATUS", "RUNNING", True),
        ("STATUS", "SUCCEEDED", False),
    ]
    assert {change["job"]["status"] for change in got} == {"FAILED"}


async def test_moving_inside_the_filter_is_not_leaving_it(
    viewer: Api, rows: Rows, ringer: Database
) -> None:
    story = await Story.begin(rows, ringer, JobStatus.QUEUED)
    await story.becomes(JobStatus.RUNNING)
    await story.becomes(JobStatus.FAILED)
    marker = await _marker(rows, ringer)
    wanted = {"status": ["QUEUED", "RUNNING"]}
    async with viewer.subscribe(CHANGES, f=wanted, a="0") as results:
        got = await _finish(results, marker)
    assert _told(got) == [("STATUS", "RUNNING", True), ("STATUS", "FAILED", False)]


async def test_a_job_that_fails_another_condition_is_never_told_of(
    viewer: Api, rows: Rows, ringer: Database
) -> None:
    wanted = await Story.begin(rows, ringer, JobStatus.QUEUED, name="the wanted one")
    other = await Story.begin(rows, ringer, JobStatus.QUEUED, name="another")
    for story in (other, wanted, other):
        await story.becomes(JobStatus.PAUSED if story is other else JobStatus.RUNNING)
        if story is other:
            await story.becomes(JobStatus.QUEUED)
    marker = await _marker(rows, ringer)
    async with viewer.subscribe(CHANGES, f={"search": "WANTED"}, a="0") as results:
        got = await _finish(results, marker)
    assert {change["jobId"] for change in got} == {wanted.id}


async def test_a_deleted_job_leaves_whatever_filter_it_passed(
    viewer: Api, rows: Rows, ringer: Database, database: Database, tenant: Tenant
) -> None:
    passed, failed = [
        await Story.begin(rows, ringer, status, name=f"wanted {status}")
        for status in (JobStatus.SUCCEEDED, JobStatus.FAILED)
    ]
    for story in (failed, passed):
        async with database.transaction(tenant.actor.org_id) as session:
            await control.delete(session, tenant.actor, story.id)
    marker = await _marker(rows, ringer)
    for wanted, expected in [
        (None, [failed.id, passed.id]),
        ({"search": "wanted"}, [failed.id, passed.id]),
        ({"status": ["SUCCEEDED", "RUNNING"]}, [passed.id]),
        (RUNNING, []),
        ({"search": "marker"}, []),
    ]:
        async with viewer.subscribe(CHANGES, f=wanted, a="0") as results:
            got = await _finish(results, marker)
        assert [change["jobId"] for change in got] == expected
        assert {(c["type"], c["matches"], c["job"]) for c in got} <= {("DELETED", False, None)}


async def test_progress_is_the_newest_and_repeats_the_cursor(
    viewer: Api, rows: Rows, ringer: Database
) -> None:
    story = await Story.begin(rows, ringer, JobStatus.QUEUED)
    await story.becomes(JobStatus.RUNNING)
    async with viewer.subscribe(CHANGES, a="0") as results:
        [status] = await gather(results, "jobChanges", 1)
        for round in (10, 60):
            for step in range(round, round + 41, 5):
                await story.show(step)
            [progress] = await gather(results, "jobChanges", 1)
            if progress["progress"]["step"] < round + 40:  # a tick fell among the steps
                [progress] = await gather(results, "jobChanges", 1)
            assert progress["type"] == "PROGRESS"
            assert progress["cursor"] == status["cursor"]
            assert progress["progress"] == {"step": round + 40, "percent": (round + 40) / 2}
            assert (progress["matches"], progress["jobId"]) == (True, story.id)
        await asyncio.sleep(2.2)  # nothing new: nothing told
        await story.becomes(JobStatus.PAUSED)
        [paused] = await gather(results, "jobChanges", 1)
        assert (paused["type"], paused["statusThen"]) == ("STATUS", "PAUSED")


async def test_progress_comes_also_while_the_ledger_is_busy(
    viewer: Api, rows: Rows, ringer: Database
) -> None:
    story, other = [await Story.begin(rows, ringer, JobStatus.QUEUED) for _ in range(2)]
    await story.becomes(JobStatus.RUNNING)
    await story.show(7)

    async def keep_busy() -> None:
        while True:
            await other.becomes(JobStatus.PAUSED)
            await asyncio.sleep(0.1)
            await other.becomes(JobStatus.QUEUED)
            await asyncio.sleep(0.1)

    busy = asyncio.create_task(keep_busy())
    started = time.monotonic()
    async with viewer.subscribe(CHANGES, a="0") as results, asyncio.timeout(6):
        async for result in results:
            if result["jobChanges"]["type"] == "PROGRESS":
                assert result["jobChanges"]["progress"]["step"] == 7
                break
    assert time.monotonic() - started < 4
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)


async def test_progress_of_jobs_outside_the_filter_is_not_told(
    viewer: Api, rows: Rows, ringer: Database
) -> None:
    inside = await Story.begin(rows, ringer, JobStatus.RUNNING, name="the wanted one")
    outside = await Story.begin(rows, ringer, JobStatus.RUNNING, name="another")
    for story in (outside, inside):
        await story.show(1)
    async with viewer.subscribe(CHANGES, f={"search": "wanted"}) as results:
        [progress] = await gather(results, "jobChanges", 1)
        await outside.show(2)
        await inside.show(3)
        [again] = await gather(results, "jobChanges", 1)
    assert {progress["jobId"], again["jobId"]} == {inside.id}
    assert (progress["progress"]["step"], again["progress"]["step"]) == (1, 3)


async def _model(ringer: Database, tenant: Tenant, job_id: str) -> Model:
    async with ringer.transaction(tenant.actor.org_id) as session:
        return await models.register(
            session,
            org_id=tenant.actor.org_id,
            org_slug="test",
            project_id=tenant.actor.project_id,
            job_id=job_id,
            base_model="smollm2-135m-instruct",
            suffix=None,
            step=1,
            kind="lora",
            path="nowhere",
            manifest_sha256="0" * 64,
            size_bytes=1,
        )


async def test_deployments_are_told_of_in_order_and_by_model(
    live: Server,
    viewer: Api,
    story: Story,
    ringer: Database,
    database: Database,
    tenant: Tenant,
) -> None:
    org_id = tenant.actor.org_id
    first, second = [await _model(ringer, tenant, story.id) for _ in range(2)]
    deployed: list[Deployment] = []
    for model in (first, second):
        async with database.transaction(org_id) as session:
            deployed.append(await models.deploy(session, tenant.actor, model.id))
    await story.becomes(JobStatus.SUCCEEDED)  # of jobs this stream is silent

    async def becomes(deployment: Deployment, status: DeploymentStatus) -> None:
        async with ringer.transaction(org_id) as session:
            row = await session.get_one(Deployment, (org_id, deployment.id))
            await models.transition(session, row, status)

    async with viewer.subscribe(DEPLOYMENTS, a="0") as results:
        got = await gather(results, "deploymentChanges", 2)
        await becomes(deployed[0], DeploymentStatus.STARTING)
        await becomes(deployed[1], DeploymentStatus.FAILED)
        await becomes(deployed[0], DeploymentStatus.READY)
        got += await gather(results, "deploymentChanges", 3)
    assert [(change["deploymentId"], change["statusThen"]) for change in got] == [
        (deployed[0].id, "PENDING"),
        (deployed[1].id, "PENDING"),
        (deployed[0].id, "STARTING"),
        (deployed[1].id, "FAILED"),
        (deployed[0].id, "READY"),
    ]
    assert [place(change["cursor"]) for change in got] == [1, 2, 4, 5, 6]
    assert got[-1]["deployment"] == {"id": deployed[0].id, "status": "READY"}
    async with viewer.subscribe(DEPLOYMENTS, m=first.id, a=got[0]["cursor"]) as results:
        of_first = await gather(results, "deploymentChanges", 2)
        await becomes(deployed[0], DeploymentStatus.STOPPED)
        of_first += await gather(results, "deploymentChanges", 1)
    assert [change["statusThen"] for change in of_first] == ["STARTING", "READY", "STOPPED"]
