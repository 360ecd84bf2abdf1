"""Adapters of several fine-tunes in one batch.

peft puts their matrices into the model; the arithmetic is ours. peft's own way (`adapter_names`)
registers hooks on every layer at every token and gathers rows by index: on a small model it
doubled the time of a step.
"""

import json
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from torch.nn.functional import linear

BASE = ""  # the key of a row that uses no adapter

# Each changes the arithmetic in a way that rows of one batch cannot do separately (vLLM refuses
# the same), or reaches outside the adapter's own matrices.
REFUSED = (
    "use_dora", "modules_to_save", "layer_replication", "trainable_token_indices",
    "target_parameters", "alora_invocation_tokens", "lora_bias", "use_qalora", "use_bdlora",
)  # fmt: skip
KEPT = (
    "r", "lora_alpha", "target_modules", "exclude_modules", "fan_in_fan_out", "use_rslora",
    "rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern",
)  # fmt: skip


class MixedLora:
    def __init__(self) -> None:
        self._runs: list[tuple[str, int, int]] = []  # neighbouring rows with the same adapter
        self._tables: list[dict[str, tuple[Any, Any]]] = []

    def adopt(self, peft: Any, key: str) -> None:
        """Takes over the layers that hold matrices of adapter `key`."""
        from peft.tuners.lora import LoraLayer

        for name, layer in peft.named_modules():
            if not isinstance(layer, LoraLayer):
                continue
            if key in layer.lora_embedding_A or layer.__class__.__name__ != "Linear":
                raise ValueError(f"adapters on {name} ({layer.__class__.__name__}) are unsupported")
            if key not in layer.lora_A:
                continue
            if "luthier_table" not in layer.__dict__:
                layer.luthier_table = {}
                layer.forward = partial(self._forward, layer.base_layer, layer.luthier_table)
                self._tables.append(layer.luthier_table)
            down, up = layer.lora_A[key].weight.data, layer.lora_B[key].weight.data
            up.mul_(layer.scaling[key])
            layer.luthier_table[key] = (down, up.t())

    def forget(self, key: str) -> None:
        for table in self._tables:
            table.pop(key, None)

    def plan(self, adapters: Sequence[str]) -> None:
        """Says which adapter each row of the next forward pass uses."""
        self._runs, start = [], 0
        for key, rows in groupby(adapters):
            stop = start + len(list(rows))
            if key != BASE:
                self._runs.append((key, start, stop))
            start = stop

    def _forward(self, base: Any, table: dict[str, tuple[Any, Any]], x: Any) -> Any:
        result = base(x)
        for key, start, stop in self._runs:
            if key in table:
                down, up = table[key]
                inner = linear(x[start:stop], down)
                part = result[start:stop].view(-1, result.shape[-1])
                part.addmm_(inner.view(-1, inner.shape[-1]), up)
        return result


def adapter_settings(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no adapter at {folder}")
    try:
        settings = json.loads((folder / "adapter_config.json").read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{folder} has no adapter_config.json") from None
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise ValueError("only adapters of type LORA are supported")
    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"{folder} has no adapter_model.safetensors (pickled weights are refused)")
    refused = [name for name in REFUSED if settings.get(name)]
    if settings.get("bias", "none") != "none":
        refused.append("bias")
    if refused:
        raise ValueError(f"adapters with {', '.join(refused)} are not supported")
    return {name: settings[name] for name in KEPT if settings.get(name) is not None}
