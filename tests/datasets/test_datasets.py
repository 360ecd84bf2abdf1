"""Datasets through the API: validated before they exist, immutable and content-addressed after."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from app.core.actor import Role, Scope
from app.core.database import Database
from app.core.settings import Settings
from tests.support import Api, Refusal, Tenant, all_rows, as_owner, chat_line, chat_lines, key_with

CREATE = """
mutation ($i: CreateDatasetInput!) { createDataset(input: $i) {
  dataset { id name description latestVersion { id } }
  version { id number sha256 caseCount description file { id filename sha256 }
            report { format caseCount tokenCount tokenizer longestCaseTokens duplicateCount
                     duplicateLines problems { line } warnings } }
  userErrors { __typename code message path
               ... on DatasetInvalidError { problemCount problems { line field reason } } } } }
"""
ADD = """
mutation ($i: AddDatasetVersionInput!) { addDatasetVersion(input: $i) {
  version { id number sha256 description } userErrors { __typename code path } } }
"""
DELETE = """
mutation ($i: DeleteDatasetInput!) { deleteDataset(input: $i) {
  deletedId userErrors { __typename code message path } } }
"""


async def create(api: Api, source: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = await api.execute(CREATE, i={"name": "cases", "source": source, **more})
    payload: dict[str, Any] = answer["createDataset"]
    return payload


async def add(api: Api, dataset: str, content: str, **more: Any) -> dict[str, Any]:
    asked = {"datasetId": dataset, "source": {"jsonl": content}, **more}
    payload: dict[str, Any] = (await api.execute(ADD, i=asked))["addDatasetVersion"]
    return payload


async def test_a_dataset_is_made_from_an_uploaded_file(api: Api) -> None:
    content = chat_lines(60)
    file = await api.upload(content, "sixty.jsonl")
    made = await create(api, {"fileId": file}, description="support questions")
    version = made["version"]
    assert made["userErrors"] == []
    assert made["dataset"]["description"] == "support questions"
    assert made["dataset"]["latestVersion"] == {"id": version["id"]}
    assert (version["number"], version["caseCount"]) == (1, 60)
    assert version["sha256"] == hashlib.sha256(content.encode()).hexdigest()
    assert version["file"] == {"id": file, "filename": "sixty.jsonl", "sha256": version["sha256"]}
    report = version["report"]
    assert (report["format"], report["caseCount"], report["problems"]) == ("CHAT", 60, [])
    assert int(report["tokenCount"]) > 60
    assert report["warnings"] == []


async def test_a_broken_line_is_named_with_field_and_reason_and_nothing_is_made(
    api: Api, tenant: Tenant, database_url: str
) -> None:
    before = await all_rows(database_url, tenant.actor.org_id)
    lines = [*chat_lines(6).splitlines(), '{"messages": [{"role": "robot", "content": "x"}]}', "{"]
    made = await create(api, {"jsonl": "\n".join(lines)})
    assert (made["dataset"], made["version"]) == (None, None)
    [error] = made["userErrors"]
    assert (error["__typename"], error["code"]) == ("DatasetInvalidError", "DATASET_INVALID")
    assert error["problemCount"] == 2
    assert [(p["line"], p["field"]) for p in error["problems"]] == [
        (7, "messages[0].role"),
        (8, ""),
    ]
    assert error["message"].startswith("Line 7, field messages[0].role: Must be one of system")
    assert "And 1 more." in error["message"]
    assert await all_rows(database_url, tenant.actor.org_id) == before


@pytest.mark.parametrize(
    ("source", "code", "path"),
    [
        ({"jsonl": ""}, "FILE_EMPTY", ["file"]),
        ({"jsonl": "\n"}, "DATASET_INVALID", ["source"]),
        ({"jsonl": "[" * 50_000}, "DATASET_INVALID", ["source"]),
        ({"fileId": "file_nothere"}, "FILE_NOT_FOUND", None),
        ({"path": "/etc/passwd"}, "PATH_NOT_ALLOWED", ["source", "path"]),
        ({"path": ""}, "PATH_NOT_ALLOWED", ["source", "path"]),
        ({"path": "a\0b"}, "PATH_NOT_ALLOWED", ["source", "path"]),
        ({"path": "~/cases.jsonl"}, "PATH_NOT_ALLOWED", ["source", "path"]),
        ({"path": "~nobody-by-this-name/x"}, "PATH_NOT_ALLOWED", ["source", "path"]),
    ],
)
async def test_a_bad_source_is_refused_and_leaves_no_row(
    api: Api, tenant: Tenant, database_url: str, source: Any, code: str, path: list[str] | None
) -> None:
    before = await all_rows(database_url, tenant.actor.org_id)
    made = await create(api, source)
    assert [(e["code"], e["path"]) for e in made["userErrors"]] == [(code, path)]
    assert await all_rows(database_url, tenant.actor.org_id) == before


@pytest.mark.parametrize("name", ["", "   ", "x" * 201])
async def test_a_bad_name_is_refused_and_leaves_no_row(
    api: Api, tenant: Tenant, database_url: str, name: str
) -> None:
    before = await all_rows(database_url, tenant.actor.org_id)
    made = await create(api, {"jsonl": chat_lines(2)}, name=name)
    assert [(e["code"], e["path"]) for e in made["userErrors"]] == [("INVALID_INPUT", ["name"])]
    assert await all_rows(database_url, tenant.actor.org_id) == before


@pytest.mark.parametrize("source", [{}, {"jsonl": "x", "path": "y"}, {"jsonl": None}, None])
async def test_a_source_is_exactly_one_thing(api: Api, source: Any) -> None:
    with pytest.raises(Refusal) as refused:
        await create(api, source)
    assert refused.value.code in ("GRAPHQL_VALIDATION_FAILED", "INVALID_INPUT")


async def test_a_server_side_path_inside_the_allowed_folder_is_read(
    api: Api, settings: Settings
) -> None:
    folder = settings.dataset_roots[0] / "deep"
    folder.mkdir(exist_ok=True)
    (folder / "allowed.jsonl").write_text(chat_lines(5, "path"))
    made = await create(api, {"path": str(folder / "allowed.jsonl")})
    assert made["userErrors"] == []
    assert made["version"]["caseCount"] == 5
    assert made["version"]["file"]["filename"] == "allowed.jsonl"
    through = await create(api, {"path": str(folder / ".." / "deep" / "allowed.jsonl")})
    assert through["version"]["sha256"] == made["version"]["sha256"]


async def test_no_path_leads_out_of_the_allowed_folder(
    api: Api, settings: Settings, tmp_path: Path, tenant: Tenant, database_url: str
) -> None:
    root = settings.dataset_roots[0]
    secret = tmp_path / "secret.jsonl"
    secret.write_text(chat_lines(3))
    link, folder_link = root / "link.jsonl", root / "folder"
    beside = root.parent / f"{root.name}-beside"
    beside.mkdir(exist_ok=True)
    (beside / "x.jsonl").write_text(chat_lines(3))
    if not link.is_symlink():
        link.symlink_to(secret)
        folder_link.symlink_to(tmp_path)
    before = await all_rows(database_url, tenant.actor.org_id)
    for path in (
        secret,
        link,
        folder_link / "secret.jsonl",
        root / ".." / root.name / ".." / "owner-key",
        f"{root}/../../../../../../etc/passwd",
        beside / "x.jsonl",
    ):
        made = await create(api, {"path": str(path)})
        assert [e["code"] for e in made["userErrors"]] == ["PATH_NOT_ALLOWED"], path
    for path in (root, root / "missing.jsonl", root / ("x" * 5_000)):
        made = await create(api, {"path": str(path)})
        assert [e["code"] for e in made["userErrors"]] == ["INVALID_INPUT"], path
    link.unlink()
    folder_link.unlink()
    assert await all_rows(database_url, tenant.actor.org_id) == before


async def test_a_version_is_addressed_by_its_content(api: Api) -> None:
    made = await create(api, {"jsonl": chat_lines(3, "first")})
    dataset, first = made["dataset"]["id"], made["version"]
    second = (await add(api, dataset, chat_lines(4, "second"), description="more"))["version"]
    assert (second["number"], second["description"]) == (2, "more")
    again = (await add(api, dataset, chat_lines(3, "first"), description="ignored"))["version"]
    assert (again["id"], again["number"], again["description"]) == (first["id"], 1, None)
    data = await api.execute(
        "query ($d: ID!, $v: ID!) { dataset(id: $d) { versions { id number } latestVersion { id } }"
        " datasetVersion(id: $v) { id dataset { id } } }",
        d=dataset,
        v=first["id"],
    )
    assert [v["number"] for v in data["dataset"]["versions"]] == [2, 1]
    assert data["dataset"]["latestVersion"]["id"] == second["id"]
    assert data["datasetVersion"] == {"id": first["id"], "dataset": {"id": dataset}}


async def test_ten_versions_added_at_once_are_numbered_without_gap(api: Api) -> None:
    dataset = (await create(api, {"jsonl": chat_lines(2, "base")}))["dataset"]["id"]
    made = await asyncio.gather(*(add(api, dataset, chat_lines(2, f"v{n}")) for n in range(10)))
    assert sorted(m["version"]["number"] for m in made) == list(range(2, 12))
    same = await asyncio.gather(*(add(api, dataset, chat_lines(2, "same")) for _ in range(10)))
    assert {m["version"]["number"] for m in same} == {12}


@pytest.mark.parametrize("role", ["luthier_app", "luthier_worker"])
async def test_no_role_of_the_service_can_change_a_version(
    api: Api, tenant: Tenant, database_url: str, role: str
) -> None:
    version = await api.dataset_version(chat_lines(2))
    with pytest.raises(Exception, match="permission denied"):
        await as_owner(
            database_url,
            f"DO $$ BEGIN SET LOCAL ROLE {role};"
            f" UPDATE dataset_versions SET sha256 = '' WHERE id = '{version}'; END $$",
        )


async def test_the_same_idempotency_key_gives_the_same_dataset(
    api: Api, tenant: Tenant, database_url: str
) -> None:
    asked: dict[str, Any] = {"source": {"jsonl": chat_lines(3)}, "idempotencyKey": "once"}
    made = await asyncio.gather(*(create(api, **asked) for _ in range(8)))
    assert len({m["dataset"]["id"] for m in made}) == 1
    assert len({m["version"]["id"] for m in made}) == 1
    rows = await all_rows(database_url, tenant.actor.org_id)
    assert (rows["datasets"], rows["dataset_versions"], rows["files"]) == (1, 1, 1)


@pytest.mark.parametrize(
    "change",
    [{"source": {"jsonl": chat_lines(4)}}, {"name": "other"}, {"description": "other"}],
)
async def test_the_same_idempotency_key_with_other_input_is_refused(
    api: Api, tenant: Tenant, database_url: str, change: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"source": {"jsonl": chat_lines(3)}, "idempotencyKey": "once"}
    await create(api, **asked)
    before = await all_rows(database_url, tenant.actor.org_id)
    refused = await create(api, **(asked | change))
    assert [e["code"] for e in refused["userErrors"]] == ["IDEMPOTENCY_MISMATCH"]
    assert refused["dataset"] is None
    assert await all_rows(database_url, tenant.actor.org_id) == before


async def test_an_answer_kept_by_its_key_outlives_later_versions(api: Api) -> None:
    asked: dict[str, Any] = {"source": {"jsonl": chat_lines(3)}, "idempotencyKey": "once"}
    first = await create(api, **asked)
    await add(api, first["dataset"]["id"], chat_lines(9))
    assert (await create(api, **asked))["version"]["id"] == first["version"]["id"]


async def test_a_dataset_that_a_job_is_pinned_to_stays(
    api: Api, tenant: Tenant, database_url: str
) -> None:
    made = await create(api, {"jsonl": chat_lines(12)})
    dataset = made["dataset"]["id"]
    await api.job_id(trainingData=made["version"]["id"])
    before = await all_rows(database_url, tenant.actor.org_id)
    refused = (await api.execute(DELETE, i={"id": dataset}))["deleteDataset"]
    assert (refused["deletedId"], refused["userErrors"][0]["code"]) == (None, "DATASET_IN_USE")
    assert await all_rows(database_url, tenant.actor.org_id) == before


async def test_a_free_dataset_is_deleted_with_its_versions(
    api: Api, tenant: Tenant, database_url: str
) -> None:
    dataset = (await create(api, {"jsonl": chat_lines(2)}))["dataset"]["id"]
    await add(api, dataset, chat_lines(3))
    gone = (await api.execute(DELETE, i={"id": dataset}))["deleteDataset"]
    assert gone == {"deletedId": dataset, "userErrors": []}
    rows = await all_rows(database_url, tenant.actor.org_id)
    assert (rows["datasets"], rows["dataset_versions"]) == (0, 0)
    again = (await api.execute(DELETE, i={"id": dataset}))["deleteDataset"]
    assert [e["code"] for e in again["userErrors"]] == ["DATASET_NOT_FOUND"]
    actions = await as_owner(
        database_url,
        "SELECT action FROM audit WHERE org_id = :o AND object_id = :d ORDER BY id",
        o=tenant.actor.org_id,
        d=dataset,
    )
    assert [row["action"] for row in actions] == ["dataset.created", "dataset.deleted"]


async def test_deleting_needs_the_owner_and_creating_the_scope(
    api: Api, server: str, database: Database, settings: Settings, tenant: Tenant
) -> None:
    dataset = (await create(api, {"jsonl": chat_lines(2)}))["dataset"]["id"]
    admin = await key_with(database, settings, tenant, Role.ADMIN, Scope.READ, Scope.WRITE)
    async with Api(server, admin) as other:
        with pytest.raises(Refusal) as refused:
            await other.execute(DELETE, i={"id": dataset})
        assert refused.value.code == "FORBIDDEN"
    reader = await key_with(database, settings, tenant, Role.OWNER, Scope.READ)
    async with Api(server, reader) as other:
        with pytest.raises(Refusal) as refused:
            await create(other, {"jsonl": chat_lines(2)})
        assert refused.value.code == "FORBIDDEN"


async def test_nothing_of_another_tenant_can_be_used(
    api: Api, server: str, other_tenant: Tenant
) -> None:
    file = await api.upload(chat_line("q", "a"))
    dataset = (await create(api, {"jsonl": chat_lines(2)}))["dataset"]["id"]
    async with Api(server, other_tenant.key) as other:
        assert (await create(other, {"fileId": file}))["userErrors"][0]["code"] == "FILE_NOT_FOUND"
        added = await add(other, dataset, chat_lines(3))
        assert added["userErrors"][0]["code"] == "DATASET_NOT_FOUND"
        data = await other.execute("query ($d: ID!) { dataset(id: $d) { id } }", d=dataset)
        assert data == {"dataset": None}
