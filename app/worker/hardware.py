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
    """Memory in bytes. GPUs as nvidia-smi lists them."""
    return {"parts": [_processor(), *_gpus()]}


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


def _gpus() -> list[dict[str, Any]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    kinds: dict[tuple[str, int], int] = {}
    for name, mebibytes in csv.reader(listed.stdout.splitlines(), skipinitialspace=True):
        kind = (name, int(mebibytes) * 1_048_576)
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
