"""What goes to Fireworks and comes from it as text: names, training lines, the metrics file.

The columns of the metrics file are nowhere documented. We take it to be JSON lines or CSV with a
row for each step, and read what trainers usually call things; what we do not know we leave out.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any

from app.providers.base import Data, Item
from app.providers.cases import converted, renamed, tools_of
from app.providers.errors import ProviderRefused
from app.providers.markers import from_base32, in_base32
from app.providers.values import csv_rows, json_rows, number

LONGEST_ID = 63
_PREFIX = "luthier-"

_STEPS = ("step", "global_step", "train_step", "_step")
_TRAINING = {
    "loss": "training_loss",
    "train_loss": "training_loss",
    "training_loss": "training_loss",
    "accuracy": "training_accuracy",
    "train_accuracy": "training_accuracy",
    "mean_token_accuracy": "training_accuracy",
    "learning_rate": "learning_rate",
    "lr": "learning_rate",
    "grad_norm": "gradient_norm",
    "gradient_norm": "gradient_norm",
    "tokens_per_second": "tokens_per_second",
}
_PREFERENCES = {
    "rewards_chosen": "chosen_reward",
    "chosen_reward": "chosen_reward",
    "rewards_rejected": "rejected_reward",
    "rejected_reward": "rejected_reward",
    "rewards_accuracies": "reward_accuracy",
    "reward_accuracy": "reward_accuracy",
    "rewards_margins": "reward_margin",
    "reward_margin": "reward_margin",
    "margin": "reward_margin",
}
_VALIDATION = {
    "loss": "validation_loss",
    "accuracy": "validation_accuracy",
    "mean_token_accuracy": "validation_accuracy",
    **{theirs: f"validation_{ours}" for theirs, ours in _PREFERENCES.items()},
}
COLUMNS = {
    **_TRAINING,
    **_PREFERENCES,
    **{
        f"{before}_{theirs}": ours
        for before in ("eval", "validation", "valid")
        for theirs, ours in _VALIDATION.items()
    },
}


# Names: at most 63 of a-z, 0-9 and '-', while our own tell capital letters from small ones.


def job_id(marker: str) -> str:
    """The id of the job with this marker. `marker_of` turns it back."""
    made = _PREFIX + in_base32(marker)
    if len(made) > LONGEST_ID:
        raise ProviderRefused(f"{marker!r} is too long for a job's name at Fireworks.")
    return made


def marker_of(id: str) -> str | None:
    if not id.startswith(_PREFIX):
        return None
    marker = from_base32(id.removeprefix(_PREFIX))
    # Not every text of the right letters is what we would have made.
    if marker is None or not (marker.isascii() and marker.isprintable()) or job_id(marker) != id:
        return None
    return marker


def model_id(suffix: str | None, marker: str) -> str:
    """For the tuned model: readable, and never the same for two jobs."""
    words = re.sub(r"[^a-z0-9]+", "-", (suffix or "").lower()).strip("-")[:40].strip("-")
    unique = hashlib.sha256(marker.encode()).hexdigest()[:12]
    return f"{words or 'luthier'}-{unique}"


# Training data


def convert(data: Data, into: IO[bytes]) -> int:
    """Write the cases as Fireworks takes them; how many there are."""
    count = 0
    with data.path.open("rb") as lines:
        form = _pair if data.method == "dpo" else _conversation
        for line in converted(lines, form, f"{data.role}_file"):
            into.write(line)
            count += 1
    return count


def _conversation(case: Mapping[str, Any]) -> dict[str, Any]:
    return {"messages": _messages(case["messages"]), **tools_of(case)}


def _pair(case: Mapping[str, Any]) -> dict[str, Any]:
    outputs = {name: _messages(case[name]) for name in ("preferred_output", "non_preferred_output")}
    return {"input": _conversation(case["input"]), **outputs}


def _messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """They know no `developer`, which is OpenAI's newer word for the system's role."""
    return renamed(messages, {"developer": "system"})


# Metrics


def is_csv(content: bytes) -> bool:
    return not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))


def points_of(content: bytes) -> list[Item]:
    """The steps of a metrics file. Rows of one step are one item: some write a second row for the
    validation."""
    found: dict[int, tuple[float | None, dict[str, float | None]]] = {}
    for raw in _rows(content):
        row = {_plain(name): value for name, value in raw.items() if isinstance(name, str)}
        steps = (number(row.get(name)) for name in _STEPS)
        step = next((one for one in steps if one is not None), None)
        if step is None or not math.isfinite(step):
            continue
        epoch, values = found.get(int(step), (None, {}))
        for name, value in row.items():
            if name in COLUMNS and (measured := number(value)) is not None:
                values[COLUMNS[name]] = measured if math.isfinite(measured) else None
        found[int(step)] = number(row.get("epoch")) if epoch is None else epoch, values
    return [
        Item("metrics", f"metrics:{step}", step=step, epoch=epoch, values=values)
        for step, (epoch, values) in sorted(found.items())
        if values
    ]


def _rows(content: bytes) -> Iterator[Mapping[str, Any]]:
    if is_csv(content):
        yield from csv_rows(content)
        return
    for row in json_rows(content):
        # Some have the values one level down.
        inner = row.get("metrics")
        yield {**row, **inner} if isinstance(inner, dict) else row


def _plain(name: str) -> str:
    """`train/loss`, `Loss` and `rewards/chosen` without their dialect."""
    return name.strip().lower().removeprefix("train/").replace("/", "_").replace("-", "_")
