"""A file that says how much of it has been read."""

import os
from collections.abc import Callable
from typing import IO

OnProgress = Callable[[int, int], None]


class CountedFile:
    """What httpx needs of a file: it takes the size from the descriptor and reads in pieces."""

    def __init__(self, file: IO[bytes], on_progress: OnProgress | None) -> None:
        self._file, self._tell_progress = file, on_progress
        self._size = os.fstat(file.fileno()).st_size

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if self._tell_progress:
            self._tell_progress(self._file.tell(), self._size)
        return data
