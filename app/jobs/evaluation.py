"""What a job's checkpoints are judged by: its graders and held-out cases, checked before anything
is made."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from app.core.actor import Actor
from app.core.database import Database
from app.datasets import prompts, report
from app.datasets import service as datasets
from app.datasets.formats import Format
from app.datasets.service import Examined
from app.datasets.tables import DatasetVersion
from app.files.store import FileStore
from app.graders import spec
from app.graders.templates import Reference, ReferenceMissing
from app.jobs.errors import JobInputInvalid
from app.jobs.methods import camel, read_grader
from app.training.evaluation import Evaluation, NamedGrader

PATH = "evaluation"
_FIELDS = Evaluation.model_fields.keys() | NamedGrader.model_fields.keys()
_LINES_SHOWN = 5


def read(asked: dict[str, Any]) -> Evaluation:
    """Raises JobInputInvalid and GraderInvalid, which name the place in the input."""
    try:
        evaluation = Evaluation.model_validate(asked)
    except ValidationError as wrong:
        faults = wrong.errors()
        first = next((fault for fault in faults if fault["type"] != "literal_error"), faults[0])
        # Below a field, places in a union of types are named, which are not the customer's words.
        names = [str(name) for name in first["loc"] if isinstance(name, int) or name in _FIELDS]
        shown = ".".join(camel(name) for name in names)
        given = "" if first["type"] == "value_error" else f", got {first['input']!r:.80}"
        message = first["msg"].removeprefix("Value error, ")
        raise JobInputInvalid(
            f"{shown}: {message}{given}." if shown else f"{message[0].upper()}{message[1:]}.",
            path=(PATH, *map(camel, names)),
        ) from wrong
    for n, one in enumerate(evaluation.graders):
        read_grader(one.grader, _place(n))
    return evaluation


def graders(
    method: str, reward: Any, evaluation: dict[str, Any] | None
) -> list[tuple[tuple[str, ...], spec.Grader]]:
    """All graders of a job, each with its place in the input: the one that rewards, and those that
    judge its checkpoints. Raises JobInputInvalid and GraderInvalid."""
    found = []
    if method == "reinforcement":
        place: tuple[str, ...] = ("method", method, "grader")
        found.append((place, read_grader(reward, place)))
    for n, one in enumerate(read(evaluation).graders if evaluation else ()):
        found.append((_place(n), read_grader(one.grader, _place(n))))
    return found


def check_format(version: DatasetVersion) -> None:
    if version.format != Format.REINFORCEMENT:
        raise JobInputInvalid(
            f"{version.id} is of the format {version.format}, but held-out cases are of the format"
            f" {Format.REINFORCEMENT}: questions, with what graders need to judge the answers.",
            path=(PATH, "data"),
        )


async def look(
    database: Database,
    store: FileStore,
    actor: Actor,
    asked: dict[str, Any],
    training: str | Examined,
    held_out: str | Examined,
) -> list[str]:
    """What is worth a warning about the held-out cases; raises JobInputInvalid for a grader that
    asks for what none of them has. Long work, so it holds no transaction."""
    evaluation = read(asked)
    if isinstance(held_out, str):
        async with database.transaction(actor.org_id) as session:
            check_format(await datasets.get_version(session, actor, held_out))
    paths = await datasets.paths(database, store, actor, (training, held_out))
    if paths is None:
        return []
    found = await asyncio.to_thread(_missing, evaluation, paths[1])
    if leaks := await asyncio.to_thread(prompts.leaked, *paths):
        cases, are = ("case", "is") if len(leaks) == 1 else ("cases", "are")
        found.append(
            f"{len(leaks)} held-out {cases} {are} in the training data too ({_places(leaks)} of the"
            " held-out cases), so the score looks better than it is."
        )
    return found


def _place(n: int) -> tuple[str, ...]:
    return (PATH, "graders", str(n), "grader")


def _missing(evaluation: Evaluation, path: Path) -> list[str]:
    """References to fields that some cases lack. The file is known to be good."""
    wanted = [
        (n, one.name, reference)
        for n, one in enumerate(evaluation.graders)
        for reference in sorted(spec.references(read_grader(one.grader, _place(n))), key=str)
        if reference.namespace == "item"
    ]
    lacking: dict[tuple[int, str, Reference], list[int]] = {key: [] for key in wanted}
    cases = 0
    for number, line in report.lines(path) if wanted else ():
        item, cases = orjson.loads(line), cases + 1
        for key in wanted:
            try:
                key[2].find({"item": item})
            except ReferenceMissing:
                lacking[key].append(number)
    warnings = []
    for (n, name, reference), lines in lacking.items():
        if lines and len(lines) == cases:
            raise JobInputInvalid(
                f"The grader {name!r} asks for {{{{ {reference} }}}}, which no held-out case has.",
                path=_place(n),
            )
        if lines:
            warnings.append(
                f"The grader {name!r} asks for {{{{ {reference} }}}}, which {len(lines)} of"
                f" {cases} held-out cases lack ({_places(lines)}): they count as errors."
            )
    return warnings


def _places(lines: Sequence[int]) -> str:
    more = ", …" if len(lines) > _LINES_SHOWN else ""
    return f"line {', '.join(map(str, lines[:_LINES_SHOWN]))}{more}"
