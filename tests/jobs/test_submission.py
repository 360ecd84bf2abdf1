"""Submitting a job: everything is checked first, and a refusal leaves nothing behind."""

import asyncio
import json
from typing import Any

import pytest

from app.core.actor import Role, Scope
from app.core.database import Database
from app.core.settings import Settings
from tests.support import Api, Refusal, Tenant, all_rows, as_owner, chat_lines, key_with

JOB = """
query ($id: ID!) { job(id: $id) {
  id name description status requestedAction provider baseModel method hyperparameters
  resolvedHyperparameters suffix seed metadata hardware ownerId organizationId projectId
  trainingData { id caseCount } validationData { id } estimatedCost cost error { code } model { id }
  progress { step } latestMetrics { step } checkpoints { totalCount } resultFiles { id }
  attempts { number outcome workerId } isStale cursor createdAt startedAt finishedAt updatedAt
  events { nodes { type level message data } } } }
"""


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"supervised": {"hyperparameters": hyperparameters}}


async def refusal(
    api: Api, tenant: Tenant, database_url: str, **fields: Any
) -> tuple[str, list[str], str]:
    """Code, path and message of the one refusal; checks that no row came of it."""
    if not {"trainingData", "trainingFile"} & fields.keys():
        fields["trainingData"] = await api.dataset_version(chat_lines(12))
    before = await all_rows(database_url, tenant.actor.org_id)
    payload = await api.submit(**fields)
    assert payload["job"] is None
    [error] = payload["userErrors"]
    assert await all_rows(database_url, tenant.actor.org_id) == before
    return error["code"], error["path"], error["message"]


async def test_a_job_is_recorded_with_all_that_was_asked(api: Api, tenant: Tenant) -> None:
    training = await api.dataset_version(chat_lines(60))
    validation = await api.dataset_version(chat_lines(5, "held out"))
    payload = await api.submit(
        trainingData=training,
        validationData=validation,
        name="Router 7",
        description="Routes questions",
        suffix="router",
        seed="4294967295",
        metadata=[{"key": "team", "value": "billing"}],
        method=supervised(nEpochs=2, learningRate=1e-4, adapter="LORA", loraRank=8),
    )
    assert payload["userErrors"] == []
    assert payload["warnings"] == []
    assert payload["estimate"]["steps"] == 30
    job = (await api.execute(JOB, id=payload["job"]["id"]))["job"]
    assert job["id"].startswith("ftjob_")
    assert (job["name"], job["description"]) == ("Router 7", "Routes questions")
    assert (job["status"], job["requestedAction"], job["isStale"]) == ("PENDING", None, False)
    assert (job["provider"], job["method"]) == ("LOCAL", "supervised")
    assert job["baseModel"] == "smollm2-135m-instruct"
    assert (job["suffix"], job["seed"]) == ("router", "4294967295")
    assert job["metadata"] == {"team": "billing"}
    asked = job["hyperparameters"]
    assert (asked["n_epochs"], asked["learning_rate"], asked["lora_rank"]) == (2, 1e-4, 8)
    assert asked["batch_size"] == "auto"
    assert job["resolvedHyperparameters"] is None
    assert (job["trainingData"]["id"], job["validationData"]["id"]) == (training, validation)
    actor = tenant.actor
    assert (job["ownerId"], job["organizationId"]) == (actor.member_id, actor.org_id)
    assert job["projectId"] == actor.project_id
    for empty in ("progress", "latestMetrics", "error", "model", "startedAt", "finishedAt", "cost"):
        assert job[empty] is None, empty
    assert (job["checkpoints"]["totalCount"], job["resultFiles"]) == (0, [])
    assert job["attempts"] == [{"number": 1, "outcome": None, "workerId": None}]
    assert job["estimatedCost"] == 0.0
    assert job["createdAt"].endswith("Z")


async def test_what_is_left_out_is_chosen(api: Api) -> None:
    one, two = await api.submit(suffix="short"), await api.submit()
    assert one["job"]["name"].startswith("short ")
    assert two["job"]["name"].startswith("smollm2-135m-instruct ")
    assert 0 <= int(one["job"]["seed"]) < 2**31
    assert one["job"]["seed"] != two["job"]["seed"]


async def test_submitting_leaves_an_audit_row_and_an_event_on_both_streams(
    api: Api, tenant: Tenant, database_url: str
) -> None:
    id = await api.job_id(name="Audited", seed="7")
    org = tenant.actor.org_id
    [audit] = await as_owner(database_url, "SELECT * FROM audit WHERE object_id = :id", id=id)
    assert (audit["action"], audit["member_id"]) == ("job.submitted", tenant.actor.member_id)
    assert audit["key_id"] == tenant.actor.key_id
    assert audit["request_id"].startswith("req_")
    after = audit["after"] if isinstance(audit["after"], dict) else json.loads(audit["after"])
    assert (after["name"], after["seed"], after["cases"]) == ("Audited", 7, 12)
    assert len(after["sha256"]) == 64
    events = await as_owner(
        database_url,
        "SELECT stream_id, seq, type, data ->> 'after' AS after, data ->> 'jobId' AS job"
        " FROM events WHERE org_id = :org ORDER BY stream_id, seq",
        org=org,
    )
    mine = [e for e in events if e["stream_id"] == id]
    assert [e["seq"] for e in mine] == [1, 2, 3]
    assert [e["type"] for e in mine] == ["message", "message", "job.status"]
    assert (mine[-1]["after"], mine[-1]["job"]) == ("pending", id)
    [ledger] = [e for e in events if e["stream_id"] == org]
    assert (ledger["type"], ledger["after"], ledger["job"]) == ("job.status", "pending", id)


async def test_warnings_are_returned_and_become_events(api: Api) -> None:
    payload = await api.submit()
    few, alone = payload["warnings"]
    assert "Only 12 cases" in few
    assert "No validation data" in alone
    job = (await api.execute(JOB, id=payload["job"]["id"]))["job"]
    said = [(n["level"], n["message"]) for n in job["events"]["nodes"] if n["type"] == "MESSAGE"]
    assert said == [("WARN", few), ("WARN", alone)]


@pytest.mark.parametrize("form", ["versions", "files"])
async def test_validation_cases_that_are_trained_on_are_warned_about(api: Api, form: str) -> None:
    training = chat_lines(60)
    validation = "\n".join([*chat_lines(4, "new").splitlines(), *training.splitlines()[:9]])
    if form == "versions":
        data = {
            "trainingData": await api.dataset_version(training),
            "validationData": await api.dataset_version(validation),
        }
    else:
        data = {
            "trainingFile": await api.upload(training),
            "validationFile": await api.upload(validation),
        }
    for dry in (True, False):
        [warning] = (await api.submit(**data, dryRun=dry))["warnings"]
        assert warning.startswith("9 validation cases are in the training data too")
        assert "line 5, 6, 7, 8, 9, …" in warning
    clean = await api.dataset_version(chat_lines(3, "clean"))
    apart = await api.submit(**{next(iter(data)): next(iter(data.values()))}, validationData=clean)
    assert apart["warnings"] == []


async def test_a_dry_run_estimates_and_creates_nothing(
    api: Api, tenant: Tenant, database_url: str
) -> None:
    file = await api.upload(chat_lines(60))
    before = await all_rows(database_url, tenant.actor.org_id)
    payload = await api.submit(
        trainingFile=file, dryRun=True, idempotencyKey="dry", method=supervised(nEpochs=3)
    )
    assert (payload["job"], payload["userErrors"]) == (None, [])
    assert payload["estimate"]["steps"] == 45
    assert int(payload["estimate"]["tokens"]) > 180
    assert await all_rows(database_url, tenant.actor.org_id) == before
    assert (await api.submit(trainingFile=file, idempotencyKey="dry"))["job"] is not None


async def test_a_training_file_becomes_one_dataset_version(api: Api) -> None:
    file = await api.upload(chat_lines(12), "mine.jsonl")
    ids = [await api.job_id(trainingFile=file) for _ in range(2)]
    jobs = [(await api.execute(JOB, id=id))["job"] for id in ids]
    assert jobs[0]["trainingData"] == jobs[1]["trainingData"]
    data = await api.execute("{ datasets { nodes { name } } }")
    assert data["datasets"]["nodes"] == [{"name": "mine.jsonl"}]


RANGES: list[tuple[str, Any, str]] = [
    *[("nEpochs", bad, "from 1 to 50") for bad in (0, -1, 51)],
    *[("batchSize", bad, "from 1 to 256") for bad in (0, -4, 257)],
    *[("learningRate", bad, "from 0 to 1") for bad in (0, -1e-4, 1.01)],
    *[("learningRateMultiplier", bad, "from 0 to 100") for bad in (0, 101)],
    *[("warmupSteps", bad, "from 0 to 1000000") for bad in (-1, 1_000_001)],
    *[("loraRank", bad, "from 1 to 256") for bad in (0, 257)],
    *[("maxLength", bad, "from 16 to 32768") for bad in (15, 32_769)],
    *[("checkpointInterval", bad, "from 1 on") for bad in (0, -5)],
    *[("evalInterval", bad, "from 1 on") for bad in (0, -5)],
]


@pytest.mark.parametrize(("name", "value", "allowed"), RANGES)
async def test_a_bad_hyperparameter_is_refused_by_name_with_its_range(
    api: Api, tenant: Tenant, database_url: str, name: str, value: Any, allowed: str
) -> None:
    code, path, message = await refusal(
        api, tenant, database_url, method=supervised(**{name: value})
    )
    assert code == "HYPERPARAMETER_INVALID"
    assert path == ["method", "supervised", "hyperparameters", name]
    assert message.startswith(f"{name}: ")
    assert allowed in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "together",
    [
        {"learningRate": 1e-4, "learningRateMultiplier": 2},
        {"adapter": "FULL", "loraRank": 4},
    ],
)
async def test_hyperparameters_that_contradict_each_other_are_refused(
    api: Api, tenant: Tenant, database_url: str, together: dict[str, Any]
) -> None:
    code, _, message = await refusal(api, tenant, database_url, method=supervised(**together))
    assert code == "HYPERPARAMETER_INVALID"
    assert "leave" in message


WRONG: dict[str, list[Any]] = {
    "nEpochs": [1.5, True, "3", "x" * 999, [], {"a": 1}],
    "learningRate": ["1e-4", True],
    "adapter": ["qlora", 1],
    "epochs": [1],
    "n_epochs": [1],
    "x" * 500: [1],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, bad) for name, values in WRONG.items() for bad in values]
)
async def test_a_hyperparameter_of_the_wrong_kind_is_refused_by_name(
    api: Api, tenant: Tenant, database_url: str, name: str, value: Any
) -> None:
    data = await api.dataset_version(chat_lines(12))
    before = await all_rows(database_url, tenant.actor.org_id)
    with pytest.raises(Refusal) as refused:
        await api.submit(trainingData=data, method=supervised(**{name: value}))
    assert refused.value.code == "INVALID_INPUT"
    assert name[:60] in refused.value.errors[0]["message"]
    assert await all_rows(database_url, tenant.actor.org_id) == before


async def test_ten_submissions_at_once_with_one_key_make_one_job(
    api: Api, tenant: Tenant, database_url: str
) -> None:
    data = await api.dataset_version(chat_lines(12))
    made = await asyncio.gather(
        *(api.submit(trainingData=data, idempotencyKey="k", name="one") for _ in range(10))
    )
    assert [m["userErrors"] for m in made] == [[]] * 10
    assert len({m["job"]["id"] for m in made}) == 1
    rows = await all_rows(database_url, tenant.actor.org_id)
    assert (rows["jobs"], rows["attempts"], rows["idempotency"]) == (1, 1, 1)


async def test_ten_submissions_at_once_of_one_file_share_its_dataset_version(
    api: Api, tenant: Tenant, database_url: str
) -> None:
    file = await api.upload(chat_lines(12))
    made = await asyncio.gather(
        *(api.submit(trainingFile=file, idempotencyKey="k") for _ in range(10))
    )
    assert [m["userErrors"] for m in made] == [[]] * 10
    assert len({m["job"]["id"] for m in made}) == 1
    rows = await all_rows(database_url, tenant.actor.org_id)
    assert (rows["jobs"], rows["dataset_versions"]) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"seed": "8"},
        {"suffix": "other"},
        {"metadata": [{"key": "a", "value": "b"}]},
        {"method": supervised(nEpochs=1)},
    ],
)
async def test_the_same_key_with_other_input_is_refused(
    api: Api, tenant: Tenant, database_url: str, change: dict[str, Any]
) -> None:
    data = await api.dataset_version(chat_lines(12))
    asked: dict[str, Any] = {"trainingData": data, "seed": "7", "idempotencyKey": "k"}
    first = await api.job_id(**asked)
    code, path, _ = await refusal(api, tenant, database_url, **(asked | change))
    assert (code, path) == ("IDEMPOTENCY_MISMATCH", ["idempotencyKey"])
    assert await api.job_id(**asked) == first


async def test_a_key_belongs_to_its_tenant(api: Api, server: str, other_tenant: Tenant) -> None:
    mine = await api.job_id(idempotencyKey="shared")
    async with Api(server, other_tenant.key) as other:
        assert await other.job_id(idempotencyKey="shared") != mine


async def test_submitting_needs_the_role_admin(
    server: str, database: Database, settings: Settings, tenant: Tenant
) -> None:
    key = await key_with(database, settings, tenant, Role.MEMBER, Scope.READ, Scope.WRITE)
    async with Api(server, key) as member:
        with pytest.raises(Refusal) as refused:
            await member.submit()
        assert refused.value.code == "FORBIDDEN"
