"""A folder of weights as a tar file, written while it is sent."""

import asyncio
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

_PIECE = 1024 * 1024
# Optimizer and random states are pickles: of use to a worker that resumes, and to nobody else.
_PICKLED = {".pt", ".pth", ".bin", ".pkl"}


def files_in(folder: Path) -> list[Path]:
    """What is sent, in order."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in _PICKLED)


async def tar_of(folder: Path, files: list[Path]) -> AsyncIterator[bytes]:
    """Plain USTAR headers, the bytes of each file, padded; owners and dates of this machine stay
    here."""
    for path in files:
        size = (await asyncio.to_thread(path.stat)).st_size
        info = tarfile.TarInfo(path.relative_to(folder).as_posix())
        info.size = size
        yield info.tobuf(tarfile.PAX_FORMAT)
        with path.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece
        if rest := size % tarfile.BLOCKSIZE:
            yield b"\0" * (tarfile.BLOCKSIZE - rest)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
