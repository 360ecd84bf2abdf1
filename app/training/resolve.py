"""What "auto" becomes, and how one batch is cut into passes that fit in memory. No torch here."""

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.training.hyperparameters import (
    Adapter,
    Auto,
    DpoHyperparameters,
    EarlyStopping,
    Hyperparameters,
    Method,
    ReinforcementHyperparameters,
)

Device = Literal["cpu", "cuda"]

# A small set needs a certain number of optimiser steps before the task is learnt at all; a large
# one is learnt within a pass or two. Measured on the embedded model; see `_auto_epochs`. Pairs
# tell more than single answers, and a step of reinforcement costs as much as ten others.
WANTED_STEPS: dict[Method, int] = {"supervised": 60, "dpo": 40, "reinforcement": 40}
MOST_AUTO_EPOCHS = 25
MEDIUM_SET, LARGE_SET = 500, 2000
DEFAULT_MAX_LENGTH = 1024
# Activations of more tokens than this in one forward pass overran the memory of a small machine.
CPU_TOKENS_PER_PASS = 1024
# One 80 GB accelerator holds this much of a small model; larger models lower it by batch_size.
GPU_TOKENS_PER_PASS = 16_384

# With LoRA; a full fine-tune moves every weight and takes a tenth, or for the two methods that
# compare with the starting model a twentieth.
LORA_RATES: dict[Method, float] = {"supervised": 5e-4, "dpo": 1e-4, "reinforcement": 1e-4}
FULL_RATES: dict[Method, float] = {"supervised": 5e-5, "dpo": 5e-6, "reinforcement": 5e-6}
# How a batch is cut into passes: of the machine, not of the job, and without effect on results.
CUT = ("per_device_batch_size", "gradient_accumulation_steps", "activation_checkpointing")
DPO_BETA, REINFORCEMENT_BETA = 0.1, 0.04
# A group of samples is compared with itself: two would tell little, and each costs its full time.
SAMPLES: dict[Device, int] = {"cpu": 4, "cuda": 8}
MOST_SAMPLES = 64
COMPLETION_TOKENS: dict[Device, int] = {"cpu": 128, "cuda": 512}


class ResolvedHyperparameters(BaseModel):
    """The same settings as numbers; None where the method has no such setting.

    `samples` is how many completions are drawn of one prompt.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_epochs: int
    batch_size: int
    learning_rate: float
    learning_rate_multiplier: float
    warmup_steps: int
    adapter: Adapter
    lora_rank: int
    max_length: int
    checkpoint_interval: int
    eval_interval: int
    early_stopping: EarlyStopping | None = None
    beta: float | None = None
    compute_multiplier: float | None = None
    samples: int | None = None
    eval_samples: int | None = None
    max_completion_tokens: int | None = None
    reasoning_effort: str | None = None
    per_device_batch_size: int
    gradient_accumulation_steps: int
    activation_checkpointing: bool
    steps_per_epoch: int
    total_steps: int

    def cut_as(self, other: "ResolvedHyperparameters") -> "ResolvedHyperparameters":
        """The same with batches cut into passes as in `other`."""
        return self.model_copy(update={name: getattr(other, name) for name in CUT})

    def with_smaller_passes(self) -> "ResolvedHyperparameters | None":
        """The next step down in memory: smaller passes, then activations computed twice."""
        now = self.per_device_batch_size
        if now > 1:
            share = now * self.gradient_accumulation_steps
            smaller = _largest_divisor(share, at_most=now - 1)
            return self.model_copy(
                update={
                    "per_device_batch_size": smaller,
                    "gradient_accumulation_steps": share // smaller,
                }
            )
        if not self.activation_checkpointing:
            return self.model_copy(update={"activation_checkpointing": True})
        return None

    def validation_batch_size(self, device: str) -> int:
        """Of each process. Evaluating takes little, unless memory is so short that even a single
        training case had to be helped."""
        if self.per_device_batch_size == 1 and self.activation_checkpointing:
            return 1
        return max(self.per_device_batch_size, 8 if device == "cuda" else 4)

    def validates_at(self, step: int) -> bool:
        """By the interval, at the last step, and where a checkpoint wants to be judged."""
        last = step >= self.total_steps
        return last or not step % self.eval_interval or not step % self.checkpoint_interval


def resolved_max_length(hp: Hyperparameters, context_length: int | None = None) -> int:
    """The token limit of one case; known before the data is tokenised, unlike the rest."""
    if hp.max_length != "auto":
        return hp.max_length
    limit = context_length or DEFAULT_MAX_LENGTH
    if isinstance(hp, ReinforcementHyperparameters):
        limit //= 2  # the other half is left to the answer
    return min(DEFAULT_MAX_LENGTH, limit)


def resolve(
    hp: Hyperparameters,
    cases: int,
    longest_case_tokens: int | None = None,
    context_length: int | None = None,
    device: Device = "cpu",
    auto_lora_rank: int | None = None,
    processes: int = 1,
) -> ResolvedHyperparameters:
    """Turn every "auto" into a number. Raises ValueError for a batch that the cases cannot fill,
    or that so many processes cannot share.

    | setting | auto |
    |---|---|
    | batch_size | 4; 16 from 2000 cases on; never more than there are cases |
    | n_epochs | 3 from 2000 cases on, 2 from 500 on; below, enough for some 60 steps (else 40) |
    | learning_rate | with LoRA 5e-4, else 5e-5 (supervised); 1e-4, 5e-6; times multiplier |
    | warmup_steps | 2 % of the steps from 200 steps on; a shorter run has none to waste |
    | lora_rank | 16, on all linear layers; that of the adapter a job goes on from |
    | max_length | 1024, or the model's context when that is shorter (of prompts: its half) |
    | checkpoint_interval, eval_interval | five in a run; each checkpoint is validated anyway |
    | beta | dpo 0.1, reinforcement 0.04 |
    | compute_multiplier | 1: 4 samples of a prompt on processors, 8 on accelerators |
    | eval_samples | 1 |
    | max_completion_tokens | 128 on processors, 512 on accelerators |

    `longest_case_tokens` is measured after truncation; without it (an estimate before the data is
    tokenised) max_length stands in, which makes the passes smaller but changes no result.
    """
    if cases < 1:
        raise ValueError("cases must be at least 1")
    method = method_of(hp)
    auto_batch_size = min(cases, 16 if cases >= LARGE_SET else 4)
    batch_size = auto_batch_size if hp.batch_size == "auto" else hp.batch_size
    steps_per_epoch = math.ceil(cases / batch_size)
    if method == "reinforcement":
        if batch_size > cases:
            raise ValueError(f"batch_size is {batch_size}, but there are only {cases} prompts")
        steps_per_epoch = cases // batch_size  # an incomplete batch is left for the next epoch
    n_epochs = hp.n_epochs
    if n_epochs == "auto":
        n_epochs = _auto_epochs(cases, steps_per_epoch, WANTED_STEPS[method])
    total_steps = steps_per_epoch * n_epochs
    multiplier = 1.0 if hp.learning_rate_multiplier == "auto" else hp.learning_rate_multiplier
    learning_rate = hp.learning_rate
    if learning_rate == "auto":
        rates = LORA_RATES if hp.adapter == "lora" else FULL_RATES
        learning_rate = rates[method] * multiplier
    max_length = resolved_max_length(hp, context_length)
    tokens = min(longest_case_tokens or max_length, max_length)
    own, sequences = _own_settings(hp, tokens, context_length, device)
    tokens += own.get("max_completion_tokens", 0)
    if isinstance(hp, DpoHyperparameters):
        tokens *= 2  # both answers of a pair go through the model together
    tokens_per_pass = CPU_TOKENS_PER_PASS if device == "cpu" else GPU_TOKENS_PER_PASS
    if batch_size % processes:
        raise ValueError(
            f"batch_size is {batch_size}, which {processes} processes cannot share evenly"
        )
    share = batch_size * sequences // processes
    per_device = _largest_divisor(share, at_most=max(1, tokens_per_pass // tokens))
    return ResolvedHyperparameters(
        n_epochs=n_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        learning_rate_multiplier=multiplier,
        warmup_steps=_auto_warmup(total_steps) if hp.warmup_steps == "auto" else hp.warmup_steps,
        adapter=hp.adapter,
        lora_rank=(auto_lora_rank or 16) if hp.lora_rank == "auto" else hp.lora_rank,
        max_length=max_length,
        checkpoint_interval=_auto_interval(hp.checkpoint_interval, total_steps, 5),
        eval_interval=_auto_interval(hp.eval_interval, total_steps, 5),
        early_stopping=hp.early_stopping,
        per_device_batch_size=per_device,
        gradient_accumulation_steps=share // per_device,
        activation_checkpointing=tokens > tokens_per_pass,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        **own,
    )


def processes_for(hp: Hyperparameters, cases: int, most: int) -> int:
    """How many processes, up to `most`, can share each batch evenly; 1 for settings that `resolve`
    refuses."""
    try:
        return _largest_divisor(resolve(hp, cases).batch_size, at_most=most)
    except ValueError:
        return 1


def method_of(hp: Hyperparameters) -> Method:
    if isinstance(hp, DpoHyperparameters):
        return "dpo"
    return "reinforcement" if isinstance(hp, ReinforcementHyperparameters) else "supervised"


def _own_settings(
    hp: Hyperparameters, prompt: int, context_length: int | None, device: Device
) -> tuple[dict[str, Any], int]:
    """The settings of one method alone, and how many sequences it makes of one case."""
    if isinstance(hp, DpoHyperparameters):
        return {"beta": DPO_BETA if hp.beta == "auto" else hp.beta}, 1
    if not isinstance(hp, ReinforcementHyperparameters):
        return {}, 1
    multiplier = 1.0 if hp.compute_multiplier == "auto" else hp.compute_multiplier
    samples = min(MOST_SAMPLES, max(2, round(SAMPLES[device] * multiplier)))
    completion = hp.max_completion_tokens
    if completion == "auto":
        room = (context_length or 2 * DEFAULT_MAX_LENGTH) - prompt
        completion = max(1, min(COMPLETION_TOKENS[device], room))
    own = {
        "beta": REINFORCEMENT_BETA if hp.beta == "auto" else hp.beta,
        "compute_multiplier": multiplier,
        "samples": samples,
        "eval_samples": 1 if hp.eval_samples == "auto" else hp.eval_samples,
        "max_completion_tokens": completion,
        "reasoning_effort": hp.reasoning_effort,
    }
    return own, samples


def _auto_epochs(cases: int, steps_per_epoch: int, wanted: int) -> int:
    """Up to 500 cases, as many passes as reach the wanted steps: of 60, 10 cases 20, 100 cases 3,
    240 one.

    On the embedded model 240 short cases are learnt, and carried over to unseen ones, in one pass
    of 60 steps; a second pass costs its full time and hardly moves the validation loss.
    """
    if cases >= LARGE_SET:
        return 3
    if cases >= MEDIUM_SET:
        return 2
    return min(MOST_AUTO_EPOCHS, math.ceil(wanted / steps_per_epoch))


def _auto_warmup(total_steps: int) -> int:
    return total_steps // 50 if total_steps >= 200 else 0


def _auto_interval(asked: Auto | int, total_steps: int, times: int) -> int:
    return math.ceil(total_steps / times) if asked == "auto" else asked


def _largest_divisor(number: int, at_most: int) -> int:
    return next(d for d in range(min(number, at_most), 0, -1) if number % d == 0)
