"""Where bytes lie: one folder per organization, named by content (`<org>/<sha256>`).

Another store (S3, say) has the same four verbs.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.core.errors import StorageFull
from app.files.errors import FileTooLarge

_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Stored:
    sha256: str
    size: int


def sha256_of(path: Path) -> str | None:
    """Of a file's bytes; None when there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def too_large(limit: int) -> FileTooLarge:
    return FileTooLarge(
        f"The file is larger than the limit of {limit} bytes ({limit // 1_048_576} MiB). Split it, "
        "or raise LUTHIER_MAX_UPLOAD_BYTES.",
        limit=limit,
        path=("file",),
    )


class FileStore(Protocol):
    async def put(self, org_id: str, chunks: AsyncIterator[bytes], limit: int) -> Stored:
        """Keep the bytes; above `limit` raises FileTooLarge, without room StorageFull, and keeps
        nothing then."""

    def path(self, org_id: str, sha256: str) -> Path:
        """The bytes as a local file."""

    def exists(self, org_id: str, sha256: str) -> bool: ...

    def remove(self, org_id: str, sha256: str, *, untouched: float) -> bool:
        """Remove bytes, unless they were put within so many seconds: then somebody may be about to
        register them. True: they are gone."""

    def older(self, untouched: float) -> dict[str, set[str]]:
        """What was put longer ago than so many seconds, by organization."""


class FolderStore:
    """The default store. A content appears under its name only when it is complete and on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, org_id: str, chunks: AsyncIterator[bytes], limit: int) -> Stored:
        folder = self._root / org_id
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".partial-{secrets.token_hex(8)}"
        digest, size = hashlib.sha256(), 0
        try:
            with partial.open("wb") as out:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise too_large(limit)
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                await asyncio.to_thread(os.fsync, out.fileno())
            with _alone_in(folder) as opened:
                os.replace(partial, folder / digest.hexdigest())
                os.fsync(opened)
        except OSError as trouble:
            if trouble.errno not in _FULL:
                raise
            raise StorageFull(
                "The server has no room for more files. Its operator must make some."
            ) from trouble
        finally:
            partial.unlink(missing_ok=True)
        return Stored(digest.hexdigest(), size)

    def path(self, org_id: str, sha256: str) -> Path:
        return self._root / org_id / sha256

    def exists(self, org_id: str, sha256: str) -> bool:
        return self.path(org_id, sha256).exists()

    def remove(self, org_id: str, sha256: str, *, untouched: float) -> bool:
        path = self.path(org_id, sha256)
        with contextlib.suppress(FileNotFoundError), _alone_in(path.parent):
            if _age(path) > untouched:
                path.unlink()
                return True
        return False

    def older(self, untouched: float) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for path in self._root.glob("*/[!.]*"):
            with contextlib.suppress(FileNotFoundError):
                if _age(path) > untouched:
                    found.setdefault(path.parent.name, set()).add(path.name)
        return found


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[int]:
    """Between looking at a file's age and removing it nobody puts the same content again."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield opened
    finally:
        os.close(opened)
