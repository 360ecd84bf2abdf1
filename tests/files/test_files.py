"""Files over HTTP: streamed in, shared by content, never left half done."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.core.actor import Role, Scope
from app.core.database import Database
from app.core.settings import Settings
from tests.support import Api, Tenant, all_rows, as_owner, chat_lines, key_with

BOUNDARY = "cases"
CONTENT = (chat_lines(3) + "\n").encode()


def form(content: bytes, *, purpose: str | None = "fine-tune", name: str = "file") -> bytes:
    """A multipart body, as a browser writes it."""
    parts = []
    if purpose is not None:
        parts.append(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'
            f"{purpose}\r\n".encode()
        )
    disposition = f'form-data; name="{name}"; filename="a.jsonl"'
    parts.append(
        f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"
    )
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def head(key: str, *more: str) -> bytes:
    lines = [
        "POST /v1/files HTTP/1.1",
        "Host: luthier",
        f"X-API-Key: {key}",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def stored(settings: Settings, tenant: Tenant) -> list[Path]:
    """Everything that lies in the tenant's folder, partial uploads too."""
    folder = settings.data_dir / "files" / tenant.actor.org_id
    return sorted(folder.iterdir()) if folder.exists() else []


def partials(settings: Settings, tenant: Tenant) -> list[Path]:
    return [path for path in stored(settings, tenant) if path.name.startswith(".")]


async def references(database_url: str, tenant: Tenant) -> list[int]:
    rows = await as_owner(
        database_url,
        'SELECT "references" AS n FROM blobs WHERE org_id = :org',
        org=tenant.actor.org_id,
    )
    return [row["n"] for row in rows]


async def raw(server: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(server)
    return await asyncio.open_connection(url.hostname, url.port)


async def test_an_upload_is_hashed_and_kept_as_sent(
    api: Api, settings: Settings, tenant: Tenant
) -> None:
    response = await api.http.post(
        "/v1/files", files={"file": ("../odd/cases.jsonl", CONTENT)}, data={"purpose": "fine-tune"}
    )
    file = response.json()
    assert response.status_code == 200
    assert file["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert (file["bytes"], file["filename"]) == (len(CONTENT), "cases.jsonl")
    assert (file["object"], file["purpose"], file["status"]) == ("file", "fine-tune", "processed")
    assert [path.name for path in stored(settings, tenant)] == [file["sha256"]]
    assert (await api.http.get(f"/v1/files/{file['id']}")).json() == file
    content = await api.http.get(f"/v1/files/{file['id']}/content")
    assert content.content == CONTENT
    listed = (await api.http.get("/v1/files")).json()
    assert [row["id"] for row in listed["data"]] == [file["id"]]


async def test_the_same_content_twice_shares_its_bytes(
    api: Api, settings: Settings, tenant: Tenant, database_url: str
) -> None:
    one, two = await api.upload(CONTENT), await api.upload(CONTENT, "other.jsonl")
    assert one != two
    assert await references(database_url, tenant) == [2]
    assert len(stored(settings, tenant)) == 1
    assert (await api.http.delete(f"/v1/files/{one}")).json()["deleted"] is True
    assert await references(database_url, tenant) == [1]
    assert (await api.http.get(f"/v1/files/{one}")).status_code == 404
    assert (await api.http.get(f"/v1/files/{two}/content")).content == CONTENT
    assert (await api.http.delete(f"/v1/files/{two}")).status_code == 200
    assert await references(database_url, tenant) == []


async def test_equal_content_of_two_tenants_is_kept_apart(
    api: Api, server: str, other_tenant: Tenant, database_url: str
) -> None:
    mine = await api.upload(CONTENT)
    async with Api(server, other_tenant.key) as other:
        theirs = await other.upload(CONTENT)
        for path in (f"/v1/files/{mine}", f"/v1/files/{mine}/content"):
            assert (await other.http.get(path)).status_code == 404
        assert (await other.http.delete(f"/v1/files/{mine}")).status_code == 404
        await api.http.delete(f"/v1/files/{mine}")
        assert (await other.http.get(f"/v1/files/{theirs}/content")).content == CONTENT


async def test_twenty_uploads_at_once_of_one_content_are_all_counted(
    api: Api, tenant: Tenant, database_url: str
) -> None:
    made = await asyncio.gather(*(api.upload(CONTENT) for _ in range(20)))
    assert await references(database_url, tenant) == [20]
    await asyncio.gather(*(api.http.delete(f"/v1/files/{id}") for id in made[1:]))
    assert await references(database_url, tenant) == [1]
    assert (await api.http.get(f"/v1/files/{made[0]}/content")).content == CONTENT


async def test_an_announced_size_above_the_limit_is_refused_before_a_byte_is_sent(
    server: str, tenant: Tenant, settings: Settings, database_url: str
) -> None:
    before = await all_rows(database_url, tenant.actor.org_id)
    reader, writer = await raw(server)
    writer.write(head(tenant.key, "Content-Length: 9000000000"))
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    assert b" 413 " in answer
    writer.close()
    assert stored(settings, tenant) == []
    assert await all_rows(database_url, tenant.actor.org_id) == before


async def test_a_chunked_upload_above_the_limit_is_refused_and_leaves_nothing(
    api: Api, tenant: Tenant, settings: Settings, database_url: str
) -> None:
    before = await all_rows(database_url, tenant.actor.org_id)
    body = form(b"x" * (settings.max_upload_bytes + 1))

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    response = await api.http.post(
        "/v1/files",
        content=chunks(),
        headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "file_too_large"
    assert str(settings.max_upload_bytes) in response.json()["error"]["message"]
    assert stored(settings, tenant) == []
    assert await all_rows(database_url, tenant.actor.org_id) == before


async def test_a_file_of_exactly_the_limit_is_taken(api: Api, settings: Settings) -> None:
    assert await api.upload(b"x" * settings.max_upload_bytes)


@pytest.mark.parametrize("share", [0.10, 0.50, 0.99])
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
async def test_an_upload_cut_off_leaves_no_row_and_no_partial_file(
    server: str,
    tenant: Tenant,
    settings: Settings,
    database_url: str,
    share: float,
    chunked: bool,
) -> None:
    before = await all_rows(database_url, tenant.actor.org_id)
    body = form(b"x" * 600_000)
    sent = body[: int(len(body) * share)]
    _, writer = await raw(server)
    if chunked:
        writer.write(head(tenant.key, "Transfer-Encoding: chunked"))
        writer.write(f"{len(sent):x}\r\n".encode() + sent + b"\r\n")
    else:
        writer.write(head(tenant.key, f"Content-Length: {len(body)}") + sent)
    await writer.drain()
    async with asyncio.timeout(5):
        while not partials(settings, tenant):  # noqa: ASYNC110 - a folder rings nobody
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while partials(settings, tenant):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert stored(settings, tenant) == []
    after = await all_rows(database_url, tenant.actor.org_id)
    assert after == before


@pytest.mark.parametrize(
    ("body", "kind", "param"),
    [
        (form(CONTENT, name="document"), f"multipart/form-data; boundary={BOUNDARY}", "file"),
        (form(b""), f"multipart/form-data; boundary={BOUNDARY}", "file"),
        (form(CONTENT, purpose="vision"), f"multipart/form-data; boundary={BOUNDARY}", "purpose"),
        (form(CONTENT, purpose=None), f"multipart/form-data; boundary={BOUNDARY}", "purpose"),
        (
            form(CONTENT, purpose="x" * 2_000),
            f"multipart/form-data; boundary={BOUNDARY}",
            "purpose",
        ),
        (form(CONTENT)[:-20], f"multipart/form-data; boundary={BOUNDARY}", "file"),
        (form(CONTENT), "multipart/form-data", "file"),
        (form(CONTENT), "multipart/form-data; boundary=another", "file"),
        (CONTENT, "application/jsonl", "file"),
        (b"", f"multipart/form-data; boundary={BOUNDARY}", "file"),
    ],
    ids=[
        "no file part",
        "empty file",
        "wrong purpose",
        "no purpose",
        "endless purpose",
        "no end",
        "no boundary",
        "other boundary",
        "not multipart",
        "no body",
    ],
)
async def test_a_bad_form_is_refused_by_name_and_leaves_no_row(
    api: Api,
    tenant: Tenant,
    settings: Settings,
    database_url: str,
    body: bytes,
    kind: str,
    param: str,
) -> None:
    before = await all_rows(database_url, tenant.actor.org_id)
    response = await api.http.post("/v1/files", content=body, headers={"content-type": kind})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert response.headers["x-request-id"].startswith("req_")
    assert partials(settings, tenant) == []
    assert await all_rows(database_url, tenant.actor.org_id) == before


async def test_deleting_needs_the_owner(
    api: Api, server: str, database: Database, settings: Settings, tenant: Tenant
) -> None:
    file = await api.upload(CONTENT)
    key = await key_with(database, settings, tenant, Role.ADMIN, Scope.READ, Scope.WRITE)
    async with Api(server, key) as admin:
        refused = await admin.http.delete(f"/v1/files/{file}")
        assert refused.status_code == 403
        assert "owner" in refused.json()["error"]["message"]
    assert (await api.http.get(f"/v1/files/{file}")).status_code == 200


async def test_uploading_needs_the_scope_to_write(
    server: str, database: Database, settings: Settings, tenant: Tenant
) -> None:
    key = await key_with(database, settings, tenant, Role.OWNER, Scope.READ)
    async with Api(server, key) as reader:
        refused = await reader.http.post("/v1/files", files={"file": ("a", CONTENT)})
        assert refused.status_code == 403
    assert stored(settings, tenant) == []


async def test_a_file_that_a_dataset_is_pinned_to_cannot_be_deleted(
    api: Api, tenant: Tenant, database_url: str
) -> None:
    file = await api.upload(CONTENT)
    await api.execute(
        "mutation ($i: CreateDatasetInput!) { createDataset(input: $i) { userErrors { code } } }",
        i={"name": "pinned", "source": {"fileId": file}},
    )
    before = await all_rows(database_url, tenant.actor.org_id)
    refused = await api.http.delete(f"/v1/files/{file}")
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "file_in_use"
    assert (await api.http.get(f"/v1/files/{file}/content")).content == CONTENT
    assert await all_rows(database_url, tenant.actor.org_id) == before
