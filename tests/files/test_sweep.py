"""What crashes and refusals leave behind in the store is removed later; nothing else is."""

import os
import time
from pathlib import Path

import pytest

from app.core.database import Database
from app.core.settings import Settings
from app.files import service as files
from app.files.store import FolderStore
from tests.support import Api, Tenant, chat_lines

DAY = 24 * 3600.0


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def store(settings: Settings) -> FolderStore:
    return FolderStore(settings.data_dir / "files")


async def test_only_old_partial_uploads_are_swept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    kept = await store.put("org_a", files.one_chunk(b"whole"), 100)
    age(store.path("org_a", kept.sha256), 2 * DAY)
    old, young = (tmp_path / "org_a" / f".partial-{name}" for name in ("old", "young"))
    for partial in (old, young):
        partial.write_bytes(b"half")
    age(old, 2 * DAY)
    assert files.sweep(tmp_path) == 1
    assert not old.exists()
    assert young.exists()
    assert store.exists("org_a", kept.sha256)
    assert files.sweep(tmp_path / "not there yet") == 0


async def test_bytes_that_no_file_refers_to_are_swept_when_they_are_old(
    api: Api, store: FolderStore, tenant: Tenant, database: Database
) -> None:
    org = tenant.actor.org_id
    content = chat_lines(4, "sweep")
    await api.upload(content)
    [referred] = list(store.older(-1)[org])
    old = await store.put(org, files.one_chunk(b"nobody's"), 100)
    young = await store.put(org, files.one_chunk(b"not yet anybody's"), 100)
    for sha256 in (referred, old.sha256):
        age(store.path(org, sha256), 2 * DAY)
    assert await files.sweep_unreferenced(database, store) == 1
    assert not store.exists(org, old.sha256)
    assert store.exists(org, young.sha256)
    assert store.path(org, referred).read_text() == content


async def test_bytes_of_a_refused_dataset_are_swept(
    api: Api, store: FolderStore, tenant: Tenant, database: Database
) -> None:
    made = await api.execute(
        "mutation ($i: CreateDatasetInput!) { createDataset(input: $i) { userErrors { code } } }",
        i={"name": "bad", "source": {"jsonl": "{"}},
    )
    assert made["createDataset"]["userErrors"] == [{"code": "DATASET_INVALID"}]
    [left] = store.older(-1)[tenant.actor.org_id]
    age(store.path(tenant.actor.org_id, left), 2 * DAY)
    assert await files.sweep_unreferenced(database, store) == 1
    assert tenant.actor.org_id not in store.older(-1)


async def test_bytes_put_again_while_the_sweep_looks_are_kept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    stored = await store.put("org_a", files.one_chunk(b"twice"), 100)
    age(store.path("org_a", stored.sha256), 2 * DAY)
    assert store.older(DAY) == {"org_a": {stored.sha256}}
    await store.put("org_a", files.one_chunk(b"twice"), 100)
    assert store.older(DAY) == {}
    assert not store.remove("org_a", stored.sha256, untouched=DAY)
    assert store.exists("org_a", stored.sha256)


async def test_deleting_the_last_file_removes_its_bytes_unless_they_came_in_just_now(
    api: Api, store: FolderStore, tenant: Tenant
) -> None:
    """The same content may be on its way in again, put but not registered yet."""
    org = tenant.actor.org_id
    for seconds, left in ((2 * 3600.0, 0), (0.0, 1)):
        id = await api.upload(chat_lines(2, "last"))
        [sha256] = store.older(-1)[org]
        age(store.path(org, sha256), seconds)
        assert (await api.http.delete(f"/v1/files/{id}")).status_code == 200
        assert len(store.older(-1).get(org, ())) == left


async def test_a_folder_of_no_organization_does_no_harm(
    settings: Settings, store: FolderStore, database: Database
) -> None:
    assert not store.remove("org_gone", "0" * 64, untouched=0)
    assert await files.sweep_unreferenced(database, store) == 0
