"""Together's words and ours: markers in suffixes, training lines, jobs, events, metrics.

Wire format: the SDK 3.1.1's types, togethercomputer/openapi of 2026-04-28, and Together's page on
training metrics for the names of the values.
"""

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from app.core import clock
from app.providers.base import OVER, Item, Method, Sighting, Status
from app.providers.errors import ProviderRefused

LONGEST_SUFFIX = 40
LONGEST_OWN_SUFFIX = 10
"""What a suffix has left beside the marker of a job that was restarted up to 99 times."""

STATUSES = {
    "pending": Status.PENDING,
    "queued": Status.QUEUED,
    "running": Status.RUNNING,
    "compressing": Status.RUNNING,
    "uploading": Status.RUNNING,
    "cancel_requested": Status.RUNNING,
    "completed": Status.SUCCEEDED,
    "error": Status.FAILED,
    "user_error": Status.FAILED,
    "cancelled": Status.CANCELLED,
}
ENDING = "cancel_requested"

# A job has no metadata, and nobody promises more than letters, digits and '-' in a suffix, because
# it becomes part of the model's name. After a '-' in the marker's part comes always one of these
# letters, so that what begins a marker cannot occur within one.
_ESCAPES = {"-": "-h", ".": "-d", "_": "-u"}
_TAGS = {"lt": "ftjob-", "ltu": "ftjob_", "ltm": ""}
_MARKED = re.compile(r"(?:^|-)(ltu|ltm|lt)-((?:[A-Za-z0-9]|-[hdu])+)$")

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


# Markers


def marked_suffix(marker: str, suffix: str | None) -> str:
    """The marker, after as much of our own suffix as there is room for."""
    tag, begins = next((tag, one) for tag, one in _TAGS.items() if marker.startswith(one))
    rest = "".join(_ESCAPES.get(letter, letter) for letter in marker.removeprefix(begins))
    tail = f"{tag}-{rest}"
    own = (suffix or "")[: max(0, LONGEST_SUFFIX - len(tail) - 1)].strip("-")
    return f"{own}-{tail}" if own else tail


def unmarked(suffix: str | None) -> tuple[str | None, str | None]:
    """The marker that a suffix carries, and our own suffix before it."""
    found = _MARKED.search(suffix or "")
    if not suffix or not found:
        return None, suffix or None
    letters = {escape: letter for letter, escape in _ESCAPES.items()}
    rest = re.sub(r"-[hdu]", lambda part: letters[part[0]], found[2])
    return _TAGS[found[1]] + rest, suffix[: found.start()] or None


# Training lines


def lines_of(content: bytes, method: Method) -> bytes:
    """Our cases in Together's form. Raises ProviderRefused for what that form cannot say."""
    convert = _pair if method == "dpo" else _conversation
    made = []
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            made.append(orjson.dumps(convert(orjson.loads(line), number)))
    return b"\n".join([*made, b""])


def _conversation(case: Mapping[str, Any], _: int = 0) -> dict[str, Any]:
    """No other columns than these two are known to it."""
    tools = case.get("tools") or [
        {"type": "function", "function": one} for one in case.get("functions") or []
    ]
    messages = [_message(one) for one in case["messages"]]
    return {"messages": messages, **({"tools": tools} if tools else {})}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    roles = {"developer": "system", "function": "tool"}
    return {**message, "role": roles.get(message["role"], message["role"])}


def _pair(case: Mapping[str, Any], number: int) -> dict[str, Any]:
    made: dict[str, Any] = {"input": _conversation(case["input"])}
    for name in ("preferred_output", "non_preferred_output"):
        if len(case[name]) != 1:
            raise ProviderRefused(
                f"Line {number}: {name} has {len(case[name])} messages, and Together AI takes"
                " answers of exactly one.",
                reason="several_messages",
            )
        made[name] = [_message(one) for one in case[name]]
    return made


# Jobs


def sighting(job: Mapping[str, Any], clean: Callable[[str], str]) -> Sighting:
    raw = str(job.get("status") or "")
    status = STATUSES.get(raw)
    over, running = status in OVER, status is Status.RUNNING
    method = job.get("training_method") or {}
    marker, suffix = unmarked(job["suffix"]) if job.get("suffix") else (_named_marker(job), None)
    events = [one for one in job.get("events") or [] if isinstance(one, dict)]
    steps = [one for one in events if one.get("step")]
    price = job.get("total_price")
    return Sighting(
        id=str(job["id"]),
        raw=raw,
        status=status,
        base_model=str(job.get("model") or ""),
        method="dpo" if method.get("method") == "dpo" else "supervised",
        marker=marker,
        ending=raw == ENDING,
        model=job.get("model_output_name") if status is Status.SUCCEEDED else None,
        error=failure(events, raw, clean) if status is Status.FAILED else None,
        step=steps[-1]["step"] if steps else None,
        total_steps=steps[-1].get("total_steps") if steps else None,
        epoch=job.get("epochs_completed"),
        trained_tokens=job.get("token_count"),
        # No document names its unit. The SDK's own command line shows it divided by 1e9.
        cost=price / 1e9 if isinstance(price, int | float) else None,
        estimated_finish=_finish(job.get("progress") or {}) if running else None,
        created_at=moment(job.get("created_at")),
        # The job's `started_at` is when its present stage began.
        started_at=_first(events, "training_start")
        or (moment(job.get("started_at")) if raw == "running" else None),
        finished_at=moment(job.get("updated_at")) if over else None,
        resolved=_settled(job, method),
        suffix=suffix,
        seed=job.get("random_seed"),
        training=job.get("training_file") or None,
        validation=job.get("validation_file") or None,
    )


def failure(
    events: Iterable[Mapping[str, Any]], raw: str, clean: Callable[[str], str]
) -> dict[str, Any]:
    """A job has no field for it: only its events say why it failed."""
    told = [one for one in events if _level(one) == "error"]
    code = str(told[-1].get("type") or raw).lower() if told else raw
    message = str(told[-1].get("message") or code) if told else "The provider gives no reason."
    return {"code": code, "message": clean(message), "param": None}


def _named_marker(job: Mapping[str, Any]) -> str | None:
    """The SDK's type of a single job, unlike that of a list's row, has no suffix. Its model's name
    has: after it comes a random part."""
    name = str(job.get("model_output_name") or "").rpartition("/")[2]
    return unmarked(name.rpartition("-")[0])[0]


def _settled(job: Mapping[str, Any], method: Mapping[str, Any]) -> dict[str, Any]:
    kind = job.get("training_type") or {}
    found = {
        "n_epochs": job.get("n_epochs"),
        "batch_size": job.get("batch_size"),
        "learning_rate": job.get("learning_rate"),
        "max_length": job.get("max_seq_length"),
        "adapter": {"Full": "full", "Lora": "lora"}.get(str(kind.get("type"))),
        "lora_rank": kind.get("lora_r"),
        "beta": method.get("dpo_beta"),
    }
    return {name: value for name, value in found.items() if value not in (None, "max", 0)}


def _finish(progress: Mapping[str, Any]) -> datetime | None:
    left = progress.get("seconds_remaining")
    if not progress.get("estimate_available") or not isinstance(left, int | float):
        return None
    return clock.now() + timedelta(seconds=float(left))


def _first(events: Iterable[Mapping[str, Any]], kind: str) -> datetime | None:
    told = (one for one in events if str(one.get("type")).lower() == kind)
    return moment(next(told, {}).get("created_at"))


def moment(word: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(word) if isinstance(word, str) and word else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


# What happened


def event(row: Mapping[str, Any]) -> Item:
    """They have no ids: the same words at the same time are the same event."""
    kind = str(row.get("type") or "").lower()
    told = f"{row.get('created_at')}|{kind}|{row.get('message')}"
    return Item(
        kind="message",
        key=hashlib.sha256(told.encode()).hexdigest()[:32],
        at=moment(row.get("created_at")),
        message=str(row.get("message") or kind),
        level=_level(row),  # type: ignore[arg-type]
        step=row.get("step"),
        total_steps=row.get("total_steps"),
    )


def _level(row: Mapping[str, Any]) -> str:
    """`warning`, `legacy_iwarning`, `Warning` …, and none at all in old jobs."""
    word = str(row.get("level") or "").lower()
    if word.endswith("error") or str(row.get("type")).lower() in ("job_error", "job_user_error"):
        return "error"
    return "warn" if word.endswith("warning") else "info"


def checkpoints(rows: Iterable[Mapping[str, Any]]) -> list[Item]:
    """One for each step: of a merged model and its adapter, the model. Told again when what calls
    it is known, or is another."""
    best: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        step = int(row.get("step") or 0)
        if step not in best or row.get("checkpoint") == "model":
            best[step] = row
    return [
        Item(
            kind="checkpoint",
            key=":".join(["checkpoint", str(step), *filter(None, [row.get("object_name")])]),
            at=moment(row.get("created_at")),
            step=step,
            model=row.get("object_name") or None,
            provider_id=str(row.get("object_id") or row.get("path") or step),
        )
        for step, row in sorted(best.items())
    ]


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
