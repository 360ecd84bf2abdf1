"""Before anything large is loaded: how much memory the run will take, and how to make it fit.

The estimate is a sum over tensors that live at the same time, for decoders of the usual build; on
the CPU it is within a factor of 1.5 of what processes were measured to take.
"""

from dataclasses import dataclass
from typing import Any

from app.training import memory
from app.training.errors import TrainingFailed
from app.training.resolve import ResolvedHyperparameters
from app.training.run import Run

GIB = 2**30
_MARGIN = 1.1  # fragments of the allocator, and what is not counted
_LIBRARIES = 40_000_000  # what they load and keep once they first compute
_FLOAT32 = 4
# What a model that is built otherwise than most is met with; whether it loads, shows when it does.
_UNUSUAL = (AttributeError, KeyError, TypeError, ValueError, RuntimeError, ImportError)


@dataclass(frozen=True)
class Shape:
    """Of a model: counts of numbers. `adaptable` are in plus out features, over all layers that
    an adapter is put on."""

    parameters: int
    adaptable: int
    hidden: int
    heads: int
    inner: int
    layers: int
    vocabulary: int
    key_values: int

    @staticmethod
    def of(model_config: Any) -> "Shape":
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):  # shapes without memory
            model = AutoModelForCausalLM.from_config(model_config)
        head = model.get_output_embeddings()
        linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        text = model_config.get_text_config()
        heads = text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // heads
        return Shape(
            parameters=sum(p.numel() for p in model.parameters()),
            adaptable=sum(layer.in_features + layer.out_features for layer in linear),
            hidden=text.hidden_size,
            heads=heads,
            inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            layers=text.num_hidden_layers,
            vocabulary=text.vocab_size,
            key_values=2 * size * (getattr(text, "num_key_value_heads", None) or heads),
        )


@dataclass(frozen=True)
class Need:
    """In bytes: what stays as long as the run, and the most that comes and goes with a batch."""

    standing: int
    passing: int

    @property
    def total(self) -> int:
        return int((self.standing + self.passing) * _MARGIN) + _LIBRARIES


def needed(
    shape: Shape,
    resolved: ResolvedHyperparameters,
    device: str,
    dtype: str,
    longest: int,
    *,
    pairs: bool = False,
    validation: int = 0,
    processes: int = 1,
) -> Need:
    """`longest` and `validation` are tokens of the longest case, `validation` times its batch."""
    size = _FLOAT32 if dtype == "float32" else 2
    full = resolved.adapter == "full"
    trained = shape.parameters if full else resolved.lora_rank * shape.adaptable
    standing = shape.parameters * size
    if full and resolved.beta:  # the model to compare with; under LoRA it is the one without
        standing *= 2
    # Gradient and two moments; of an adapter the weights too.
    standing += trained * _FLOAT32 * (3 if full else 4)
    if processes > 1:
        standing += trained * _FLOAT32  # gradients on their way to the others

    length = longest + (resolved.max_completion_tokens or 0)
    tokens = resolved.per_device_batch_size * length * (2 if pairs else 1)
    layer = (8 * shape.hidden + 4 * shape.inner) * size
    if device == "cpu":  # attention keeps its scores there; on accelerators it is recomputed
        layer += 3 * shape.heads * length * size
    if not full and size < _FLOAT32:  # an adapter computes in float32, on a copy of each input
        layer += (6 * shape.hidden + shape.inner) * _FLOAT32
    if resolved.activation_checkpointing:
        kept = shape.layers * shape.hidden * size + layer
    else:
        kept = shape.layers * layer
    training = tokens * (kept + shape.vocabulary * (2 * _FLOAT32 + size))
    evaluating = validation * (layer + shape.vocabulary * (_FLOAT32 + size))
    sampling = 0
    if resolved.samples:
        together = resolved.batch_size * resolved.samples // processes
        cache = length * shape.layers * shape.key_values * size
        sampling = together * (cache + shape.vocabulary * 3 * _FLOAT32)
    return Need(standing, max(training, evaluating, sampling))


def fit(
    run: Run,
    model_config: Any,
    resolved: ResolvedHyperparameters,
    device: str,
    dtype: str,
    longest: int,
    longest_validation: int,
    processes: int,
) -> ResolvedHyperparameters:
    """The same batches in passes that fit. Raises TrainingFailed where even the smallest do not."""
    have = memory.free(device, run.config.memory_limit)
    try:
        shape = Shape.of(model_config)
    except _UNUSUAL as error:
        run.reporter.message("info", f"How much memory this will take is unknown: {error}.")
        return resolved

    def need(tried: ResolvedHyperparameters) -> Need:
        return needed(
            shape,
            tried,
            device,
            dtype,
            longest,
            pairs=run.config.method == "dpo",
            validation=tried.validation_batch_size(device) * longest_validation,
            processes=processes,
        )

    tried = resolved
    while need(tried).total > have:
        smaller = tried.with_smaller_passes()
        if smaller is None:
            raise _refusal(need(tried), have, tried, longest)
        tried = smaller
    found = f"about {_gib(need(tried).total)} of memory, of {_gib(have)} free"
    if tried == resolved:
        if run.resumed is None:
            run.reporter.message("info", f"Training will take {found}.")
    else:
        checkpointing = tried.activation_checkpointing and not resolved.activation_checkpointing
        run.reporter.message(
            "warn",
            f"For lack of memory each batch is taken in passes of {tried.per_device_batch_size},"
            f"{' recomputing activations,' if checkpointing else ''} which is slower and changes"
            f" no result: {found}.",
        )
    return tried


def _refusal(
    need: Need, have: int, resolved: ResolvedHyperparameters, longest: int
) -> TrainingFailed:
    lower, param = "max_length", "max_length"
    if Need(need.standing, 0).total > have:
        lower, param = "a smaller base model, or a machine with more memory", "base_model"
        if resolved.adapter == "full":
            lower, param = "adapter 'lora'", "adapter"
    elif resolved.samples:
        lower, param = "a smaller batch_size or max_completion_tokens", "batch_size"
    else:
        lower = f"a lower max_length (the longest case has {longest} tokens)"
    return TrainingFailed(
        "not_enough_memory",
        f"Training would take about {_gib(need.total)} of memory, even one case at a time, but"
        f" {_gib(have)} are free: {_gib(need.standing)} for the weights and what trains them,"
        f" {_gib(need.passing)} for a batch. Use {lower}.",
        param,
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
