"""Another tenant's id is answered exactly like one that does not exist, wherever an id goes in.

The table is checked against the schema: a new argument that takes an id fails the first test until
it has its row here. Streams, cursors and REST are in test_tenant_streams.py.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from graphql import GraphQLSchema

from app.core import ids
from app.core.database import Database
from app.core.settings import Settings
from tests.api.documents import document, id_arguments, merged, placed
from tests.populated import Owner, Populated, populated, rows_of
from tests.support import chat_lines

JSONL = {"jsonl": chat_lines(3, "new")}
BASE = "smollm2-135m-instruct"
LISTS = {"first": 200}


@dataclass(frozen=True)
class Case:
    """Where an id goes in, what kind of id, and the other arguments (`$kind`: an id of our own)."""

    path: str
    kind: str
    more: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.path}={self.kind}"


def _input(path: str, kind: str, **more: Any) -> Case:
    return Case(f"Mutation.{path}", kind, {"input": more})


GRADER = {
    "stringCheck": {
        "name": "same",
        "input": "{{ sample.output_text }}",
        "reference": "yes",
        "operation": "EQ",
    }
}
KINDS = ["job", "model", "deployment", "dataset", "version", "file", "checkpoint"]
KINDS += ["key", "member", "project", "org"]

READS = [
    Case("Query.job.id", "job"),
    Case("Query.compareJobs.ids", "job"),
    Case("Query.model.id", "model"),
    Case("Query.dataset.id", "dataset"),
    Case("Query.datasetVersion.id", "version"),
    Case("Query.jobs.filter.datasetVersionId", "version", LISTS),
    Case("Query.jobs.filter.ownerId", "owner", LISTS),
    Case("Query.stats.filter.datasetVersionId", "version", {"groupBy": "STATUS"}),
    Case("Query.stats.filter.ownerId", "owner", {"interval": "DAY"}),
    Case("Query.estimateCost.input.trainingData", "version", {"input": {"baseModel": BASE}}),
    Case("Query.models.filter.jobId", "job", LISTS),
    Case("Query.deployments.modelId", "model", LISTS),
    Case("Query.auditLog.filter.objectId", "job", LISTS),
    *(Case("Query.node.id", kind) for kind in KINDS),
    *(Case("Query.nodes.ids", kind) for kind in KINDS),
]

MUTATIONS = [
    _input("submitJob.input.trainingData", "version", baseModel=BASE),
    _input("submitJob.input.trainingFile", "file", baseModel=BASE),
    _input(
        "submitJob.input.validationData", "second_version", baseModel=BASE, trainingData="$version"
    ),
    _input("submitJob.input.validationFile", "file", baseModel=BASE, trainingData="$version"),
    _input(
        "submitJob.input.evaluation.data",
        "version",
        baseModel=BASE,
        trainingData="$second_version",
        evaluation={"graders": [{"name": "same", "grader": GRADER}]},
    ),
    _input("pauseJob.input.id", "job"),
    _input("resumeJob.input.id", "job"),
    _input("cancelJob.input.id", "job"),
    _input("correctJob.input.id", "job", status="FAILED", reason="it was wrong"),
    _input("restartJob.input.id", "job", fromScratch=True, idempotencyKey="again"),
    _input("rerunJob.input.id", "job", idempotencyKey="again"),
    _input("deployModel.input.modelId", "model", idempotencyKey="deploy"),
    _input("deleteCheckpoint.input.id", "checkpoint"),
    _input("grantCheckpointPermission.input.checkpointId", "checkpoint", projectIds=["$project"]),
    _input("grantCheckpointPermission.input.projectIds", "project", checkpointId="$checkpoint"),
    _input("revokeCheckpointPermission.input.id", "permission"),
    _input("createDataset.input.source.fileId", "file", name="copy"),
    _input("addDatasetVersion.input.datasetId", "dataset", source=JSONL),
    _input("addDatasetVersion.input.source.fileId", "file", datasetId="$dataset"),
    _input("createApiKey.input.memberId", "member", name="new", scopes=["ADMIN"]),
    _input("createApiKey.input.projectId", "project", name="new", scopes=["ADMIN"]),
    _input("setMember.input.id", "member", name="taken over", role="OWNER"),
    _input("revokeApiKey.input.id", "key"),
    _input("undeployModel.input.deploymentId", "deployment"),
    _input("deleteModel.input.id", "model"),
    _input("deleteDataset.input.id", "dataset"),
    _input("deleteJob.input.id", "job"),
]

ELSEWHERE = {  # tested in test_tenant_streams.py
    "Subscription.jobEvents.jobId",
    "Subscription.jobMetrics.jobId",
    "Subscription.jobChanges.filter.datasetVersionId",
    "Subscription.jobChanges.filter.ownerId",
    "Subscription.deploymentChanges.modelId",
}


async def answer(schema: GraphQLSchema, asker: Populated, case: Case, id: str) -> tuple[int, str]:
    """Status and body, with the id asked for and what is the request's own blanked."""
    variables = merged(placed(case.path, id), asker.filled(case.more))
    root = ".".join(case.path.split(".")[:2])
    query = document(schema, root, set(variables), depth=2)
    body = {"query": query, "variables": variables}
    response = await asker.api.http.post("/graphql", json=body)
    text = re.sub(r'req_[0-9a-f]{16}|"remaining":\d+', "own", response.text.replace(id, "ID"))
    return response.status_code, text


def like(id: str) -> str:
    """An id of the same kind that nobody has."""
    return ids.new(ids.prefix_of(id))


def test_every_argument_that_takes_an_id_is_in_the_matrix(schema: GraphQLSchema) -> None:
    known = {case.path for case in [*READS, *MUTATIONS]} | ELSEWHERE
    assert id_arguments(schema) == known


@pytest.mark.parametrize("case", [*READS, *MUTATIONS], ids=str)
async def test_anothers_id_is_answered_like_one_that_does_not_exist(
    case: Case, ours: Populated, theirs: Populated, schema: GraphQLSchema, owner: Owner
) -> None:
    before = await rows_of(owner, theirs.org_id), await rows_of(owner, ours.org_id)
    foreign = theirs.ids[case.kind]
    refused = await answer(schema, ours, case, foreign)
    unknown = await answer(schema, ours, case, like(foreign))
    assert refused == unknown
    assert "GRAPHQL_" not in unknown[1]  # the document itself is good
    assert "INTERNAL" not in unknown[1]
    for other in theirs.ids.values():
        assert other not in refused[1]
    assert (await rows_of(owner, theirs.org_id), await rows_of(owner, ours.org_id)) == before


async def test_ones_own_ids_are_answered_differently(
    server: str,
    database: Database,
    worker_database: Database,
    settings: Settings,
    schema: GraphQLSchema,
) -> None:
    """Otherwise the matrix would prove nothing."""
    nothing_to_see = {"checkpoint", "key", "member", "project", "org"}  # node knows none of these
    async with populated(server, database, worker_database, settings) as us:
        for case in [*READS, *MUTATIONS]:
            if case.path.startswith("Query.node") and case.kind in nothing_to_see:
                continue
            own = us.ids[case.kind]
            unknown = await answer(schema, us, case, like(own))
            assert await answer(schema, us, case, own) != unknown, str(case)


async def test_an_idempotency_key_of_another_tenant_is_a_new_one(
    ours: Populated, theirs: Populated
) -> None:
    """Both used the key "the same" for their jobs, each with its own data."""
    again = await ours.api.submit(trainingData=ours.ids["version"], idempotencyKey="the same")
    assert again["job"]["id"] == ours.ids["job"] != theirs.ids["job"]


async def test_lists_hold_nothing_of_another_tenant(
    ours: Populated, theirs: Populated, schema: GraphQLSchema
) -> None:
    lists = ["jobs", "models", "deployments", "datasets", "files", "auditLog"]
    whole = ["viewer", "projects", "members", "apiKeys", "stats", "hardware", "providers"]
    for name in lists + whole:
        given = {"first": 10} if name in lists else {}
        query = document(schema, f"Query.{name}", set(given), depth=3)
        response = await ours.api.http.post("/graphql", json={"query": query, "variables": given})
        assert response.status_code == 200
        assert "errors" not in response.json(), response.text
        for kind, id in theirs.ids.items():
            assert id not in response.text, (name, kind)
