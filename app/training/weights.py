"""Weights and tokenizers: loaded from the base model or from where an earlier job left off, and
written as a model of its own."""

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from app.training import hardware
from app.training.run import Run, base_model_unavailable

# What a folder that cannot be loaded is refused with by the library.
_BROKEN = (OSError, ValueError, KeyError, ImportError)


def load_tokenizer(run: Run) -> tuple[Any, Any]:
    """The base model's tokenizer and configuration."""
    where = {"local_files_only": not run.config.allow_hub, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(run.config.base_model, **where)
        tokenizer = AutoTokenizer.from_pretrained(run.config.base_model, **where)
    except _BROKEN as error:
        raise base_model_unavailable(run.config) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, config


def choose_dtype(run: Run) -> str:
    if run.resumed:
        return run.resumed.environment.dtype  # measured again, it might come out otherwise
    dtype, why = hardware.choose_dtype(run.config.dtype, run.config.hyperparameters.adapter)
    run.reporter.message("info", f"Computing in {dtype}: {why}.")
    return dtype


def load_model(run: Run, dtype: str) -> Any:
    """The model as training finds it at step 0.

    An earlier job's adapter goes on being trained with LoRA, and is merged for a full fine-tune.
    """
    config, start = run.config, run.start
    source: str | Path | None = config.base_model
    if start and start.kind == "full":
        source = config.start_from
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            local_files_only=not config.allow_hub,
            use_safetensors=True,  # other formats are pickles, which run code when read
            trust_remote_code=False,
        )
        if start and start.kind == "lora":
            keep = config.hyperparameters.adapter == "lora"
            model = PeftModel.from_pretrained(model, config.start_from, is_trainable=keep)
            if not keep:
                model = model.merge_and_unload().requires_grad_(True)  # frozen below an adapter
    except _BROKEN as error:
        raise base_model_unavailable(config) from error
    model.config.use_cache = False
    return model


def lora_config(run: Run, model: Any) -> LoraConfig | None:
    """A new adapter, unless all weights are trained or the model carries an earlier job's."""
    if run.resolved.adapter == "full" or isinstance(model, PeftModel):
        return None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=run.resolved.lora_rank,
        lora_alpha=2 * run.resolved.lora_rank,
        lora_dropout=0.0,
        target_modules="all-linear",
    )


def write_model(run: Run, model: Any, tokenizer: Any) -> Path:
    """The adapter alone, or the whole model in the format it was published in."""
    folder = run.config.run_dir / "model.part"
    shutil.rmtree(folder, ignore_errors=True)
    model.config.use_cache = True
    if run.resolved.adapter == "lora":
        # Not the copy that preference and reinforcement compare with.
        model.save_pretrained(folder, selected_adapters=["default"])
    else:
        model.to(_published_dtype(run)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _published_dtype(run: Run) -> Any:
    _, config = load_tokenizer(run)
    return getattr(config, "dtype", None) or torch.float32
