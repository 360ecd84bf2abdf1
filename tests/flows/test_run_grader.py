"""runGrader through a real worker: what graders say, what harms them, and a worker that dies."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from app.core.postgres import EmbeddedPostgres
from tests.flows.stack import Stack
from tests.support import Api, Refusal, count_rows

pytestmark = pytest.mark.timeout(200)

RUN = """mutation ($i: RunGraderInput!) { runGrader(input: $i) { result { reward failed passed
  subRewards { name value } scores { name value } tokenUsage { model tokens } executionSeconds notes
  errors { sampleParseError invalidVariableError unresponsiveRewardError pythonGraderRuntimeError
    pythonGraderServerError pythonGraderRuntimeErrorDetails modelGraderParseError
    modelGraderServerError modelGraderServerErrorDetails details } }
  userErrors { __typename code path message } } }"""
EXACT = {
    "stringCheck": {
        "name": "exact",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.answer }}",
        "operation": "EQ",
    }
}
ITEM = {"answer": "4"}
LENGTH = "def grade(sample, item):\n    return len(sample['output_text']) / item['longest']\n"
LOOP = "def grade(sample, item):\n    while True:\n        pass\n"


def python(source: str, name: str = "code") -> dict[str, Any]:
    return {"python": {"name": name, "source": source}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API and a worker; nothing here trains."""
    folder = tmp_path_factory.mktemp("graders")
    embedded = EmbeddedPostgres(folder, fsync=False)
    embedded.start()
    running = Stack(folder, embedded.url)
    try:
        running.start_api()
        running.start_worker()
        yield running
    finally:
        running.stop()
        embedded.stop()


@pytest.fixture
async def client(place: Stack) -> AsyncIterator[Api]:
    async with Api(place.url, place.key) as client:
        client.http.timeout = 60
        yield client


async def run(client: Api, grader: dict[str, Any], text: str = "4", **more: Any) -> dict[str, Any]:
    """The payload."""
    asked = {"grader": grader, "item": ITEM, "sample": {"text": text}} | more
    payload: dict[str, Any] = (await client.execute(RUN, i=asked))["runGrader"]
    return payload


async def graded(client: Api, *given: Any, **more: Any) -> dict[str, Any]:
    payload = await run(client, *given, **more)
    assert payload["userErrors"] == []
    found: dict[str, Any] = payload["result"]
    return found


async def test_strings_are_compared(client: Api) -> None:
    found = await graded(client, EXACT)
    assert (found["reward"], found["failed"]) == (1, False)
    assert found["scores"] == [{"name": "exact", "value": 1}]
    assert found["subRewards"] == found["tokenUsage"] == []
    assert (await graded(client, EXACT, "5"))["reward"] == 0


async def test_code_runs_in_its_box(client: Api) -> None:
    found = await graded(client, python(LENGTH), "four", item={"longest": 8})
    assert (found["reward"], found["failed"]) == (0.5, False), found
    found = await graded(client, python(LENGTH), item={})
    assert found["reward"] == 0
    assert found["errors"]["pythonGraderRuntimeError"]
    assert "KeyError" in found["errors"]["pythonGraderRuntimeErrorDetails"]


async def test_a_formula_over_several(client: Api) -> None:
    multi = {
        "name": "all",
        "graders": [EXACT, python(LENGTH, "size")],
        "calculateOutput": "(exact + size) / 2",
    }
    found = await graded(client, {"multi": multi}, item=ITEM | {"longest": 2})
    assert found["reward"] == 0.75
    assert {s["name"]: s["value"] for s in found["subRewards"]} == {"exact": 1, "size": 0.5}


async def test_a_sample_in_parts(client: Api) -> None:
    check = {**EXACT["stringCheck"], "input": "{{ sample.output_json.sum }}"}
    parts = {"outputText": "it is 4", "outputJson": {"sum": "4"}}
    found = await graded(client, {"stringCheck": check}, sample={"parts": parts})
    assert found["reward"] == 1
    del parts["outputJson"]
    found = await graded(client, {"stringCheck": check}, sample={"parts": parts})
    assert found["errors"]["sampleParseError"]
    check["input"] = "{{ item.nothing }}"
    assert (await graded(client, {"stringCheck": check}))["errors"]["invalidVariableError"]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"grader": {"python": {"name": "g", "source": "x"}}}, ["grader", "python", "source"]),
        ({"item": [1]}, ["item"]),
        (
            {"sample": {"parts": {"outputText": "", "outputTools": [{}, 1]}}},
            ["sample", "parts", "outputTools", "1"],
        ),
    ],
)
async def test_a_fault_is_named_with_its_path(
    client: Api, given: dict[str, Any], path: list[str]
) -> None:
    payload = await run(client, **{"grader": EXACT} | given)
    assert payload["result"] is None
    [error] = payload["userErrors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", path), error


async def test_numbers_and_depths_that_cannot_be_kept_are_refused(client: Api) -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    for item in ("{a: 100000000000000000000000000000}", "$deep"):
        used = ", $deep: JSON" if item == "$deep" else ""
        query = f"""mutation ($g: GraderInput!{used}) {{ runGrader(
            input: {{grader: $g, sample: {{text: ""}}, item: {item}}}) {{
            userErrors {{ code path }} }} }}"""
        given = {"g": EXACT} | ({"deep": {"a": deep}} if used else {})
        found = (await client.execute(query, **given))["runGrader"]["userErrors"]
        assert found == [{"code": "INVALID_INPUT", "path": ["item"]}]


async def test_an_endless_loop_is_ended_and_the_worker_goes_on(client: Api) -> None:
    loop, other = await asyncio.gather(graded(client, python(LOOP)), graded(client, EXACT))
    assert other["reward"] == 1
    assert loop["reward"] == 0
    assert loop["errors"]["unresponsiveRewardError"]
    assert loop["executionSeconds"] < 20
    assert (await graded(client, python(LENGTH), item={"longest": 1}))["reward"] == 1


async def test_nothing_is_kept(place: Stack, client: Api) -> None:
    await graded(client, EXACT)
    org_id = (await client.execute("{ viewer { organization { id } } }"))["viewer"]
    assert await count_rows(place.database_url, "grader_runs", org_id["organization"]["id"]) == 0


async def test_a_worker_that_dies_leaves_its_run_to_another(place: Stack, client: Api) -> None:
    place.kill_worker()
    asked = asyncio.create_task(graded(client, EXACT))
    await waiting(place)
    place.start_worker()
    assert (await asked)["reward"] == 1

    # One that is being graded: its lease runs out, and the next worker grades it again.
    slow = "import time\ndef grade(sample, item):\n    time.sleep(4)\n    return 0.5\n"
    asked = asyncio.create_task(graded(client, python(slow)))
    await waiting(place, held=True)
    place.kill_worker()
    place.start_worker()
    assert (await asked)["reward"] == 0.5


@pytest.mark.soak
async def test_without_a_worker_it_says_so(place: Stack, client: Api) -> None:
    place.stop_worker()
    try:
        with pytest.raises(Refusal) as refusal:
            await run(client, EXACT)
        assert refusal.value.code == "UNAVAILABLE"
        assert "No worker" in str(refusal.value)
    finally:
        place.start_worker()
    assert (await graded(client, EXACT))["reward"] == 1


async def waiting(place: Stack, held: bool = False) -> None:
    """Until a run is queued, or held by a worker."""
    owner = await asyncpg.connect(place.database_url)
    try:
        for _ in range(400):
            found = await owner.fetchrow(
                "SELECT worker_id FROM attempts WHERE finished_at IS NULL"
                " AND starts_with(subject_id, 'grun_')"
            )
            if found and (found["worker_id"] is not None) == held:
                return
            await asyncio.sleep(0.05)
    finally:
        await owner.close()
    raise TimeoutError("no run is queued")
