"""What one viewer lived through, written down at once, so that it outlives the viewer's process."""

import json
import os
import time
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def lines(path: Path) -> list[Line]:
    """Every whole line; one that a killed process left unfinished was never written."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


class Book:
    """`position` is the last cursor written down: the viewer goes on after it."""

    def __init__(self, path: Path, after: str) -> None:
        written = lines(path)
        self._file = os.open(path, os.O_CREAT | os.O_RDWR)
        content = path.read_bytes()
        os.truncate(self._file, content.rfind(b"\n") + 1)
        os.lseek(self._file, 0, os.SEEK_END)
        got = [line["got"] for line in written if "got" in line]
        self.position: str = got[-1]["cursor"] if got else after
        self.resumes = bool(got)
        self.done = any("done" in line for line in written)

    def got(self, node: dict[str, Any]) -> None:
        self.position, self.resumes = node["cursor"], True
        self._write({"got": node})

    def linked(self, address: str) -> None:
        self._write({"linked": address})

    def cut(self, reason: str) -> None:
        """The connection ended against the viewer's will."""
        self._write({"cut": reason[:200]})

    def whim(self, habit: str) -> None:
        """The viewer did what is its habit."""
        self._write({"whim": habit})

    def refused(self, reason: str) -> None:
        """The server said that coming back is of no use: never right in this test."""
        self._write({"refused": reason[:500]})

    def end(self) -> None:
        self.done = True
        self._write({"done": True})

    def _write(self, line: Line) -> None:
        os.write(self._file, json.dumps(line | {"t": time.time()}).encode() + b"\n")
