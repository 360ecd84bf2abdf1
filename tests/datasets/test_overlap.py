"""Cases shared by training and validation data are looked for, but not in large files."""

import hashlib
from pathlib import Path

import pytest

from app.core.database import Database
from app.datasets import service
from app.datasets.errors import DatasetVersionNotFound
from app.datasets.report import Report
from app.datasets.service import Examined, Source
from app.files.store import FolderStore, Stored
from tests.support import Tenant, chat_lines

MIB = 1024 * 1024


def put(store: FolderStore, tenant: Tenant, content: str, size: int | None = None) -> Examined:
    """Cases in the store, as if just examined; blown up to a size with nothing."""
    sha256 = hashlib.sha256(f"{content}{size}".encode()).hexdigest()
    path = store.path(tenant.actor.org_id, sha256)
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    if size is not None:
        with path.open("r+b") as file:
            file.truncate(size)
    return Examined(Source(), Stored(sha256, path.stat().st_size), "cases.jsonl", Report())


async def test_lines_shared_with_the_training_data_are_named(
    database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    store, actor = FolderStore(tmp_path), tenant.actor
    training = put(store, tenant, chat_lines(9))
    validation = put(store, tenant, chat_lines(1, "new") + "\n" + chat_lines(2))
    assert await service.overlap(database, store, actor, training, validation) == [2, 3]
    assert await service.overlap(database, store, actor, training, training) == []


@pytest.mark.parametrize("which", ["training", "validation"])
async def test_large_files_are_not_searched(
    database: Database, tenant: Tenant, tmp_path: Path, which: str
) -> None:
    store = FolderStore(tmp_path)
    large = put(store, tenant, chat_lines(2), 64 * MIB + 1)
    small = put(store, tenant, chat_lines(2))
    pair = (large, small) if which == "training" else (small, large)
    assert await service.overlap(database, store, tenant.actor, *pair) == []


async def test_missing_bytes_and_unknown_versions_are_told_apart(
    database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path)
    here = put(store, tenant, chat_lines(2))
    gone = Examined(Source(), Stored("0" * 64, 1), "gone.jsonl", Report())
    assert await service.overlap(database, store, tenant.actor, here, gone) == []
    with pytest.raises(DatasetVersionNotFound):
        await service.overlap(database, store, tenant.actor, here, "dsv_nothere")
