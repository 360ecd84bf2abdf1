"""Live streams over the real WebSocket: one job's events and metrics."""

import asyncio
import random
from itertools import product
from typing import Any

import pytest

from app.core import ids
from app.core.database import Database
from app.events.log import NewEvent
from app.events.types import EventType
from app.jobs.states import Cause, JobStatus
from tests.api.live import (
    CHANGES,
    DEPLOYMENTS,
    EVENTS,
    METRICS,
    Server,
    Story,
    ask,
    drop,
    gather,
    place,
    rest,
    watched,
)
from tests.events.tools import seeded, until
from tests.jobs.rows import Rows
from tests.support import Api, Refusal


@pytest.mark.parametrize(
    ("after", "first"), [("0", 1), ("s1", 2), ("s17", 18), ("s25", 26), (None, 26)]
)
async def test_a_subscription_begins_after_its_cursor(
    live: Server, viewer: Api, story: Story, after: str | None, first: int
) -> None:
    await story.say(25)
    async with viewer.subscribe(EVENTS, j=story.id, a=after) as results:
        history = await gather(results, "jobEvents", 26 - first)
        await watched(live)
        for _ in range(5):
            await story.say()
        got = history + await gather(results, "jobEvents", 5)
    assert [place(event["cursor"]) for event in got] == list(range(first, 31))
    assert {event["jobId"] for event in got} == {story.id}


async def test_the_cursor_of_a_query_joins_a_subscription_without_seam(
    viewer: Api, story: Story
) -> None:
    await story.say(3)
    query = "query ($j: ID!) { job(id: $j) { cursor events { nodes { cursor } } } }"
    job = (await viewer.execute(query, j=story.id))["job"]
    await story.say(4)
    async with viewer.subscribe(EVENTS, j=story.id, a=job["cursor"]) as results:
        got = await gather(results, "jobEvents", 4)
    seen = job["events"]["nodes"] + got
    assert [place(event["cursor"]) for event in seen] == list(range(1, 8))


async def _restless(viewer: Api, story: Story, chance: random.Random) -> list[int]:
    """A viewer that loses its connection again and again, until the stream completes."""
    got: list[int] = []
    cursor = "0"
    while True:
        async with viewer.socket() as socket:
            await ask(socket, "1", EVENTS, variables={"j": story.id, "a": cursor})
            results = socket.results()
            async for result in results:
                cursor = result["jobEvents"]["cursor"]
                got.append(place(cursor))
                if chance.random() < 0.04:
                    break
            else:
                return got
            if chance.random() < 0.5:
                drop(socket)
            elif chance.random() < 0.5:
                await socket.send(id="1", type="complete")


async def test_reconnecting_with_the_last_cursor_gives_exactly_the_rest(
    viewer: Api, story: Story
) -> None:
    chance = seeded()

    async def work() -> None:
        for _ in range(80):
            await story.say(chance.choice([1, 1, 1, 2, 5]))
            await asyncio.sleep(chance.random() * 0.015)
        await story.becomes(JobStatus.SUCCEEDED)

    viewers = [_restless(viewer, story, random.Random(chance.random())) for _ in range(8)]
    async with asyncio.timeout(40):
        *seen, _ = await asyncio.gather(*viewers, work())
    last = await story.say()
    for got in seen:
        assert got == list(range(1, last))


async def test_variables_choose_the_fields_of_each_viewer(
    live: Server, viewer: Api, story: Story
) -> None:
    document = """subscription ($j: ID!, $w: Boolean!) {
      jobEvents(jobId: $j) { cursor message @include(if: $w) step @skip(if: $w) } }"""
    async with (
        viewer.subscribe(document, j=story.id, w=True) as with_message,
        viewer.subscribe(document, j=story.id, w=False) as with_step,
    ):
        await until(lambda: len(live.engine.groups) == 2)
        await story.say(3)
        for results, name in ((with_message, "message"), (with_step, "step")):
            for event in await gather(results, "jobEvents", 3):
                assert event.keys() == {"cursor", name}


async def test_types_choose_among_the_events_and_keep_their_cursors(
    viewer: Api, story: Story
) -> None:
    for step in range(3):
        await story.say(2)
        await story.measure([step])
    await story.becomes(JobStatus.SUCCEEDED)
    for types, expected in [
        (["METRICS"], [3, 6, 9]),
        (["METRICS", "STATUS"], [3, 6, 9, 10]),
        (["CHECKPOINT"], []),
        ([], []),
        (None, list(range(1, 11))),
    ]:
        async with viewer.subscribe(EVENTS, j=story.id, a="0", t=types) as results:
            got = await rest(results, "jobEvents")
        assert [place(event["cursor"]) for event in got] == expected


@pytest.mark.parametrize("end", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED])
async def test_a_stream_completes_when_its_job_is_over_and_read_to_the_end(
    live: Server, viewer: Api, story: Story, end: JobStatus
) -> None:
    await story.say(3)
    async with viewer.subscribe(EVENTS, j=story.id) as results:
        await watched(live)
        await story.becomes(JobStatus.PAUSED)  # not an end
        await story.becomes(JobStatus.QUEUED)
        await story.becomes(JobStatus.RUNNING)
        await story.becomes(end)
        got = await rest(results, "jobEvents")
    assert [event["data"]["after"] for event in got] == ["paused", "queued", "running", end]


@pytest.mark.parametrize("after", [None, "s1301"])
async def test_a_finished_job_read_to_its_end_completes_at_once(
    viewer: Api, story: Story, after: str | None
) -> None:
    await story.say(1_300)
    await story.becomes(JobStatus.FAILED)
    async with viewer.subscribe(EVENTS, j=story.id, a=after) as results:
        assert await rest(results, "jobEvents") == []
    async with viewer.subscribe(EVENTS, j=story.id, a="0") as results:
        got = await rest(results, "jobEvents")
    assert [place(event["cursor"]) for event in got] == list(range(1, 1_302))


async def test_what_follows_the_end_of_a_job_is_part_of_its_stream(
    viewer: Api, story: Story
) -> None:
    await story.becomes(JobStatus.SUCCEEDED)
    await story.append([NewEvent(EventType.RESULT, {"fileId": "file_1"})])
    for after, expected in [("0", [1, 2]), ("s1", [2]), ("s2", [])]:
        async with viewer.subscribe(EVENTS, j=story.id, a=after) as results:
            got = await rest(results, "jobEvents")
        assert [place(event["cursor"]) for event in got] == expected


async def test_a_restarted_jobs_old_end_does_not_complete_its_stream(
    viewer: Api, story: Story
) -> None:
    await story.becomes(JobStatus.FAILED)
    await story.becomes(JobStatus.QUEUED, Cause.RESTART)
    async with viewer.subscribe(EVENTS, j=story.id, a="0") as results:
        await gather(results, "jobEvents", 2)
        await asyncio.sleep(0.1)
        await story.becomes(JobStatus.RUNNING)
        await story.becomes(JobStatus.SUCCEEDED)
        got = await rest(results, "jobEvents")
    assert [event["data"]["after"] for event in got] == ["running", "succeeded"]


async def test_a_job_that_ends_while_viewers_join_leaves_none_of_them_waiting(
    viewer: Api, rows: Rows, ringer: Database
) -> None:
    chance = seeded()

    async def join(story: Story) -> list[Any]:
        await asyncio.sleep(chance.random() * 0.03)
        async with viewer.subscribe(EVENTS, j=story.id) as results:
            return await rest(results, "jobEvents")

    for _ in range(5):
        story = await Story.begin(rows, ringer)
        joining = [asyncio.create_task(join(story)) for _ in range(12)]
        await asyncio.sleep(chance.random() * 0.05)
        await story.becomes(JobStatus.SUCCEEDED)
        for got in await asyncio.gather(*joining):
            assert [place(event["cursor"]) for event in got] in ([], [1])


@pytest.mark.parametrize("query", [EVENTS, METRICS, CHANGES, DEPLOYMENTS])
async def test_a_cursor_that_is_none_of_this_stream_is_refused(
    viewer: Api, story: Story, query: str
) -> None:
    variables = {"j": story.id} if "$j" in query else {}
    beyond, malformed = ["s999999", "999999"], ["", "s", "-1", "s-1", "1.5", "ss1", "s1 ", "\u0661"]
    for cursor in [*beyond, *malformed, "s" + "9" * 40]:
        async with viewer.subscribe(query, **variables, a=cursor) as results:
            with pytest.raises(Refusal) as refused:
                await gather(results, "", 1)
        assert refused.value.code == "INVALID_INPUT"
        assert refused.value.errors[0]["extensions"]["path"] == ["after"]


@pytest.mark.parametrize("query", [EVENTS, METRICS])
async def test_an_unknown_job_is_refused(viewer: Api, query: str) -> None:
    for id, after in product((ids.new(ids.JOB), "", "'; --"), (None, "0", "s5", "nonsense")):
        async with viewer.subscribe(query, j=id, a=after) as results:
            with pytest.raises(Refusal) as refused:
                await gather(results, "", 1)
        assert refused.value.code == "JOB_NOT_FOUND"


async def test_metric_points_come_in_batches_of_at_most_a_hundred(
    viewer: Api, story: Story
) -> None:
    await story.say(7)
    await story.measure(range(250))
    await story.say(3)
    await story.measure(range(250, 260))
    await story.becomes(JobStatus.SUCCEEDED)
    async with viewer.subscribe(METRICS, j=story.id, a="0") as results:
        got = await rest(results, "jobMetrics")
    steps = [[point["step"] for point in batch["points"]] for batch in got]
    assert sum(steps, []) == list(range(260))  # noqa: RUF017
    assert max(len(batch) for batch in steps) == 100
    for batch in got:  # each cursor is the place of its last point
        async with viewer.subscribe(METRICS, j=story.id, a=batch["cursor"]) as results:
            left = await rest(results, "jobMetrics")
        last = batch["points"][-1]["step"]
        assert [p["step"] for b in left for p in b["points"]] == list(range(last + 1, 260))


async def test_metric_points_come_singly_when_they_are_measured_singly(
    live: Server, viewer: Api, story: Story
) -> None:
    async with viewer.subscribe(METRICS, j=story.id) as results:
        await watched(live)
        for step in range(5):
            await story.measure([step])
            [batch] = await gather(results, "jobMetrics", 1)
            assert [point["step"] for point in batch["points"]] == [step]
            assert place(batch["cursor"]) == step + 1


async def test_a_value_that_is_no_number_is_null_with_a_flag(viewer: Api, story: Story) -> None:
    data = {"values": {"training_loss": float("nan")}, "nonFinite": ["training_loss"]}
    await story.append([NewEvent(EventType.METRICS, data, step=1, attempt=1)])
    async with viewer.subscribe(METRICS, j=story.id, a="0") as results:
        [batch] = await gather(results, "jobMetrics", 1)
    assert batch["points"] == [
        {"step": 1, "attempt": 1, "trainingLoss": None, "nonFinite": ["training_loss"]}
    ]
