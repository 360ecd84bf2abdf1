"""What the finished model makes of each of its cases: the loss of every line under the weights
that were kept, so that lines which teach nothing, or something wrong, can be found."""

import math
import random
import time
import traceback
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from app.training import group
from app.training.report import Example, Examples
from app.training.run import Run

if TYPE_CHECKING:
    from app.training.session import Data

MOST_LINES = 2_000
"""Of each file; of longer ones a random sample."""
_SHARE, _LEAST, _MOST = 0.03, 5.0, 600.0


def allowance(trained_for: float) -> float:
    """Seconds that may be spent after training for so many: 3 %, within bounds."""
    return min(max(_SHARE * trained_for, _LEAST), _MOST)


def measure(run: Run, trainer: Any, data: "Mapping[str, Data | None]", seconds: float) -> None:
    """Report the loss of each line, of a sample where there is no time for all of them.

    The model is sealed and reported already: nothing that happens here can take it back.
    """
    if not any(part and part.origins for part in data.values()):
        return  # a method whose cases have no loss of their own
    try:
        _report(run, _measured(run, trainer, data, time.monotonic() + seconds), data)
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        run.reporter.message("warn", "The loss of each case could not be measured.")


def _report(run: Run, found: list[Example], data: "Mapping[str, Data | None]") -> None:
    lines = sum(len(_rows_by_line(part)) for part in data.values() if part)
    if not found:
        return
    run.reporter.send(Examples(examples=found, lines=lines))
    if len(found) < lines:
        run.reporter.message(
            "info", f"The loss of each case was measured on a sample: {len(found)} of {lines}."
        )


def _rows_by_line(data: "Data") -> dict[int, list[int]]:
    """A line is several cases where the template shows history otherwise than it was said."""
    rows: dict[int, list[int]] = defaultdict(list)
    for row, origin in enumerate(data.origins):
        rows[origin.line].append(row)
    for line in data.left_out_lines:
        rows[line] = []
    return rows


def _measured(
    run: Run, trainer: Any, data: "Mapping[str, Data | None]", until: float
) -> list[Example]:
    chance = random.Random(run.config.seed)  # noqa: S311 - a sample, not a secret
    todo = []
    for split, part in data.items():
        if part:
            lines = list(_rows_by_line(part).items())
            sample = chance.sample(lines, min(len(lines), MOST_LINES))
            todo += [(split, part, line, rows) for line, rows in sample]
    chance.shuffle(todo)
    trainer.model.eval()
    found = []
    for split, part, line, rows in todo:
        # All processes of a run measure each case together, and end after the same one.
        run.stop.compare()
        if run.stop.asked or group.any_of(time.monotonic() > until):
            break
        origins = [part.origins[row] for row in rows]
        tokens = sum(origin.tokens for origin in origins)
        total = sum(
            _loss(trainer, part.rows[row]) * origin.tokens
            for row, origin in zip(rows, origins, strict=True)
        )
        found.append(
            Example.model_validate(
                {
                    "split": split,
                    "line": line,
                    "loss": total / tokens if tokens and math.isfinite(total) else None,
                    "tokens": tokens,
                    "truncated": any(origin.truncated for origin in origins),
                }
            )
        )
    return found


def _loss(trainer: Any, row: dict[str, Any]) -> float:
    """The same figure that training lowers, of a batch that holds this case alone."""
    loss, _, _ = trainer.prediction_step(
        trainer.model, trainer.data_collator([row]), prediction_loss_only=True
    )
    return float(loss)
