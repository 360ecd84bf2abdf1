"""The processes of one run: usually one, several where `launch.py` started them.

Each holds a copy of the model and takes its share of every batch. Whatever decides what comes next
has to be decided by all of them alike, or they would wait for each other for ever.
"""

import os
import sys


def size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the one that reports, and writes what there is one of."""
    return int(os.environ.get("RANK", "0")) == 0


def join(device: str) -> None:
    """Meet the others. What the functions below compare travels between processors, whatever
    gradients travel by."""
    if size() == 1:
        return
    import torch
    from torch import distributed

    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("cpu:gloo,cuda:nccl")
    else:
        distributed.init_process_group("gloo")


def leave(status: int) -> None:
    """End this process, if it is one of several, on the spot.

    Torch takes a process group apart while it holds Python's lock, and waits there for threads of
    the group, which may be waiting for that lock.
    """
    if size() > 1:
        sys.stderr.flush()
        os._exit(status)


def wait() -> None:
    """Until all have come this far."""
    least(0)


def any_of(flag: bool) -> bool:
    return -least(-int(flag)) == 1


def least(number: int) -> int:
    """The smallest of everybody's numbers."""
    if size() == 1:
        return number
    import torch
    from torch import distributed

    shared = torch.tensor(number, dtype=torch.int64)
    distributed.all_reduce(shared, distributed.ReduceOp.MIN)
    return int(shared)


def is_broken_by(error: Exception) -> bool:
    """Whether another process was lost, which is no fault of the job's."""
    if size() == 1:
        return False
    from torch import distributed

    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()
