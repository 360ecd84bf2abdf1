"""Bedrock's tuning jobs in our words: states, hyperparameters, and the steps of their files."""

from collections.abc import Callable, Mapping
from typing import Any

from app.providers.base import Item, Method, Sighting, Status
from app.providers.bedrock.names import marker_of, suffix_of
from app.providers.values import csv_rows, moment, number

STATUSES = {
    "InProgress": Status.RUNNING,
    "Stopping": Status.RUNNING,
    "Completed": Status.SUCCEEDED,
    "Failed": Status.FAILED,
    "Stopped": Status.CANCELLED,
}

# Theirs are all text. Claude and Llama take a multiplier, Nova the rate itself.
NUMBERS = {
    "n_epochs": "epochCount",
    "batch_size": "batchSize",
    "learning_rate_multiplier": "learningRateMultiplier",
    "learning_rate": "learningRate",
    "warmup_steps": "learningRateWarmupSteps",
}
STOPPING = {"patience": "earlyStoppingPatience", "min_delta": "earlyStoppingThreshold"}


def sighting(job: Mapping[str, Any], clean: Callable[[str], str]) -> Sighting:
    """Of a whole job, or of a row of a list, which lacks much."""
    raw = str(job.get("status", ""))
    name, made = str(job.get("jobName", "")), job.get("outputModelName") or ""
    marker = marker_of(name)
    words = str(job.get("failureMessage") or "")
    failed = raw == "Failed"
    kind: Method = "supervised"
    if job.get("customizationType") == "REINFORCEMENT_FINE_TUNING":
        kind = "reinforcement"
    validators = (job.get("validationDataConfig") or {}).get("validators") or [{}]
    output = (job.get("outputDataConfig") or {}).get("s3Uri")
    return Sighting(
        id=str(job["jobArn"]),
        raw=raw,
        status=_in_progress(job) if raw == "InProgress" else STATUSES.get(raw),
        base_model=str(job.get("baseModelArn", "")).rpartition("foundation-model/")[2],
        method=kind,
        marker=marker,
        ending=raw == "Stopping",
        model=(
            job.get("outputModelArn") or job.get("customModelArn") if raw == "Completed" else None
        ),
        error=(
            {"code": "failed", "message": clean(words), "param": None} if failed and words else None
        ),
        created_at=moment(job.get("creationTime")),
        finished_at=moment(job.get("endTime")),
        resolved=_settled(job.get("hyperParameters") or {}),
        suffix=suffix_of(made, marker) if marker else None,
        training=(job.get("trainingDataConfig") or {}).get("s3Uri"),
        validation=validators[0].get("s3Uri"),
        name=name or None,
        extra={"output": output} if output else {},
    )


def _in_progress(job: Mapping[str, Any]) -> Status:
    """The parts are promised for distillation only: without them it runs."""
    parts = job.get("statusDetails") or {}
    words = {
        name: (parts.get(f"{name}Details") or {}).get("status")
        for name in ("validation", "dataProcessing", "training")
    }
    if not any(words.values()) or words["training"] not in (None, "NotStarted"):
        return Status.RUNNING
    if words["validation"] in ("NotStarted", "InProgress"):
        return Status.VALIDATING
    return Status.QUEUED


def told(hyperparameters: Mapping[str, Any]) -> dict[str, str]:
    """As a create says them."""
    stopping = hyperparameters.get("early_stopping") or {}
    found = {theirs: hyperparameters.get(ours) for ours, theirs in NUMBERS.items()}
    found |= {theirs: stopping.get(ours) for ours, theirs in STOPPING.items()}
    return {name: f"{value}" for name, value in found.items() if value is not None}


def _settled(theirs: Mapping[str, Any]) -> dict[str, Any] | None:
    found, stopping = _named(NUMBERS, theirs), _named(STOPPING, theirs)
    if stopping:
        found["early_stopping"] = stopping
    return found or None


def _named(names: Mapping[str, str], theirs: Mapping[str, Any]) -> dict[str, Any]:
    found = {ours: _plain(theirs.get(name)) for ours, name in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def _plain(word: Any) -> int | float | None:
    """Whole numbers as such."""
    value = number(word)
    whole = value is not None and value.is_integer() and "." not in str(word)
    return int(value) if value is not None and whole else value


def points_of(kind: str, content: bytes) -> list[Item]:
    """The steps of a metrics file, of the kind `training` or `validation`. Theirs begin with 0."""
    found = []
    for row in csv_rows(content):
        before, loss = number(row.get("step_number")), number(row.get(f"{kind}_loss"))
        if before is None or loss is None:
            continue
        step = int(before) + 1
        found.append(
            Item(
                "metrics",
                f"{kind}:{step}",
                step=step,
                epoch=number(row.get("epoch_number")),
                values={f"{kind}_loss": loss},
            )
        )
    return found
