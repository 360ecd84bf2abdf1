"""What can be done with files: keep, look up, list, delete, and sweep what a crash left behind."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import audit
from app.core import clock, ids
from app.core.actor import Actor, Role, Scope
from app.core.database import Database
from app.core.paging import Page, PageRequest
from app.files.errors import FileEmpty, FileInUse
from app.files.repository import FileRepository
from app.files.store import FileStore, Stored
from app.files.tables import File

# Bytes are put before their row is written; what was put more recently may still get one.
_REGISTERED_WITHIN = 3600.0
_DAY = 24 * 3600.0


async def store(store: FileStore, actor: Actor, chunks: AsyncIterator[bytes], limit: int) -> Stored:
    """Write an upload to the store, before any row knows of it. Raises FileTooLarge, FileEmpty."""
    actor.require(Scope.WRITE, Role.ADMIN)
    stored = await store.put(actor.org_id, chunks, limit)
    if stored.size == 0:
        raise FileEmpty("The file is empty. Upload at least one line.", path=("file",))
    return stored


async def add(
    session: AsyncSession, actor: Actor, stored: Stored, filename: str, purpose: str
) -> File:
    """Register stored bytes as a file of the actor's project."""
    actor.require(Scope.WRITE, Role.ADMIN)
    file = await _add(session, actor.org_id, actor.project_id, stored, filename, purpose)
    audit.record(
        session, actor, "file.created", file.id, after={"sha256": file.sha256, "size": file.size}
    )
    return file


async def add_result(
    session: AsyncSession, org_id: str, project_id: str, stored: Stored, filename: str
) -> File:
    """Register bytes that a job produced."""
    return await _add(session, org_id, project_id, stored, filename, "fine-tune-results")


async def get(session: AsyncSession, actor: Actor, id: str) -> File:
    actor.require(Scope.READ)
    return await FileRepository(session, actor.org_id).get(id)


async def page(
    session: AsyncSession, actor: Actor, request: PageRequest, purpose: str | None = None
) -> Page[File]:
    actor.require(Scope.READ)
    return await FileRepository(session, actor.org_id).page(request, purpose)


async def delete(session: AsyncSession, actor: Actor, id: str) -> tuple[File, bool]:
    """Delete a file that nothing is pinned to. True: `forget` its bytes once this is committed."""
    actor.require(Scope.WRITE, Role.OWNER)
    files = FileRepository(session, actor.org_id)
    file = await files.get(id)
    try:
        async with session.begin_nested():
            last = await files.remove(file)
    except IntegrityError as refused:
        raise FileInUse(
            f"A dataset version is pinned to the file {id}. Delete the dataset first.",
            path=("id",),
        ) from refused
    audit.record(session, actor, "file.deleted", id, before={"sha256": file.sha256})
    return file, last


def forget(store: FileStore, file: File) -> None:
    """Remove the bytes of the last file with this content. Bytes put a moment ago are left to the
    sweep: the same content may be on its way in again."""
    store.remove(file.org_id, file.sha256, untouched=_REGISTERED_WITHIN)


async def one_chunk(content: bytes) -> AsyncIterator[bytes]:
    yield content


def sweep(root: Path, older_than: float = _DAY) -> int:
    """Remove uploads that never completed; returns how many."""
    removed = 0
    for partial in root.glob("*/.partial-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > older_than:
                partial.unlink()
                removed += 1
    return removed


async def sweep_unreferenced(database: Database, store: FileStore, older_than: float = _DAY) -> int:
    """Remove bytes that no file refers to, such as those of a refused dataset; returns how many."""
    removed = 0
    for org_id, contents in (await asyncio.to_thread(store.older, older_than)).items():
        async with database.transaction(org_id) as session:
            known = await FileRepository(session, org_id).known(contents)
        for sha256 in contents - known:
            removed += store.remove(org_id, sha256, untouched=older_than)
    return removed


async def _add(
    session: AsyncSession,
    org_id: str,
    project_id: str,
    stored: Stored,
    filename: str,
    purpose: str,
) -> File:
    file = File(
        org_id=org_id,
        id=ids.new(ids.FILE),
        project_id=project_id,
        filename=Path(filename).name[:200] or "file",
        purpose=purpose,
        sha256=stored.sha256,
        size=stored.size,
        created_at=clock.now(),
    )
    await FileRepository(session, org_id).add(file)
    return file
