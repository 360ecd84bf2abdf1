"""Together's jobs in our words: states, hyperparameters, events, checkpoints.

Wire format: the SDK 3.1.1's types and togethercomputer/openapi of 2026-04-28.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from app.core import clock
from app.providers.base import OVER, Item, Sighting, Status
from app.providers.together.suffixes import unmarked
from app.providers.values import moment

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
