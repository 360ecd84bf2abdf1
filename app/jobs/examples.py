"""What a finished job's model makes of each case of its data, the worst first.

Kept as one of the job's result files: written once, never changed, a few hundred kilobytes at most,
and useful on its own. A page is made by reading it; the cases themselves come from the pinned data.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.actor import Actor, Scope
from app.core.errors import Invalid
from app.core.paging import Page, PageRequest
from app.datasets import kinship
from app.datasets import service as datasets
from app.datasets.kinship import Kin
from app.datasets.problem import texts_of
from app.files import service as files
from app.files.errors import FileNotFound
from app.files.store import FileStore
from app.jobs.measured import ExampleOrder, Flag, Measured, Split
from app.jobs.tables import Job
from app.training.report import Examples

FILENAME = "examples.jsonl"


@dataclass(frozen=True)
class Example:
    """`case` is the line itself; None when the data is gone, or the line too long to show."""

    measured: Measured
    case: dict[str, Any] | None


@dataclass
class ExamplePage(Page[Example]):
    """`measured` of all the `cases` that the job was given."""

    measured: int
    cases: int


def content(said: Examples, training: Path, validation: Path | None) -> bytes:
    """The result file: one JSON object a line, the worst first. Long work."""
    wanted: dict[str, set[int]] = {}
    for one in said.examples:
        wanted.setdefault(one.split, set()).add(one.line)
    kin = kinship.find(training, validation, wanted)
    rows = []
    for one in said.examples:
        near = kin[one.split, one.line]
        rows.append(
            Measured(
                split=Split(one.split),
                line=one.line,
                loss=one.loss,
                tokens=one.tokens,
                flags=_flags(one.tokens, one.truncated, near),
                duplicate_of=near.duplicate_of,
                same_in_other=near.same_in_other,
                contradicts=near.contradicts,
                offset=near.offset,
            )
        )
    rows.sort(key=lambda row: _rank(ExampleOrder.LOSS_DESC, row))
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


async def page(
    session: AsyncSession,
    store: FileStore,
    actor: Actor,
    job: Job,
    request: PageRequest,
    *,
    split: Split | None = None,
    flag: Flag | None = None,
    order: ExampleOrder = ExampleOrder.LOSS_DESC,
) -> ExamplePage:
    """Empty for a job that has not succeeded, or whose method measures no single cases."""
    actor.require(Scope.READ)
    path = await _file(session, store, actor, job)
    data: dict[str, Path] = {}
    cases = 0
    for name, id in (
        (Split.TRAINING, job.training_version_id),
        (Split.VALIDATION, job.validation_version_id),
    ):
        if id is not None:
            version = await datasets.get_version(session, actor, id)
            data[name] = store.path(actor.org_id, version.sha256)
            cases += version.case_count

    def chosen(one: Measured) -> bool:
        return (split is None or one.split is split) and (flag is None or flag in one.flags)

    def read() -> ExamplePage:
        known = _read(path) if path else []
        rows = sorted(filter(chosen, known), key=lambda one: _rank(order, one))
        return _cut(rows, request, data, measured=len(known), cases=cases)

    return await asyncio.to_thread(read)


def dialogue(case: dict[str, Any]) -> tuple[str, str]:
    """What is asked last in a case, and the answer to be learnt; of a pair the preferred one."""
    messages = case["messages"] if "messages" in case else _pair(case)
    answer = messages[-1]
    asked = [m for m in messages[:-1] if m["role"] == "user"] or messages[:-1][-1:]
    return "".join(texts_of(asked[-1:], None)), " ".join(texts_of([answer], None)).strip()


def _pair(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [*case["input"]["messages"], *case["preferred_output"]]


def _flags(tokens: int, truncated: bool, near: Kin) -> list[Flag]:
    holds = {
        Flag.DUPLICATE: near.duplicate_of is not None,
        Flag.IN_BOTH: near.same_in_other is not None,
        Flag.CONTRADICTS: near.contradicts is not None,
        Flag.TRUNCATED: truncated,
        Flag.LEFT_OUT: not tokens,
    }
    return [flag for flag, it_holds in holds.items() if it_holds]


def _rank(order: ExampleOrder, one: Measured) -> tuple[Any, ...]:
    """What has no loss comes last."""
    if order is ExampleOrder.LINE_ASC:
        return one.split, one.line
    sign = -1 if order is ExampleOrder.LOSS_DESC else 1
    return one.loss is None, sign * (one.loss or 0.0), one.split, one.line


async def _file(session: AsyncSession, store: FileStore, actor: Actor, job: Job) -> Path | None:
    for id in job.result_file_ids:
        try:
            file = await files.get(session, actor, id)
        except FileNotFound:
            continue  # somebody deleted it
        if file.filename == FILENAME and store.exists(actor.org_id, file.sha256):
            return store.path(actor.org_id, file.sha256)
    return None


def _read(path: Path) -> list[Measured]:
    found = []
    for line in path.read_bytes().splitlines():
        row = orjson.loads(line)
        row["split"] = Split(row["split"])
        row["flags"] = [Flag(flag) for flag in row["flags"]]
        found.append(Measured(**row))
    return found


def _cut(
    rows: list[Measured],
    request: PageRequest,
    data: dict[str, Path],
    *,
    measured: int,
    cases: int,
) -> ExamplePage:
    """Cursors name the line, and the file never changes: pages repeat nothing."""
    begin, total = 0, len(rows)
    if request.cursor is not None:
        places = {_cursor(one): place for place, one in enumerate(rows)}
        if request.cursor not in places:
            raise Invalid(
                "This is not a cursor of this list. Pass one from its pageInfo or edges.",
                path=("after",),
            )
        begin = places[request.cursor] + 1
    shown = rows[begin : begin + request.size]

    async def count(_: AsyncSession) -> int:
        return total

    counted: Callable[[AsyncSession], Any] = count
    return ExamplePage(
        [Example(one, _case(data.get(one.split), one.offset)) for one in shown],
        [_cursor(one) for one in shown],
        has_next=begin + request.size < total,
        has_previous=begin > 0,
        count=counted,
        measured=measured,
        cases=cases,
    )


def _cursor(one: Measured) -> str:
    return f"{one.split.value}:{one.line}"


def _case(path: Path | None, offset: int) -> dict[str, Any] | None:
    if path is None or not path.is_file():
        return None
    found: dict[str, Any] | None = kinship.case_at(path, offset)
    return found
