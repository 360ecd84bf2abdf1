"""OpenAI's jobs in our words: states, hyperparameters, events, checkpoints, the values of steps."""

import hashlib
from collections.abc import Mapping
from typing import Any

from app.providers.base import Item, Method, Status
from app.providers.values import moment_of_seconds

HYPERPARAMETERS: dict[str, frozenset[str]] = {
    "supervised": frozenset({"n_epochs", "batch_size", "learning_rate_multiplier"}),
    "dpo": frozenset({"n_epochs", "batch_size", "learning_rate_multiplier", "beta"}),
    "reinforcement": frozenset(
        {
            "n_epochs",
            "batch_size",
            "learning_rate_multiplier",
            "compute_multiplier",
            "eval_interval",
            "eval_samples",
            "reasoning_effort",
        }
    ),
}

STATUSES = {
    "validating_files": Status.VALIDATING,
    "queued": Status.QUEUED,
    "running": Status.RUNNING,
    "paused": Status.PAUSED,
    "succeeded": Status.SUCCEEDED,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
}

# What the values of a step are called in events, checkpoints and result files.
VALUES = {
    "train_loss": "training_loss",
    "train_mean_token_accuracy": "training_accuracy",
    "train_accuracy": "training_accuracy",
    "full_valid_loss": "validation_loss",
    "valid_loss": "validation_loss",
    "full_valid_mean_token_accuracy": "validation_accuracy",
    "valid_mean_token_accuracy": "validation_accuracy",
    "validation_mean_token_accuracy": "validation_accuracy",
    "train_mean_reward": "reward",
    "train_reward_mean": "reward",
    "full_valid_mean_reward": "validation_reward",
    "valid_reward_mean": "validation_reward",
}


def method_of(job: Mapping[str, Any]) -> tuple[Method, dict[str, Any]]:
    """The method, and the hyperparameters as far as they are settled."""
    method = job.get("method") or {}
    kind = method.get("type", "supervised")
    told = (method.get(kind) or {}).get("hyperparameters") or job.get("hyperparameters") or {}
    settled = {name: value for name, value in told.items() if value not in (None, "auto", -1)}
    return kind if kind in ("dpo", "reinforcement") else "supervised", settled


def values_of(data: Mapping[str, Any]) -> dict[str, float | None]:
    """Of a step, by our names."""
    found: dict[str, float | None] = {}
    for theirs, ours in VALUES.items():
        value = data.get(theirs)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.setdefault(ours, float(value))
    return found


def event(row: Mapping[str, Any]) -> Item:
    data = row.get("data") or {}
    step, total = data.get("step"), data.get("total_steps")
    values = values_of(data)
    level = {"warn": "warn", "warning": "warn", "error": "error"}.get(row.get("level", ""), "info")
    measured = row.get("type") == "metrics" and step is not None and bool(values)
    return Item(
        kind="metrics" if measured else "message",
        key=str(row.get("id") or _made_up(row)),
        at=moment_of_seconds(row.get("created_at")),
        message=str(row.get("message", "")),
        level=level,  # type: ignore[arg-type]
        step=step,
        total_steps=total,
        values=values,
    )


def checkpoint(row: Mapping[str, Any]) -> Item:
    return Item(
        kind="checkpoint",
        key=str(row["id"]),
        at=moment_of_seconds(row.get("created_at")),
        step=int(row.get("step_number") or 0),
        values=values_of(row.get("metrics") or {}),
        model=row.get("fine_tuned_model_checkpoint"),
        provider_id=str(row["id"]),
    )


def _made_up(row: Mapping[str, Any]) -> str:
    told = f"{row.get('created_at')}|{row.get('type')}|{row.get('message')}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]
