"""What this machine computes with: the device, and the number format of the weights."""

import platform
import time
from importlib.metadata import version
from typing import Literal

from app.training import group
from app.training.config import Dtype
from app.training.hyperparameters import Adapter, Auto

PROBE_SIZE = 1024
PROBE_ROUNDS = 8
WORTH_IT = 1.15  # a smaller gain than this is eaten by the operations that do not gain


def device() -> Literal["cpu", "cuda"]:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_dtype(asked: Auto | Dtype, adapter: Adapter) -> tuple[Dtype, str]:
    """The format to load the weights in, and why.

    Full fine-tuning keeps float32 weights: in bfloat16 an update is often smaller than the
    distance to the next number, and the optimiser's state would be as coarse. Under LoRA the
    weights are frozen, and the small trained ones are float32 either way.
    """
    if adapter == "full":
        return "float32", "full fine-tuning keeps its weights in float32"
    if asked != "auto":
        return asked, "as configured"
    if device() == "cuda":
        import torch

        if torch.cuda.is_bf16_supported():
            return "bfloat16", "the accelerator computes in it"
        return "float32", "the accelerator cannot compute in bfloat16"
    # Processes of one run measure alike, and must not choose otherwise.
    gain = group.least(round(100 * _bfloat16_gain())) / 100
    if gain >= WORTH_IT:
        return "bfloat16", f"{gain:.1f} times as fast as float32 on this processor"
    return "float32", f"bfloat16 would run at {gain:.1f} times its speed on this processor"


def _bfloat16_gain() -> float:
    """Some processors multiply bfloat16 in hardware, others emulate it and lose: so measure.

    In processor time, in turns, keeping the best: on a busy machine the wall clock once found the
    faster format to be half as fast.
    """
    import torch

    matrices = [
        torch.ones(PROBE_SIZE, PROBE_SIZE, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)
    ]
    best = [float("inf"), float("inf")]
    for _ in range(PROBE_ROUNDS):
        for i, matrix in enumerate(matrices):
            begin = time.process_time()
            torch.mm(matrix, matrix)
            best[i] = min(best[i], time.process_time() - begin)
    return best[0] / max(best[1], 1e-9)


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    return {**packages, "python": platform.python_version()}
