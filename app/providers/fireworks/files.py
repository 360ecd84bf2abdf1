"""What goes to Fireworks and comes from it as text: names, training lines, the metrics file.

The columns of the metrics file are nowhere documented. We take it to be JSON lines or CSV with a
row for each step, and read what trainers usually call things; what we do not know we leave out.
"""

import asyncio
import base64
import binascii
import csv
import hashlib
import io
import json
import math
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import IO, Any

import orjson

from app.providers.base import Data, Item
from app.providers.errors import ProviderRefused

LONGEST_ID = 63
_PREFIX = "luthier-"
_PIECE = 1 << 20

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
    made = _PREFIX + base64.b32encode(marker.encode()).decode().rstrip("=").lower()
    if len(made) > LONGEST_ID:
        raise ProviderRefused(f"{marker!r} is too long for a job's name at Fireworks.")
    return made


def marker_of(id: str) -> str | None:
    if not id.startswith(_PREFIX):
        return None
    letters = id.removeprefix(_PREFIX).upper()
    try:
        marker = base64.b32decode(letters + "=" * (-len(letters) % 8)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    # Not every text of the right letters is what we would have made.
    return marker if marker.isprintable() and job_id(marker) == id else None


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
        for line in lines:
            if line.strip():
                case = orjson.loads(line)
                case = _pair(case) if data.method == "dpo" else _conversation(case)
                into.write(orjson.dumps(case) + b"\n")
                count += 1
    return count


async def pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, _PIECE):
        yield piece


def _conversation(case: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"messages": _messages(case["messages"])}
    tools = case.get("tools") or [
        {"type": "function", "function": function} for function in case.get("functions") or ()
    ]
    return {**made, "tools": tools} if tools else made


def _pair(case: Mapping[str, Any]) -> dict[str, Any]:
    outputs = {name: _messages(case[name]) for name in ("preferred_output", "non_preferred_output")}
    return {"input": _conversation(case["input"]), **outputs}


def _messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """They know no `developer`, which is OpenAI's newer word for the system's role."""
    return [
        {**message, "role": "system"} if message["role"] == "developer" else message
        for message in messages
    ]


# Metrics


def is_csv(content: bytes) -> bool:
    return not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))


def points_of(content: bytes) -> list[Item]:
    """The steps of a metrics file. Rows of one step are one item: some write a second row for the
    validation."""
    found: dict[int, tuple[float | None, dict[str, float | None]]] = {}
    for raw in _rows(content):
        row = {_plain(name): value for name, value in raw.items() if isinstance(name, str)}
        step = next(
            (number for name in _STEPS if (number := _number(row.get(name))) is not None), None
        )
        if step is None or not math.isfinite(step):
            continue
        epoch, values = found.get(int(step), (None, {}))
        for name, value in row.items():
            if name in COLUMNS and (number := _number(value)) is not None:
                values[COLUMNS[name]] = number if math.isfinite(number) else None
        found[int(step)] = _number(row.get("epoch")) if epoch is None else epoch, values
    return [
        Item("metrics", f"metrics:{step}", step=step, epoch=epoch, values=values)
        for step, (epoch, values) in sorted(found.items())
        if values
    ]


def _rows(content: bytes) -> Iterator[Mapping[str, Any]]:
    text = content.decode("utf-8-sig", "replace")
    if is_csv(content):
        yield from csv.DictReader(io.StringIO(text))
        return
    for line in text.splitlines():
        try:
            row = json.loads(line)  # unlike orjson it takes NaN, which trainers write
        except ValueError:
            continue  # blank, or the end is still being written
        if isinstance(row, dict):
            # Some have the values one level down.
            inner = row.get("metrics")
            yield {**row, **inner} if isinstance(inner, dict) else row


def _plain(name: str) -> str:
    """`train/loss`, `Loss` and `rewards/chosen` without their dialect."""
    return name.strip().lower().removeprefix("train/").replace("/", "_").replace("-", "_")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value in (None, ""):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
