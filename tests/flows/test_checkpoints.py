"""Checkpoints as models: kept by rule, deployed, shared, fetched, deleted."""

import io
import tarfile
from typing import Any

import pytest

from tests.events.tools import until as met
from tests.flows.stack import TINY, Stack, until
from tests.flows.test_flow import answers, deploy, question, undeploy
from tests.support import Api, chat_lines

pytestmark = [pytest.mark.train, pytest.mark.timeout(240)]

EVENTS = "subscription ($j: ID!, $a: String) { jobEvents(jobId: $j, after: $a) { type } }"
CHECKPOINTS = """query ($j: ID!) { job(id: $j) { model { id name step checkpointId }
  checkpointRetention { last bestByLoss bestByScore } bestCheckpoint { step }
  checkpoints { nodes { id step modelName downloadPath metrics { validationLoss }
    model { id name } permissions { projectId } } } } }"""


async def change(api: Api, verb: str, answer: str, **input: Any) -> dict[str, Any]:
    kind = verb[0].upper() + verb[1:]
    found = await api.execute(
        f"mutation ($i: {kind}Input!) {{ {verb}(input: $i)"
        f" {{ {answer} userErrors {{ code path }} }} }}",
        i=input,
    )
    payload: dict[str, Any] = found[verb]
    return payload


async def colleague(owner: Api, stack: Stack) -> tuple[Api, str]:
    """The key of another project of the same organization."""
    project = await change(owner, "createProject", "project { id }", name="elsewhere")
    id = project["project"]["id"]
    key = await change(
        owner,
        "createApiKey",
        "secret",
        name="there",
        projectId=id,
        scopes=["FINE_TUNING_READ", "FINE_TUNING_WRITE", "INFERENCE", "ADMIN"],
    )
    return Api(stack.url, key["secret"]), id


async def test_a_checkpoint_lives_as_a_model(owner: Api, stack: Stack) -> None:
    job = await owner.job_id(
        baseModel=TINY,
        trainingFile=await owner.upload(chat_lines(16)),
        validationFile=await owner.upload(chat_lines(6, "item")),
        suffix="kept",
        method={
            "supervised": {
                "hyperparameters": {"nEpochs": 3, "checkpointInterval": 1, "learningRate": 0.004}
            }
        },
        checkpointRetention={"last": 2, "bestByLoss": 1},
    )
    await until(owner, job, "SUCCEEDED")
    found = (await owner.execute(CHECKPOINTS, j=job))["job"]
    kept = found["checkpoints"]["nodes"]
    assert found["checkpointRetention"] == {"last": 2, "bestByLoss": 1, "bestByScore": 1}
    assert [node["step"] for node in kept[:2]] == [12, 11]
    assert len(kept) <= 3
    folders = [path.name for path in (stack.folder / "runs" / job).glob("*/checkpoint-*")]
    assert sorted(folders) == sorted(f"checkpoint-{node['step']}" for node in kept)
    losses = {node["step"]: node["metrics"]["validationLoss"] for node in kept}
    assert losses[found["bestCheckpoint"]["step"]] == min(losses.values())
    # The last checkpoint and the job's model are the same weights.
    assert found["model"]["checkpointId"] == kept[0]["id"]
    assert kept[0]["model"]["id"] == found["model"]["id"]

    early = kept[1]
    assert early["model"] is None
    assert early["modelName"].endswith(":ckpt-step-11")
    other, project = await colleague(owner, stack)
    async with other:
        await shared(owner, other, project, early)
    await fetched(owner, early, {"adapter_config.json", "adapter_model.safetensors"})
    await deleted(owner, early, stack)


async def shared(owner: Api, other: Api, project: str, early: dict[str, Any]) -> None:
    """A project without permission can neither deploy nor call it."""
    answer = "deployment { id model { id name checkpointId } }"
    foreign = await change(other, "deployModel", answer, modelId=early["id"])
    assert foreign["userErrors"][0]["code"] == "MODEL_NOT_FOUND"
    deployment = await deploy(owner, early["id"])
    await answers(owner, early["modelName"])
    refused = await other.http.post("/v1/chat/completions", json=question(early["modelName"]))
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert (await other.http.get(early["downloadPath"])).status_code == 404

    given = await change(
        owner,
        "grantCheckpointPermission",
        "permissions { id projectId }",
        checkpointId=early["id"],
        projectIds=[project],
    )
    assert [one["projectId"] for one in given["permissions"]] == [project]
    await answers(other, early["modelName"])
    again = await change(other, "deployModel", answer, modelId=early["id"])
    assert again["deployment"]["id"] == deployment
    assert again["deployment"]["model"]["name"] == early["modelName"]
    assert (await other.http.get(early["downloadPath"])).status_code == 200

    permission = given["permissions"][0]["id"]
    await change(owner, "revokeCheckpointPermission", "revokedId", id=permission)
    refused = await other.http.post("/v1/chat/completions", json=question(early["modelName"]))
    assert refused.status_code == 404
    await undeploy(owner, deployment)


async def fetched(owner: Api, early: dict[str, Any], names: set[str]) -> None:
    answer = await owner.http.get(early["downloadPath"])
    assert answer.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        inside = set(archive.getnames())
        extracted = archive.extractfile("adapter_model.safetensors")
        assert extracted is not None
        assert extracted.read(8) != b""
    assert names <= inside
    assert not any(name.endswith((".pt", ".pth", ".bin")) for name in inside)


async def deleted(owner: Api, early: dict[str, Any], stack: Stack) -> None:
    """Not while a model is made of it; then with its folder."""
    refused = await change(owner, "deleteCheckpoint", "deletedId", id=early["id"])
    assert refused["userErrors"][0]["code"] == "CHECKPOINT_IN_USE"
    node = "query ($c: ID!) { node(id: $c) { ... on Checkpoint { step model { id } } } }"
    model = (await owner.execute(node, c=early["id"]))["node"]["model"]["id"]
    await change(owner, "deleteModel", "deletedId", id=model)
    gone = await change(owner, "deleteCheckpoint", "deletedId", id=early["id"])
    assert gone == {"deletedId": early["id"], "userErrors": []}
    assert (await owner.execute(node, c=early["id"]))["node"] is None
    assert not list((stack.folder / "runs").glob("*/*/checkpoint-11"))


@pytest.mark.parametrize("keep", [pytest.param(True, marks=pytest.mark.soak), False])
async def test_a_cancelled_job_keeps_its_checkpoints_or_not(
    owner: Api, stack: Stack, keep: bool
) -> None:
    job = await owner.job_id(
        baseModel=TINY,
        trainingFile=await owner.upload(chat_lines(40)),
        method={"supervised": {"hyperparameters": {"nEpochs": 50, "checkpointInterval": 10}}},
    )
    async with owner.subscribe(EVENTS, j=job, a="0") as events:
        async for event in events:
            if event["jobEvents"]["type"] == "CHECKPOINT":
                break
    await owner.act("cancelJob", job, keepCheckpoints=keep)
    found = await until(owner, job, "CANCELLED")
    listed: Any = found["checkpoints"]
    assert bool(listed["nodes"]) == keep

    def kept() -> bool:
        return any((stack.folder / "runs" / job).glob("*/checkpoint-*"))

    # The disk is freed after the commit.
    await met(lambda: kept() == keep)
