"""What this machine has, found without torch."""

import csv
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil


def describe() -> dict[str, Any]:
    """What does not change. Memory in bytes, of one; GPUs as nvidia-smi lists them."""
    return {"parts": [_processor(), *_gpus()]}


def with_load(machine: dict[str, Any]) -> dict[str, Any]:
    """The same with what changes: `memoryFree` in bytes of all of a part together, `utilization`
    in percent, both since the call before. None where the machine does not tell."""
    gpus = _listed("name,memory.total,memory.free,utilization.gpu") if _has_gpu(machine) else []
    return {**machine, "parts": [{**part, **_load(part, gpus)} for part in machine["parts"]]}


def visible_gpus() -> list[str]:
    """What CUDA calls the GPUs that this worker may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name for name in allowed.split(",") if name.strip()]
    return [str(index) for index, _ in enumerate(_listed("name"))]


def _processor() -> dict[str, Any]:
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return {
        "id": "cpu",
        "name": _processor_name(),
        "kind": "cpu",
        "memory": psutil.virtual_memory().total,
        "count": len(affinity) if affinity else os.cpu_count() or 1,
    }


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _has_gpu(machine: dict[str, Any]) -> bool:
    return any(part["kind"] == "gpu" for part in machine["parts"])


def _load(part: dict[str, Any], gpus: list[list[str]]) -> dict[str, Any]:
    if part["kind"] == "cpu":
        return {
            "memoryFree": psutil.virtual_memory().available,
            "utilization": psutil.cpu_percent(),
        }
    alike = [row for row in gpus if row[0] == part["name"] and _bytes(row[1]) == part["memory"]]
    free = [_bytes(row[2]) for row in alike]
    busy = [float(row[3]) for row in alike if row[3].replace(".", "").isdigit()]
    return {
        "memoryFree": sum(free) if free else None,
        "utilization": sum(busy) / len(busy) if busy else None,
    }


def _bytes(mebibytes: str) -> int:
    """0 for "[N/A]", which some GPUs that share the machine's memory answer."""
    return int(mebibytes) * 1_048_576 if mebibytes.isdigit() else 0


def _listed(columns: str) -> list[list[str]]:
    """A row for each GPU; none where nvidia-smi is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [f"--query-gpu={columns}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return list(csv.reader(listed.stdout.splitlines(), skipinitialspace=True))


def _gpus() -> list[dict[str, Any]]:
    kinds: dict[tuple[str, int], int] = {}
    for name, mebibytes in _listed("name,memory.total"):
        kind = (name, _bytes(mebibytes))
        kinds[kind] = kinds.get(kind, 0) + 1
    return [
        {
            "id": f"gpu{index}",
            "name": name,
            "kind": "gpu",
            "memory": memory,
            "count": count,
        }
        for index, ((name, memory), count) in enumerate(kinds.items())
    ]
