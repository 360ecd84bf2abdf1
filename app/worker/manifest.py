"""The run manifest: all that has to be the same again for a run to be the same again."""

import platform
from importlib.metadata import version
from typing import Any

from app.jobs.progress import WorkOrder
from app.training.report import Started

# What a rerun may differ in from the first run, and then differs in its last digits too.
_SURROUNDINGS = (
    "baseSha256", "templateSha256", "device", "dtype", "threads", "processes", "versions"
)  # fmt: skip


def run_manifest(
    order: WorkOrder, said: Started, machine: dict[str, Any], hourly_cost: float
) -> dict[str, Any]:
    """As plain JSON. What was read, by the SHA-256 of its bytes; prices in US dollars."""
    return {
        "luthier": version("luthier"),
        "trainingSha256": order.training.sha256,
        "validationSha256": order.validation.sha256 if order.validation else None,
        "evaluation": order.job.evaluation,
        "evaluationSha256": order.evaluation.sha256 if order.evaluation else None,
        "baseModel": order.job.base_model,
        "baseSha256": said.base_sha256,
        "startSha256": order.start.manifest_sha256 if order.start else None,
        "method": order.job.method,
        "templateSha256": said.template_sha256,
        "hyperparameters": said.resolved.model_dump(mode="json", exclude_none=True),
        "seed": order.job.seed,
        "device": said.device,
        "dtype": said.dtype,
        "threads": said.threads,
        "processes": said.processes,
        "versions": {**said.versions, "python": platform.python_version()},
        "hardware": machine,
        "hourlyCost": hourly_cost,
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Where a rerun runs otherwise than the run it repeats, for people."""
    before = {"processes": 1, **before}  # runs of earlier versions had one
    return [
        f"{name} ({before.get(name)}, now {now[name]})"
        for name in _SURROUNDINGS
        if before.get(name) != now[name]
    ]
