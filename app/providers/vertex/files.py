"""What Vertex AI reads from Cloud Storage and writes there: training lines, and metrics.

The names of the metrics are those of Google's pages on tuning; the files that hold them are not
documented. Assumed are JSON lines, `{"step": 1, "train_total_loss": 2.1, …}`, in files that end in
`.jsonl` or `.json`; a name may begin with a slash, as in the pages. All else is passed over.
"""

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import IO, Any

from app.providers.base import Data, Item
from app.providers.cases import converted
from app.providers.values import json_rows, number
from app.providers.vertex.gemini import training_line

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
        convert = partial(training_line, method=data.method)
        into.writelines(converted(lines, convert, f"{data.role}_file"))
    return into.tell()


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
    for row in (row for content in files for row in json_rows(content)):
        step, values = number(row.get("step")), _values(row)
        if step is not None and math.isfinite(step) and step >= first and values:
            found.setdefault(int(step), {}).update(values)
    return [
        Item("metrics", f"metrics:{step}", step=step, values=found[step]) for step in sorted(found)
    ]


def _values(row: Mapping[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, value in row.items():
        ours, measured = _VALUES.get(name.lstrip("/")), number(value)
        if ours and measured is not None:
            found[ours] = measured if math.isfinite(measured) else None
    return found
