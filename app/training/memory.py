"""How much memory a training process may still take, in bytes."""

import os
from pathlib import Path

import psutil

from app.training import group

_CGROUPS = Path("/sys/fs/cgroup")


def free(device: str, limit: int | None) -> int:
    """Of the GPU, or this process's share of the machine's; the same number in every process of
    the run. `limit` is what one process may take in all, whatever else is free."""
    if device == "cuda":
        import torch

        available = int(torch.cuda.mem_get_info()[0])
        taken = torch.cuda.memory_reserved()
    else:
        available = min(psutil.virtual_memory().available, _left_in_cgroup()) // group.size()
        taken = psutil.Process().memory_info().rss
    if limit is not None:
        available = min(available, max(0, limit - taken))
    return group.least(available)


def _left_in_cgroup() -> int:
    """What the container, or a unit around it, may still take: in `available` memory only the
    machine's own is counted."""
    left = 2**62
    for folder in _own_cgroups():
        try:
            most = (folder / "memory.max").read_text().strip()
            if most == "max":
                continue
            used = int((folder / "memory.current").read_text())
            # Pages of files, which the kernel gives up when they are wanted.
            pages = dict(line.split() for line in (folder / "memory.stat").open())
            left = min(left, int(most) - used + int(pages.get("inactive_file", 0)))
        except (OSError, ValueError):
            continue
    return max(0, left)


def _own_cgroups() -> list[Path]:
    """Our own and those around it, of version 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = Path(os.path.normpath(f"{_CGROUPS}/{own}"))
    return [one for one in (folder, *folder.parents) if one.is_relative_to(_CGROUPS)]
