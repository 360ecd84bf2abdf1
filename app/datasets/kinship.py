"""Cases that resemble each other: repeated, leaked from one file into another, or contradicting."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from app.datasets.formats import fingerprint
from app.datasets.preference import OUTPUTS

_SOUGHT_UP_TO = 64 * 1024 * 1024
LONGEST_SHOWN = 64 * 1024


@dataclass(frozen=True)
class Kin:
    """Of one line: where it begins, in bytes, and the first other lines, from 1, that hold the same
    case, the same case in the other file, and another answer to the same question."""

    offset: int
    duplicate_of: int | None = None
    same_in_other: int | None = None
    contradicts: int | None = None


@dataclass
class _File:
    """`questions` have the first line that asks, its answer, and the first line that differs."""

    offsets: dict[int, int] = field(default_factory=dict)
    marks: dict[int, tuple[bytes, bytes, bytes]] = field(default_factory=dict)
    first: dict[bytes, int] = field(default_factory=dict)
    questions: dict[bytes, tuple[int, bytes, int | None]] = field(default_factory=dict)

    def add(self, number: int, case: dict[str, Any]) -> None:
        mark = fingerprint(case)
        question, answer = _question(case)
        self.marks[number] = (mark, question, answer)
        self.first.setdefault(mark, number)
        line, other, differs = self.questions.setdefault(question, (number, answer, None))
        if differs is None and answer != other:
            self.questions[question] = (line, other, number)

    def kin(self, number: int, other: "_File | None") -> Kin:
        if number not in self.marks:
            return Kin(self.offsets[number])
        mark, question, answer = self.marks[number]
        line, first_answer, differs = self.questions[question]
        before = self.first[mark]
        return Kin(
            self.offsets[number],
            duplicate_of=before if before < number else None,
            same_in_other=other.first.get(mark) if other else None,
            contradicts=differs if answer == first_answer else line,
        )


def find(
    training: Path, validation: Path | None, wanted: dict[str, set[int]]
) -> dict[tuple[str, int], Kin]:
    """For the wanted lines of "training" and of "validation". In files of more than 64 MiB no
    others are sought. Long work."""
    paths = [path for path in (training, validation) if path is not None]
    seeks = all(path.stat().st_size <= _SOUGHT_UP_TO for path in paths)
    found: dict[tuple[str, int], Kin] = {}
    files = {
        name: _read(path, wanted.get(name, set()), seeks)
        for name, path in (("training", training), ("validation", validation))
        if path is not None
    }
    for name, file in files.items():
        other = files.get("training" if name == "validation" else "validation")
        found |= {(name, line): file.kin(line, other) for line in file.offsets}
    return found


def case_at(path: Path, offset: int) -> Any:
    """The case on the line that begins there; None when it has more than `LONGEST_SHOWN` bytes."""
    with path.open("rb") as file:
        file.seek(offset)
        line = file.readline(LONGEST_SHOWN + 1)
    return orjson.loads(line) if len(line) <= LONGEST_SHOWN else None


def _read(path: Path, wanted: Iterable[int], seeks: bool) -> _File:
    file, wanted, offset = _File(), set(wanted), 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number in wanted:
                file.offsets[number] = offset
            if seeks and line.strip():
                file.add(number, orjson.loads(line))
            offset += len(line)
    return file


def _question(case: dict[str, Any]) -> tuple[bytes, bytes]:
    """What is asked, and what is answered. Of a pair: which two answers are compared, and which of
    them is preferred."""
    if "input" in case:
        sides = [_mark(_said(case[name])) for name in OUTPUTS]
        return _mark([case["input"], *(side.hex() for side in sorted(sides))]), sides[0]
    *before, last = _said(case["messages"])
    return _mark([before, case.get("tools")]), _mark(last)


def _said(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in m.items() if key != "weight"} for m in messages]


def _mark(value: Any) -> bytes:
    canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=16).digest()
