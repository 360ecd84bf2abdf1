"""What a training process is told: importable without torch, because the API and worker read it.

`SupervisedHyperparameters` is what a customer writes ("auto" or a number), `resolve` says what
"auto" becomes, `TrainingConfig` is the file that `python -m app.training` is started with.
"""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Auto = Literal["auto"]
Adapter = Literal["lora", "full"]
Dtype = Literal["float32", "bfloat16"]

Count = Annotated[int, Field(strict=True, ge=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

# A small set needs a certain number of optimiser steps before the task is learnt at all; a large
# one is learnt within a pass or two. Measured on the embedded model; see `_auto_epochs`.
WANTED_STEPS = 60
MOST_AUTO_EPOCHS = 25
MEDIUM_SET, LARGE_SET = 500, 2000
DEFAULT_MAX_LENGTH = 1024
# Activations of more tokens than this in one forward pass overran the memory of a small machine.
CPU_TOKENS_PER_PASS = 1024
# One 80 GB accelerator holds this much of a small model; larger models lower it by batch_size.
GPU_TOKENS_PER_PASS = 16_384


class SupervisedHyperparameters(BaseModel):
    """Supervised fine-tuning as the customer asks for it; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_epochs: Auto | Annotated[int, Field(strict=True, ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(strict=True, ge=1, le=256)] = "auto"
    learning_rate: Auto | Annotated[float, Field(strict=True, gt=0, le=1)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(strict=True, gt=0, le=100)] = "auto"
    warmup_steps: Auto | Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = "auto"
    adapter: Adapter = "lora"
    lora_rank: Auto | Annotated[int, Field(strict=True, ge=1, le=256)] = "auto"
    max_length: Auto | Annotated[int, Field(strict=True, ge=16, le=32_768)] = "auto"
    checkpoint_interval: Auto | Count = "auto"
    eval_interval: Auto | Count = "auto"

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        if self.learning_rate != "auto" and self.learning_rate_multiplier != "auto":
            raise ValueError(
                "learning_rate_multiplier scales the automatic learning rate, so it cannot be given"
                " together with learning_rate: leave one of them out"
            )
        if self.adapter == "full" and self.lora_rank != "auto":
            raise ValueError("lora_rank has no meaning with adapter 'full': leave it out")
        return self


class ResolvedHyperparameters(BaseModel):
    """The same settings as numbers, and how one batch is cut into passes that fit in memory."""

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
    per_device_batch_size: int
    gradient_accumulation_steps: int
    activation_checkpointing: bool
    steps_per_epoch: int
    total_steps: int


def resolved_max_length(hp: SupervisedHyperparameters, context_length: int | None = None) -> int:
    """The token limit of one case; known before the data is tokenised, unlike the rest."""
    if hp.max_length != "auto":
        return hp.max_length
    return min(DEFAULT_MAX_LENGTH, context_length or DEFAULT_MAX_LENGTH)


def resolve(
    hp: SupervisedHyperparameters,
    cases: int,
    longest_case_tokens: int | None = None,
    context_length: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
) -> ResolvedHyperparameters:
    """Turn every "auto" into a number.

    | setting | auto |
    |---|---|
    | batch_size | 4; 16 from 2000 cases on; never more than there are cases |
    | n_epochs | 3 from 2000 cases on, 2 from 500 on; below, enough for some 60 steps |
    | learning_rate | 5e-4 with LoRA, 5e-5 full; times learning_rate_multiplier (auto: 1) |
    | warmup_steps | 2 % of the steps from 200 steps on; a shorter run has none to waste |
    | lora_rank | 16, on all linear layers |
    | max_length | 1024, or the model's context when that is shorter |
    | checkpoint_interval, eval_interval | four and five in a run; the last step has both anyway |

    `longest_case_tokens` is measured after truncation; without it (an estimate before the data is
    tokenised) max_length stands in, which makes the passes smaller but changes no result.
    """
    if cases < 1:
        raise ValueError("cases must be at least 1")
    auto_batch_size = min(cases, 16 if cases >= LARGE_SET else 4)
    batch_size = auto_batch_size if hp.batch_size == "auto" else hp.batch_size
    steps_per_epoch = math.ceil(cases / batch_size)
    n_epochs = _auto_epochs(cases, steps_per_epoch) if hp.n_epochs == "auto" else hp.n_epochs
    total_steps = steps_per_epoch * n_epochs
    multiplier = 1.0 if hp.learning_rate_multiplier == "auto" else hp.learning_rate_multiplier
    learning_rate = hp.learning_rate
    if learning_rate == "auto":
        learning_rate = (5e-4 if hp.adapter == "lora" else 5e-5) * multiplier
    max_length = resolved_max_length(hp, context_length)
    longest = min(longest_case_tokens or max_length, max_length)
    tokens_per_pass = CPU_TOKENS_PER_PASS if device == "cpu" else GPU_TOKENS_PER_PASS
    per_device = _largest_divisor(batch_size, at_most=max(1, tokens_per_pass // longest))
    return ResolvedHyperparameters(
        n_epochs=n_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        learning_rate_multiplier=multiplier,
        warmup_steps=_auto_warmup(total_steps) if hp.warmup_steps == "auto" else hp.warmup_steps,
        adapter=hp.adapter,
        lora_rank=16 if hp.lora_rank == "auto" else hp.lora_rank,
        max_length=max_length,
        checkpoint_interval=_auto_interval(hp.checkpoint_interval, total_steps, 4),
        eval_interval=_auto_interval(hp.eval_interval, total_steps, 5),
        per_device_batch_size=per_device,
        gradient_accumulation_steps=batch_size // per_device,
        activation_checkpointing=longest > tokens_per_pass,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
    )


def _auto_epochs(cases: int, steps_per_epoch: int) -> int:
    """Up to 500 cases, as many passes as reach WANTED_STEPS: 10 cases 20, 100 cases 3, 240 one.

    On the embedded model 240 short cases are learnt, and carried over to unseen ones, in one pass
    of 60 steps; a second pass costs its full time and hardly moves the validation loss.
    """
    if cases >= LARGE_SET:
        return 3
    if cases >= MEDIUM_SET:
        return 2
    return min(MOST_AUTO_EPOCHS, math.ceil(WANTED_STEPS / steps_per_epoch))


def _auto_warmup(total_steps: int) -> int:
    return total_steps // 50 if total_steps >= 200 else 0


def _auto_interval(asked: Auto | int, total_steps: int, times: int) -> int:
    return math.ceil(total_steps / times) if asked == "auto" else asked


def _largest_divisor(number: int, at_most: int) -> int:
    return next(d for d in range(min(number, at_most), 0, -1) if number % d == 0)


class TrainingConfig(BaseModel):
    """The one file a training process is started with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_id: str
    attempt: int = Field(ge=1)
    run_dir: Path = Field(description="Of this attempt: checkpoint-<step>/ and model/ go here.")
    base_model: str = Field(description="A local folder, or with allow_hub a hub name.")
    base_model_name: str = Field(description="What results call it; never a path of this machine.")
    allow_hub: bool = False
    training_file: Path
    training_sha256: Sha256
    validation_file: Path | None = None
    validation_sha256: Sha256 | None = None
    method: Literal["supervised"] = "supervised"
    hyperparameters: SupervisedHyperparameters = SupervisedHyperparameters()
    seed: int = Field(default=42, ge=0, lt=2**32)
    dtype: Auto | Dtype = Field(default="auto", description="Of the frozen weights under LoRA.")
    resume_from: Path | None = None
    resume_manifest_sha256: Sha256 | None = None
    threads: Count | None = Field(default=None, description="None: all cores but one.")

    @model_validator(mode="after")
    def _pairs_are_complete(self) -> Self:
        if (self.validation_file is None) != (self.validation_sha256 is None):
            raise ValueError("validation_file and validation_sha256 are given together")
        if (self.resume_from is None) != (self.resume_manifest_sha256 is None):
            raise ValueError("resume_from and resume_manifest_sha256 are given together")
        return self
