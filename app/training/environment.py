"""The surroundings of a training process: what its supervisor exports, what it does to itself."""

import os
import sys

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


def default_threads() -> int:
    """All cores but one.

    With as many threads as cores, one busy neighbour makes the others spin at every barrier:
    steps of 0.7 s became 3 to 16 s. The core left over serves the API.
    """
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)) - 1)
    return max(1, (os.cpu_count() or 2) - 1)


def command(config: str, processes: int = 1) -> list[str]:
    """The arguments to Python that train with this file."""
    if processes == 1:
        return ["-m", "app.training", config]
    return ["-m", "app.training.launch", str(processes), config]


def environment(threads: int | None = None, allow_hub: bool = False) -> dict[str, str]:
    """Variables to export to a training process, over those it inherits.

    They are read before `main` runs (by the loader, by OpenMP), so the process cannot set them.
    """
    count = str(threads or default_threads())
    variables = {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        # Keep freed memory instead of handing it back after every layer: a fifth of the run time.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "8589934592",
        "MALLOC_TOP_PAD_": "67108864",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        # Several processes meet on this machine alone.
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "NCCL_SOCKET_IFNAME": LOOPBACK,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONUNBUFFERED": "1",
    }
    if not allow_hub:
        variables |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return variables


def use_one_gpu() -> None:
    """Show the libraries a single accelerator; to be called before torch is imported.

    With several in sight and no launcher the trainer would wrap the model in `DataParallel`.
    """
    if "LOCAL_RANK" in os.environ:
        return  # a launcher gives each of its processes one already
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
