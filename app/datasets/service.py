"""What can be done with datasets: examine a source, create, add a version, list, delete."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import audit, idempotency
from app.catalog.tokens import Tokenizers
from app.core import clock, ids
from app.core.actor import Actor, Role, Scope
from app.core.database import Database
from app.core.errors import Invalid
from app.core.paging import Page, PageRequest
from app.core.settings import Settings
from app.datasets import report
from app.datasets.errors import DatasetInUse, DatasetInvalid, DatasetPathRefused
from app.datasets.formats import Format
from app.datasets.report import Report
from app.datasets.repository import DatasetRepository
from app.datasets.tables import Dataset, DatasetVersion
from app.files import service as files
from app.files.errors import FileNotFound
from app.files.store import FileStore, Stored

_OVERLAP_SOUGHT_UP_TO = 64 * 1024 * 1024


@dataclass(frozen=True)
class Source:
    """Where the cases come from: exactly one of an uploaded file, the text itself, or a path."""

    file_id: str | None = None
    jsonl: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class Examined:
    """Cases that were found good, with their bytes in the store."""

    source: Source
    stored: Stored
    filename: str
    report: Report


async def examine(
    database: Database,
    store: FileStore,
    tokenizers: Tokenizers,
    settings: Settings,
    actor: Actor,
    source: Source,
    format: Format | None = None,
) -> Examined:
    """Validate a source line by line. Raises DatasetInvalid with every problem's line and field.
    Without a format its first line decides.

    Long work, so it holds no transaction; nothing is created here.
    """
    actor.require(Scope.WRITE, Role.ADMIN)
    stored, filename = await _bytes_of(database, store, settings, actor, source)
    count, name = tokenizers.default()
    found = await asyncio.to_thread(
        report.examine, store.path(actor.org_id, stored.sha256), count, name, format
    )
    if found.problems:
        first = found.problems[0]
        others = found.problem_count - 1
        more = f" And {others} more." if others else ""
        where = f", field {first.field}" if first.field else ""
        raise DatasetInvalid(
            f"Line {first.line}{where}: {first.reason}{more} Mend the file and send it again.",
            path=("source",),
            problems=found.problems,
            problem_count=found.problem_count,
        )
    return Examined(source, stored, filename, found)


async def overlap(
    database: Database,
    store: FileStore,
    actor: Actor,
    training: str | Examined,
    validation: str | Examined,
) -> list[int]:
    """Lines of the validation data whose case is also in the training data. Each is a version's id
    or what was just examined. Not sought in large files, nor where the two are one and the same.

    Long work, so it holds no transaction.
    """
    found = await paths(database, store, actor, (training, validation))
    if found is None or found[0] == found[1]:
        return []
    return await asyncio.to_thread(report.overlap, *found)


async def paths(
    database: Database, store: FileStore, actor: Actor, wanted: Sequence[str | Examined]
) -> list[Path] | None:
    """Where their bytes are; None if one is too large to be compared with others."""
    actor.require(Scope.WRITE, Role.ADMIN)
    found = []
    async with database.transaction(actor.org_id) as session:
        for data in wanted:
            if isinstance(data, Examined):
                sha256 = data.stored.sha256
            else:
                sha256 = (await get_version(session, actor, data)).sha256
            found.append(store.path(actor.org_id, sha256))
    if any(not p.is_file() or p.stat().st_size > _OVERLAP_SOUGHT_UP_TO for p in found):
        return None
    return found


async def create(
    session: AsyncSession,
    actor: Actor,
    examined: Examined,
    *,
    name: str,
    description: str | None,
    idempotency_key: str | None = None,
) -> Dataset:
    """A dataset with its first version."""
    actor.require(Scope.WRITE, Role.ADMIN)
    if not 1 <= len(name.strip()) <= 200:
        raise Invalid("A dataset's name has 1 to 200 characters.", path=("name",))
    dataset = Dataset(
        org_id=actor.org_id,
        id=ids.new(ids.DATASET),
        project_id=actor.project_id,
        name=name.strip(),
        description=description,
        created_at=clock.now(),
    )
    asked = {"name": name, "description": description, "sha256": examined.stored.sha256}
    made = await idempotency.remember(
        session, actor, idempotency_key, "createDataset", asked, dataset.id
    )
    if made is not None:
        return await DatasetRepository(session, actor.org_id).get(made)
    session.add(dataset)
    await session.flush()
    audit.record(session, actor, "dataset.created", dataset.id, after={"name": dataset.name})
    await _add_version(session, actor, dataset, 1, examined, None)
    return dataset


async def add_version(
    session: AsyncSession,
    actor: Actor,
    dataset_id: str,
    examined: Examined,
    description: str | None,
) -> DatasetVersion:
    """A new immutable snapshot. The same content again gives the version that holds it already."""
    actor.require(Scope.WRITE, Role.ADMIN)
    datasets = DatasetRepository(session, actor.org_id)
    dataset = await datasets.get(dataset_id, lock=True)
    versions = await datasets.versions(dataset_id)
    for version in versions:
        if version.sha256 == examined.stored.sha256:
            return version
    number = versions[0].number + 1
    return await _add_version(session, actor, dataset, number, examined, description)


async def ensure_version(session: AsyncSession, actor: Actor, examined: Examined) -> DatasetVersion:
    """The version that a bare training file stands for: found by content, or made."""
    datasets = DatasetRepository(session, actor.org_id)
    await datasets.lock_contents()
    found = await datasets.version_of_content(examined.stored.sha256)
    if found is not None:
        return found
    dataset = await create(session, actor, examined, name=examined.filename, description=None)
    return (await versions(session, actor, dataset.id))[0]


async def get(session: AsyncSession, actor: Actor, id: str) -> Dataset:
    actor.require(Scope.READ)
    return await DatasetRepository(session, actor.org_id).get(id)


async def get_version(session: AsyncSession, actor: Actor, id: str) -> DatasetVersion:
    actor.require(Scope.READ)
    return await DatasetRepository(session, actor.org_id).version(id)


async def get_versions(
    session: AsyncSession, actor: Actor, wanted: list[str]
) -> list[DatasetVersion]:
    actor.require(Scope.READ)
    return await DatasetRepository(session, actor.org_id).versions_by_id(wanted)


async def versions(session: AsyncSession, actor: Actor, dataset_id: str) -> list[DatasetVersion]:
    actor.require(Scope.READ)
    return await DatasetRepository(session, actor.org_id).versions(dataset_id)


async def page(session: AsyncSession, actor: Actor, request: PageRequest) -> Page[Dataset]:
    actor.require(Scope.READ)
    return await DatasetRepository(session, actor.org_id).page(request)


async def delete(session: AsyncSession, actor: Actor, id: str) -> Dataset:
    """Delete a dataset that no job is pinned to."""
    actor.require(Scope.WRITE, Role.OWNER)
    datasets = DatasetRepository(session, actor.org_id)
    dataset = await datasets.get(id, lock=True)
    try:
        async with session.begin_nested():
            for version in await datasets.versions(id):
                await session.delete(version)
            await session.flush()
            await session.delete(dataset)
            await session.flush()
    except IntegrityError as refused:
        raise DatasetInUse(
            "A job is pinned to a version of this dataset; it stays as that job's record.",
            path=("id",),
        ) from refused
    audit.record(session, actor, "dataset.deleted", id, before={"name": dataset.name})
    return dataset


async def _bytes_of(
    database: Database, store: FileStore, settings: Settings, actor: Actor, source: Source
) -> tuple[Stored, str]:
    if sum(value is not None for value in (source.file_id, source.jsonl, source.path)) != 1:
        raise Invalid("Give exactly one of fileId, jsonl and path.", path=("source",))
    limit = settings.max_upload_bytes
    if source.file_id is not None:
        async with database.transaction(actor.org_id) as session:
            file = await files.get(session, actor, source.file_id)
        if not store.exists(actor.org_id, file.sha256):
            raise FileNotFound(f"The bytes of {file.id} are gone from the store.", path=("fileId",))
        return Stored(file.sha256, file.size), file.filename
    if source.jsonl is not None:
        chunks = files.one_chunk(source.jsonl.encode())
        return await files.store(store, actor, chunks, limit), "inline.jsonl"
    path = _allowed(Path(source.path or ""), settings.dataset_roots)
    return await files.store(store, actor, _read(path), limit), path.name


def _allowed(path: Path, roots: list[Path]) -> Path:
    refused = DatasetPathRefused(
        "This path lies outside the folders that LUTHIER_DATASET_ROOTS allows. Upload the file "
        "instead.",
        path=("source", "path"),
    )
    try:
        resolved = path.expanduser().resolve()
    except (OSError, ValueError, RuntimeError) as wrong:  # NUL, a loop of links, no such home
        raise refused from wrong
    if not any(resolved.is_relative_to(root.expanduser().resolve()) for root in roots):
        raise refused
    if not os.path.isfile(resolved) or not os.access(resolved, os.R_OK):
        raise Invalid("There is no such file to read on the server.", path=("source", "path"))
    return resolved


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, 1 << 20):
            yield chunk


async def _add_version(
    session: AsyncSession,
    actor: Actor,
    dataset: Dataset,
    number: int,
    examined: Examined,
    description: str | None,
) -> DatasetVersion:
    file_id = examined.source.file_id
    if file_id is None:
        file = await files.add(session, actor, examined.stored, examined.filename, "fine-tune")
        file_id = file.id
    version = DatasetVersion(
        org_id=actor.org_id,
        id=ids.new(ids.DATASET_VERSION),
        dataset_id=dataset.id,
        number=number,
        description=description,
        file_id=file_id,
        sha256=examined.stored.sha256,
        format=examined.report.format,
        case_count=examined.report.case_count,
        report=examined.report.as_json(),
        created_at=clock.now(),
    )
    session.add(version)
    await session.flush()
    audit.record(
        session,
        actor,
        "dataset.version.created",
        version.id,
        after={
            "dataset": dataset.id,
            "number": number,
            "sha256": version.sha256,
            "cases": version.case_count,
            "description": description,
        },
    )
    return version
