"""How the worker starts this program; imports neither torch nor a web framework."""

import os
import sys
from collections.abc import Mapping

API_KEY = "VLLM_API_KEY"  # vLLM's own name, so that both servers are started alike


def default_threads() -> int:
    """All cores but one: two threads beside a busy neighbour make OpenMP barriers spin for
    seconds, and the event loop needs a core to stream from."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) - 1)


def environment(threads: int) -> dict[str, str]:
    """What must be set before the process starts: torch and glibc read it once, at load.

    Nothing here lets the process reach a model hub. Unlike training, serving leaves glibc's mmap
    threshold alone: with it raised the peak of one long prompt would stay resident for ever.
    """
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "MALLOC_ARENA_MAX": "2",
    }


def command(
    model: str,
    name: str,
    port: int,
    *,
    host: str = "127.0.0.1",
    adapters: Mapping[str, str] | None = None,
    threads: int | None = None,
    dtype: str = "auto",
    max_model_len: int | None = None,
    parent_pid: int | None = None,
) -> list[str]:
    """The argument list; the API key goes in the environment, where `ps` does not show it."""
    words = [sys.executable, "-m", "app.serving", "--model", model, "--served-model-name", name]
    words += ["--host", host, "--port", str(port), "--dtype", dtype]
    words += ["--threads", str(threads or default_threads())]
    for adapter, path in (adapters or {}).items():
        words += ["--adapter", f"{adapter}={path}"]
    if max_model_len is not None:
        words += ["--max-model-len", str(max_model_len)]
    if parent_pid is not None:
        words += ["--parent-pid", str(parent_pid)]
    return words
