"""Vertex AI's tuning jobs in our words: states, hyperparameters, labels, checkpoints.

Wire format: google-genai 3.4.0's types, as JSON of protobuf: 64-bit numbers are text.
"""

from collections.abc import Callable, Mapping
from typing import Any

from app.providers.base import Item, Method, Sighting, Status
from app.providers.markers import from_base32, in_base32
from app.providers.values import moment

LABEL = "luthier_job"

_SHARED = frozenset({"n_epochs", "learning_rate_multiplier", "lora_rank"})
HYPERPARAMETERS: dict[str, frozenset[str]] = {
    "supervised": _SHARED,
    "dpo": _SHARED | {"beta"},
    "reinforcement": _SHARED
    | {"batch_size", "eval_interval", "checkpoint_interval", "max_completion_tokens"},
}
THEIRS = {
    "n_epochs": "epochCount",
    "learning_rate_multiplier": "learningRateMultiplier",
    "lora_rank": "adapterSize",
    "beta": "beta",
    "batch_size": "batchSize",
    "eval_interval": "evaluateInterval",
    "checkpoint_interval": "checkpointInterval",
    "max_completion_tokens": "maxOutputTokens",
}
_FRACTIONS = frozenset({"learning_rate_multiplier", "beta"})
ADAPTER_SIZES = {
    1: "ADAPTER_SIZE_ONE",
    2: "ADAPTER_SIZE_TWO",
    4: "ADAPTER_SIZE_FOUR",
    8: "ADAPTER_SIZE_EIGHT",
    16: "ADAPTER_SIZE_SIXTEEN",
    32: "ADAPTER_SIZE_THIRTY_TWO",
}
_RANKS = {word: rank for rank, word in ADAPTER_SIZES.items()}
SPECS: dict[Method, str] = {
    "supervised": "supervisedTuningSpec",
    "dpo": "preferenceOptimizationSpec",
    "reinforcement": "reinforcementTuningSpec",
}

PARTLY = "JOB_STATE_PARTIALLY_SUCCEEDED"
_CANCELLING = "JOB_STATE_CANCELLING"
STATES = {
    "JOB_STATE_UNSPECIFIED": Status.PENDING,
    "JOB_STATE_PENDING": Status.PENDING,
    "JOB_STATE_QUEUED": Status.QUEUED,
    "JOB_STATE_RUNNING": Status.RUNNING,
    "JOB_STATE_UPDATING": Status.RUNNING,
    _CANCELLING: Status.RUNNING,
    "JOB_STATE_PAUSED": Status.PAUSED,
    "JOB_STATE_SUCCEEDED": Status.SUCCEEDED,
    PARTLY: Status.SUCCEEDED,
    "JOB_STATE_FAILED": Status.FAILED,
    "JOB_STATE_EXPIRED": Status.FAILED,
    "JOB_STATE_CANCELLED": Status.CANCELLED,
}
# `tuningJobState` says more while `state` says that the job runs.
_PARTS = {
    "TUNING_JOB_STATE_WAITING_FOR_QUOTA": Status.QUEUED,
    "TUNING_JOB_STATE_PROCESSING_DATASET": Status.VALIDATING,
    "TUNING_JOB_STATE_WAITING_FOR_CAPACITY": Status.QUEUED,
    "TUNING_JOB_STATE_TUNING": Status.RUNNING,
    "TUNING_JOB_STATE_POST_PROCESSING": Status.RUNNING,
}
# google.rpc.Code, as far as jobs fail with it.
_CODES = {
    1: "CANCELLED",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
}


def label_of(marker: str) -> str:
    """Labels have no capitals and no dots."""
    return in_base32(marker)


def marker_of(label: str | None) -> str | None:
    """None: nobody's, or a label that is not ours."""
    return from_base32(label) if label else None


def sighting_of(job: Mapping[str, Any], clean: Callable[[str], str]) -> Sighting:
    # Protobuf leaves out what is zero, here the unspecified state.
    state = raw = str(job.get("state") or "JOB_STATE_UNSPECIFIED")
    status, part = STATES.get(state), str(job.get("tuningJobState") or "")
    if status is Status.RUNNING and part in _PARTS:
        status, raw = _PARTS[part], state if state == _CANCELLING else part
    method: Method = next((method for method, name in SPECS.items() if name in job), "supervised")
    spec = job.get(SPECS[method]) or {}
    counted = next(iter((job.get("tuningDataStats") or {}).values()), None) or {}
    made, done = job.get("tunedModel") or {}, job.get("tuningJobMetadata") or {}
    step, total = _count(done.get("completedStepCount")), _count(counted.get("tuningStepCount"))
    succeeded = status is Status.SUCCEEDED
    base = job.get("baseModel") or (job.get("preTunedModel") or {}).get("tunedModelName")
    return Sighting(
        id=str(job["name"]),
        raw=raw,
        status=status,
        base_model=str(base or ""),
        method=method,
        marker=marker_of((job.get("labels") or {}).get(LABEL)),
        ending=state == _CANCELLING,
        model=made.get("endpoint") if succeeded else None,
        error=_error(job.get("error") or {}, status, clean),
        step=step,
        total_steps=total,
        epoch=_count(done.get("completedEpochCount")),
        percent=min(100.0, 100 * step / total) if step is not None and total else None,
        trained_tokens=_count(counted.get("totalBillableTokenCount")) if succeeded else None,
        created_at=moment(job.get("createTime")),
        started_at=moment(job.get("startTime")),
        finished_at=moment(job.get("endTime")),
        resolved=_resolved(spec.get("hyperParameters") or {}),
        suffix=job.get("tunedModelDisplayName"),
        training=spec.get("trainingDatasetUri"),
        validation=spec.get("validationDatasetUri"),
        extra={
            "checkpoints": list(made.get("checkpoints") or []),
            "metrics": job.get("gcsMetricsUri"),
            "dropped": _count(counted.get("totalTruncatedExampleCount")),
        },
    )


def _error(
    error: Mapping[str, Any], status: Status | None, clean: Callable[[str], str]
) -> dict[str, Any] | None:
    """A cancelled job carries one too, which says only that it was cancelled."""
    code = _count(error.get("code"))
    if not error or (status is Status.CANCELLED and code == 1):
        return None
    word = _CODES.get(code or 0, "UNKNOWN")
    return {"code": word, "message": clean(str(error.get("message") or word)), "param": None}


def _resolved(told: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for ours, theirs in THEIRS.items():
        value = told.get(theirs)
        if ours == "lora_rank":
            value = _RANKS.get(str(value))
        elif value is not None:
            value = float(value) if ours in _FRACTIONS else _count(value)
        if value is not None:
            found[ours] = value
    return found


def checkpoint(row: Mapping[str, Any]) -> Item:
    id = str(row.get("checkpointId") or row.get("step"))
    return Item(
        kind="checkpoint",
        key=f"checkpoint:{id}",
        step=_count(row.get("step")),
        epoch=_count(row.get("epoch")),
        model=row.get("endpoint"),
        provider_id=id,
    )


def _count(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
