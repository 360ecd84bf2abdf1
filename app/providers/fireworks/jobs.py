"""How Fireworks words a job: what we ask for, and what it shows.

A supervised job has its training at the top level, a preference job in `trainingConfig`; only the
first has fields for progress, cost and a validation set (types of fireworks-ai 1.2.28).
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from app.providers.base import OVER, Item, Method, Order, Sighting, Status
from app.providers.fireworks.files import marker_of, model_id
from app.providers.values import moment

SFT, DPO = "supervisedFineTuningJobs", "dpoJobs"
KINDS: dict[Method, str] = {"supervised": SFT, "dpo": DPO}
ID_PARAMETER = {SFT: "supervisedFineTuningJobId", DPO: "dpoJobId"}

_STATES = {
    "UNSPECIFIED": Status.PENDING,
    "CREATING": Status.PENDING,
    "CREATING_INPUT_DATASET": Status.VALIDATING,
    "VALIDATING": Status.VALIDATING,
    "PENDING": Status.QUEUED,
    "RE_QUEUEING": Status.QUEUED,
    "RUNNING": Status.RUNNING,
    "WRITING_RESULTS": Status.RUNNING,
    "IDLE": Status.RUNNING,
    "CANCELLING": Status.RUNNING,
    "PAUSED": Status.PAUSED,
    "COMPLETED": Status.SUCCEEDED,
    "EARLY_STOPPED": Status.SUCCEEDED,
    "FAILED": Status.FAILED,
    "EXPIRED": Status.FAILED,
    "CANCELLED": Status.CANCELLED,
}
STATUSES = {f"JOB_STATE_{word}": status for word, status in _STATES.items()}
GONE = frozenset({"JOB_STATE_DELETING", "JOB_STATE_DELETING_CLEANING_UP"})

# Of errors, and of `status.code`, which has the name.
GRPC = {
    0: "OK",
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    15: "DATA_LOSS",
    16: "UNAUTHENTICATED",
}

# Our names, and theirs. `batchSize` would be tokens of packed sequences; ours are examples.
TOLD = {
    "n_epochs": "epochs",
    "learning_rate": "learningRate",
    "batch_size": "batchSizeSamples",
    "lora_rank": "loraRank",
    "warmup_steps": "learningRateWarmupSteps",
    "max_length": "maxContextLength",
}


def body_of(order: Order, start: Mapping[str, str]) -> dict[str, Any]:
    """Of a create. `start` is `baseModel` or `warmStartFrom`."""
    told = order.hyperparameters
    training: dict[str, Any] = {
        **start,
        "outputModel": model_id(order.suffix, order.marker),
        "samplerCheckpointSaveIntervalSteps": _interval(order),
        **{TOLD[name]: value for name, value in told.items() if name in TOLD},
    }
    body: dict[str, Any] = {"dataset": order.training}
    if order.suffix:
        body["displayName"] = order.suffix
    if order.method == "dpo":
        # Without its method the loss is GRPO's. There is no field for validation data.
        dpo = {"dpo": {"beta": told["beta"]}} if "beta" in told else {}
        return {**body, "trainingConfig": training, "lossConfig": {"method": "DPO", **dpo}}
    if order.validation:
        body["evaluationDataset"] = order.validation
    return body | training


def sighting(job: Mapping[str, Any], home: str, clean: Callable[[str], str]) -> Sighting:
    """`home` is the account's full name; `clean` takes secrets out of words."""
    kind, id = str(job["name"]).split("/")[-2:]
    training = {**job, **(job.get("trainingConfig") or {})}
    raw, progress = str(job.get("state", "")), job.get("jobProgress") or {}
    status, marker = STATUSES.get(raw), marker_of(id)
    output = str(training.get("outputModel") or id)
    if "/" not in output:
        output = f"{home}/models/{output}"
    resolved = {ours: training[theirs] for ours, theirs in TOLD.items() if training.get(theirs)}
    if beta := ((job.get("lossConfig") or {}).get("dpo") or {}).get("beta"):
        resolved["beta"] = beta
    name = job.get("displayName") or None
    return Sighting(
        id=f"{kind}/{id}",
        raw=raw,
        status=status,
        base_model=str(training.get("baseModel") or training.get("warmStartFrom") or ""),
        method="dpo" if kind == DPO else "supervised",
        marker=marker,
        ending=raw == "JOB_STATE_CANCELLING",
        model=output if status is Status.SUCCEEDED else None,
        error=_error(raw, job.get("status") or {}, clean) if status is Status.FAILED else None,
        epoch=progress.get("epoch"),
        percent=progress.get("percent"),
        trained_tokens=int(progress["inputTokens"]) if progress.get("inputTokens") else None,
        cost=_dollars(job.get("estimatedCost")),
        created_at=moment(job.get("createTime")),
        finished_at=_finished(job) if status in OVER else None,
        resolved=resolved,
        suffix=name if marker else None,
        training=job.get("dataset"),
        validation=job.get("evaluationDataset") or None,
        name=name,
        extra={"metrics_url": job.get("metricsFileSignedUrl") or None},
    )


def checkpoint_of(row: Mapping[str, Any]) -> Item | None:
    """Of those that can be called, not those that training goes on from."""
    if "INFERENCE" not in str(row.get("checkpointType", "")):
        return None
    name = str(row["name"])
    id = name.rsplit("/", 1)[-1]
    step = re.search(r"(\d+)$", id)
    return Item(
        kind="checkpoint",
        key=f"checkpoint:{id}",
        at=moment(row.get("createTime")),
        step=int(step[1]) if step else None,
        model=name if row.get("promotable") else None,
        provider_id=name,
    )


def _finished(job: Mapping[str, Any]) -> datetime | None:
    return moment(job.get("completedTime")) or moment(job.get("updateTime"))


def _error(raw: str, status: Mapping[str, Any], clean: Callable[[str], str]) -> dict[str, Any]:
    words = str(status.get("message") or f"The job is {raw}, without a reason.")
    return {"code": str(status.get("code") or "FAILED"), "message": clean(words), "param": None}


def _dollars(money: Any) -> float | None:
    """google.type.Money."""
    if not isinstance(money, dict) or money.get("currencyCode") not in (None, "", "USD"):
        return None
    return float(money.get("units") or 0) + float(money.get("nanos") or 0) / 1e9


def _interval(order: Order) -> int:
    """Steps between checkpoints, for about three on the way: without a number there are none. How
    many steps there will be is a guess where the batch is left to them."""
    epochs = order.hyperparameters.get("n_epochs", 1)
    batch = order.hyperparameters.get("batch_size", 32)
    return max(1, int(order.case_count * epochs / batch) // 4)
