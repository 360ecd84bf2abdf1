"""What Vertex AI reads from Cloud Storage and writes there: training lines, and metrics.

The names of the metrics are those of Google's pages on tuning; the files that hold them are not
documented. Assumed are JSON lines, `{"step": 1, "train_total_loss": 2.1, …}`, in files that end in
`.jsonl` or `.json`; a name may begin with a slash, as in the pages. All else is passed over.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import IO, Any

import orjson

from app.providers.base import Data, Item
from app.providers.errors import ProviderRefused
from app.providers.gemini import CannotConvert, training_line

_PIECE = 1 << 20
_MOST_FILES, _LARGEST = 20, 16 << 20
_VALUES = {
    "train_total_loss": "training_loss",
    "preference_optimization_train_loss": "training_loss",
    "train_loss": "training_loss",
    "train_fraction_of_correct_next_step_preds": "training_accuracy",
    "eval_total_loss": "validation_loss",
    "eval_loss": "validation_loss",
    "eval_fraction_of_correct_next_step_preds": "validation_accuracy",
    "train_reward": "reward",
    "eval_reward": "validation_reward",
}


def convert(data: Data, into: IO[bytes]) -> int:
    """Write the cases in Google's form; how many bytes they are. Raises ProviderRefused."""
    with data.path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                made = training_line(orjson.loads(line), data.method)
            except (CannotConvert, orjson.JSONDecodeError) as trouble:
                raise ProviderRefused(
                    f"Line {number} cannot be put in Gemini's format: {trouble}.",
                    reason="INVALID_ARGUMENT",
                    param=f"{data.role}_file",
                ) from None
            into.write(orjson.dumps(made) + b"\n")
    return into.tell()


class Pieces:
    """A file as the content of a request, which can be sent again from its beginning."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await asyncio.to_thread(self._file.seek, 0)
        while piece := await asyncio.to_thread(self._file.read, _PIECE):
            yield piece


def readable(objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the files that may hold metrics."""
    names = [
        str(row.get("name"))
        for row in objects
        if str(row.get("name")).endswith((".jsonl", ".json"))
        and int(row.get("size") or 0) <= _LARGEST
    ]
    return names[:_MOST_FILES]


def points(files: Iterable[bytes], newest: str | None) -> list[Item]:
    """The steps from the one with the key `newest` on, in their order."""
    known = newest.removeprefix("metrics:") if newest and newest.startswith("metrics:") else ""
    first = int(known) if known.isdigit() else 0
    found: dict[int, dict[str, float | None]] = {}
    for content in files:
        for line in content.splitlines():
            step, values = _measured(line)
            if step is not None and step >= first and values:
                found.setdefault(step, {}).update(values)
    return [
        Item("metrics", f"metrics:{step}", step=step, values=found[step]) for step in sorted(found)
    ]


def _measured(line: bytes) -> tuple[int | None, dict[str, float | None]]:
    try:
        row = orjson.loads(line)
        step = int(row["step"])
    except (ValueError, TypeError, KeyError, OverflowError):
        return None, {}
    values: dict[str, float | None] = {}
    for name, value in row.items():
        ours = _VALUES.get(name.lstrip("/"))
        if ours and isinstance(value, int | float) and not isinstance(value, bool):
            values[ours] = float(value) if math.isfinite(value) else None
    return step, values
