"""The values of a job's steps, as Together names them.

Together's page on training metrics has the names.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from app.providers.base import Item

_TRAINING = {
    "loss": "training_loss",
    "accuracy": "training_accuracy",
    "mean_token_accuracy": "training_accuracy",
    "learning_rate": "learning_rate",
    "lr": "learning_rate",
    "grad_norm": "gradient_norm",
    "gradient_norm": "gradient_norm",
    "tokens_per_second": "tokens_per_second",
    "kl": "kl",
}
_VALIDATION = {
    "loss": "validation_loss",
    "accuracy": "validation_accuracy",
    "mean_token_accuracy": "validation_accuracy",
}
_REWARDS = {
    "rewards_chosen": "chosen_reward",
    "rewards_rejected": "rejected_reward",
    "rewards_accuracies": "reward_accuracy",
    "rewards_accuracy": "reward_accuracy",
    "rewards_margins": "reward_margin",
    "rewards_margin": "reward_margin",
}
_VALUES = {
    "train": _TRAINING | _REWARDS,
    "eval": _VALIDATION | {name: f"validation_{ours}" for name, ours in _REWARDS.items()},
}
_PARTS = {"train": "train", "training": "train"} | dict.fromkeys(
    ("eval", "valid", "validation", "val"), "eval"
)
_STEPS = ("global_step", "step")

# As OpenAI's result files call them, so that one reader is enough.
_COLUMNS = {
    "training_loss": "train_loss",
    "training_accuracy": "train_accuracy",
    "validation_loss": "valid_loss",
    "validation_accuracy": "valid_mean_token_accuracy",
}


def points(rows: Iterable[Mapping[str, Any]]) -> list[Item]:
    """One for each step. Its evaluation comes as a row of its own, and may come later: then the
    step is told again, whole, under another key."""
    found: dict[int, Item] = {}
    for row in rows:
        item = _point(row)
        if item is None or item.step is None:
            continue
        before = found.get(item.step)
        values = {**(before.values if before else {}), **item.values}
        evaluated = any(name.startswith("validation") for name in values)
        found[item.step] = Item(
            kind="metrics",
            key=f"metrics:{item.step}" + (":eval" if evaluated else ""),
            at=(before.at if before else None) or item.at,
            step=item.step,
            epoch=(before.epoch if before else None) or item.epoch,
            values=values,
        )
    return [found[step] for step in sorted(found)]


def _point(row: Mapping[str, Any]) -> Item | None:
    step: int | None = None
    at, epoch, values = None, None, {}
    for name, value in row.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        part, rest = _parts_of(name)
        if rest in _STEPS:
            step = int(value)
        elif rest == "epoch":
            epoch = float(value)
        elif rest == "timestamp":
            at = _instant(value)
        elif ours := _VALUES[part].get(rest):
            values[ours] = float(value)
    if step is None or not values:
        return None
    return Item("metrics", f"metrics:{step}", at=at, step=step, epoch=epoch, values=values)


def _parts_of(name: str) -> tuple[str, str]:
    """`train/loss`, `eval_loss`, `loss` → the half that it belongs to, and what is measured."""
    first, _, rest = name.lower().replace("/", "_").partition("_")
    if rest and first in _PARTS:
        return _PARTS[first], rest
    return "train", f"{first}_{rest}" if rest else first


def _instant(value: float) -> datetime:
    """Seconds since 1970, or a thousandth, a millionth, a billionth of them: the page shows the
    last."""
    while value > 1e11:
        value /= 1000
    return datetime.fromtimestamp(value, UTC)


def csv_of(items: list[Item]) -> bytes:
    names = sorted({name for item in items for name in item.values})
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["step", *(_COLUMNS.get(name, name) for name in names)])
    for item in items:
        shown = [item.values.get(name) for name in names]
        rows.writerow([item.step, *("" if value is None else value for value in shown)])
    return out.getvalue().encode()
