"""Streams, cursors and REST show nothing of another tenant, and no sign that it has something."""

import asyncio
import json
import re
from typing import Any, cast

import pytest
from graphql import GraphQLSchema

from app.api.rest.routes import RestDoor
from app.core import ids
from tests.api.documents import cursor_arguments, document, merged, placed
from tests.populated import Owner, Populated, rows_of

STREAMS = {
    "Subscription.jobEvents.jobId": "job",
    "Subscription.jobMetrics.jobId": "job",
    "Subscription.jobChanges.filter.datasetVersionId": "version",
    "Subscription.jobChanges.filter.ownerId": "owner",
    "Subscription.deploymentChanges.modelId": "model",
}
LISTS = ["jobs", "models", "deployments", "datasets", "files", "auditLog"]
LEDGERS = ["jobChanges", "deploymentChanges", "modelSunsets"]
JOB_STREAMS = ["jobEvents", "jobMetrics"]
CURSORS = {f"Query.{name}.after" for name in LISTS}
CURSORS |= {f"Subscription.{name}.after" for name in LEDGERS + JOB_STREAMS}
CURSORS |= {"Query.jobs.before", "Job.events.after", "Job.checkpoints.after"}
# The latter is looked up among the rows of the one file that the job itself names.
OF_NO_TENANT = {"Query.baseModels.after", "Job.examples.after"}
ROUTES = [
    ("GET", "/v1/files/{id}", "file"),
    ("GET", "/v1/files/{id}/content", "file"),
    ("DELETE", "/v1/files/{id}", "file"),
    ("GET", "/v1/models/{id}/content", "model"),
    ("GET", "/v1/models/{id}/content", "checkpoint"),
]


def like(id: str) -> str:
    """An id of the same kind that nobody has."""
    return ids.new(ids.prefix_of(id))


def blanked(text: str, id: str) -> str:
    return re.sub(r"req_[0-9a-f]{16}", "req", text.replace(id, "ID"))


def assert_no_trace_of(other: Populated, text: str) -> None:
    for kind, id in other.ids.items():
        assert id not in text, kind


async def heard(
    schema: GraphQLSchema,
    asker: Populated,
    name: str,
    *variables: dict[str, Any],
    wait_for: int = 0,
) -> list[list[str]]:
    """What the same subscription says to each of these variables, on one socket: until the last
    one has brought so many messages, and a little longer."""
    messages: list[list[str]] = [[] for _ in variables]
    async with asker.api.socket() as socket:

        async def receive() -> None:
            message = await socket.receive()
            messages[int(message.pop("id"))].append(json.dumps(message))

        for number, given in enumerate(variables):
            query = document(schema, f"Subscription.{name}", set(given), depth=2)
            await socket.send(
                id=str(number), type="subscribe", payload={"query": query, "variables": given}
            )
        async with asyncio.timeout(20):
            while len(messages[-1]) < wait_for:
                await receive()
        try:
            async with asyncio.timeout(0.3):
                while True:
                    await receive()
        except TimeoutError:
            return messages


@pytest.mark.parametrize(("path", "kind"), STREAMS.items(), ids=list(STREAMS))
async def test_a_stream_of_anothers_id_is_like_one_of_an_id_that_does_not_exist(
    path: str, kind: str, ours: Populated, theirs: Populated, schema: GraphQLSchema
) -> None:
    foreign, missing, own = theirs.ids[kind], like(theirs.ids[kind]), ours.ids[kind]
    variables = [merged(placed(path, id), {"after": "0"}) for id in (foreign, missing, own)]
    refused, unknown, allowed = await heard(
        schema, ours, path.split(".")[1], *variables, wait_for=1
    )
    expected = [blanked(message, missing) for message in unknown]
    assert [blanked(message, foreign) for message in refused] == expected
    assert (kind == "job") == ("JOB_NOT_FOUND" in "".join(unknown))
    assert '"next"' in allowed[0]  # with an id of our own the same subscription speaks
    assert "errors" not in allowed[0]


async def test_the_ledger_is_silent_about_what_another_tenant_does(
    ours: Populated, theirs: Populated, schema: GraphQLSchema
) -> None:
    async def act() -> None:
        await asyncio.sleep(0.1)
        for tenant in (theirs, ours):
            await tenant.api.act("pauseJob", tenant.ids["job"])
            await tenant.api.act("resumeJob", tenant.ids["job"])

    acting = asyncio.create_task(act())
    [changes] = await heard(schema, ours, "jobChanges", {}, wait_for=2)
    await acting
    assert_no_trace_of(theirs, "".join(changes))
    assert [json.loads(c)["payload"]["data"]["jobChanges"]["jobId"] for c in changes] == [
        ours.ids["job"]
    ] * 2


def test_every_cursor_argument_is_tried(schema: GraphQLSchema) -> None:
    assert cursor_arguments(schema) == CURSORS | OF_NO_TENANT


@pytest.mark.parametrize(("name", "side"), [*((n, "after") for n in LISTS), ("jobs", "before")])
async def test_a_cursor_of_anothers_list_opens_only_ones_own(
    name: str, side: str, ours: Populated, theirs: Populated, schema: GraphQLSchema
) -> None:
    info = "endCursor" if name == "auditLog" else "pageInfo { startCursor endCursor }"
    found = (await theirs.api.execute(f"{{ {name} {{ {info} }} }}"))[name]
    info = found.get("pageInfo", found)
    for cursor in {info["endCursor"], info.get("startCursor", info["endCursor"])}:
        query = document(schema, f"Query.{name}", {side}, depth=3)
        response = await ours.api.http.post(
            "/graphql", json={"query": query, "variables": {side: cursor}}
        )
        assert "errors" not in response.json(), response.text
        assert_no_trace_of(theirs, response.text)


async def test_a_cursor_of_anothers_stream_opens_only_ones_own(
    ours: Populated, theirs: Populated, schema: GraphQLSchema
) -> None:
    theirs_now = await theirs.api.execute(
        "query ($j: ID!) { viewer { organization { cursor } } job(id: $j) {"
        " events { edges { cursor } } checkpoints { edges { cursor } } } }",
        j=theirs.ids["job"],
    )
    job = theirs_now["job"]
    within = await ours.api.execute(
        "query ($j: ID!, $e: String, $c: String) { job(id: $j) {"
        " events(after: $e) { nodes { jobId data } } checkpoints(after: $c) { nodes { id } } } }",
        j=ours.ids["job"],
        e=job["events"]["edges"][0]["cursor"],
        c=job["checkpoints"]["edges"][0]["cursor"],
    )
    assert_no_trace_of(theirs, json.dumps(within))
    assert {event["jobId"] for event in within["job"]["events"]["nodes"]} == {ours.ids["job"]}
    ledger = theirs_now["viewer"]["organization"]["cursor"]
    for name in LEDGERS:
        assert_no_trace_of(theirs, str(await heard(schema, ours, name, {"after": ledger})))
    for name in JOB_STREAMS:
        given = {"jobId": ours.ids["job"], "after": job["events"]["edges"][0]["cursor"]}
        assert_no_trace_of(theirs, str(await heard(schema, ours, name, given)))


def test_every_route_that_takes_an_id_is_tried() -> None:
    routes = RestDoor(cast(Any, None), cast(Any, None)).routes()
    taking = {(m, r.path) for r in routes if "{" in r.path for m in r.methods or ()}
    tried = {(method, path) for method, path, _ in ROUTES}
    assert taking - tried <= {("HEAD", path) for _, path in tried}
    assert tried <= taking


@pytest.mark.parametrize(("method", "path", "kind"), ROUTES)
async def test_anothers_thing_is_answered_like_one_that_does_not_exist(
    method: str, path: str, kind: str, ours: Populated, theirs: Populated, owner: Owner
) -> None:
    before = await rows_of(owner, theirs.org_id), await rows_of(owner, ours.org_id)
    answers = []
    for id in (theirs.ids[kind], like(theirs.ids[kind])):
        response = await ours.api.http.request(method, path.format(id=id))
        assert response.status_code == 404
        answers.append((blanked(response.text, id), sorted(response.headers)))
    assert answers[0] == answers[1]
    assert (await rows_of(owner, theirs.org_id), await rows_of(owner, ours.org_id)) == before
    whole = await theirs.api.http.get(f"/v1/files/{theirs.ids['file']}/content")
    assert whole.status_code == 200


async def test_lists_over_rest_hold_nothing_of_another_tenant(
    ours: Populated, theirs: Populated
) -> None:
    page = await theirs.api.http.get("/v1/files", params={"limit": 1})
    cursor = page.json()["next_cursor"]
    for path in ("/v1/files?limit=200", f"/v1/files?after={cursor}", "/v1/models"):
        response = await ours.api.http.get(path)
        assert response.status_code == 200
        assert_no_trace_of(theirs, response.text)
    names = [model["id"] for model in (await ours.api.http.get("/v1/models")).json()["data"]]
    assert names == [ours.ids["model_name"]]


async def test_anothers_model_is_called_like_one_that_does_not_exist(
    ours: Populated, theirs: Populated
) -> None:
    answers = []
    for name in (theirs.ids["model_name"], "ft:smollm2-135m-instruct:test::nothing"):
        response = await ours.api.http.post(
            "/v1/chat/completions", json={"model": name, "messages": []}
        )
        answers.append((response.status_code, blanked(response.text, name)))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


async def test_deleting_a_file_leaves_the_same_bytes_of_another_tenant(
    ours: Populated, theirs: Populated
) -> None:
    kept, gone = [await tenant.api.upload("the same\n") for tenant in (theirs, ours)]
    assert (await ours.api.http.delete(f"/v1/files/{gone}")).status_code == 200
    content = await theirs.api.http.get(f"/v1/files/{kept}/content")
    assert content.text == "the same\n"
