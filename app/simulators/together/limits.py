"""What a simulated Together tunes, and within which bounds. The numbers are made up."""

from typing import Any

MODELS = {
    "meta-llama/Llama-3.2-1B-Instruct": 1_240_000_000,
    "meta-llama/Llama-3.2-3B-Instruct": 3_210_000_000,
    "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference": 8_030_000_000,
    "meta-llama/Llama-3.3-70B-Instruct-Reference": 70_600_000_000,
}
_LARGE = 16_000_000_000
_LONGEST_SUFFIX = 40


def limits_of(model: str) -> dict[str, Any]:
    """Every field that the SDK reads: it checks a job against them before it asks for it."""
    large = MODELS[model] > _LARGE
    batches = {"min_batch_size": 1, "max_batch_size": 128, "max_batch_size_dpo": 64}
    return {
        "model_name": model,
        "max_num_epochs": 20,
        "max_num_evals": 100,
        "max_num_checkpoints": 10,
        "min_learning_rate": 1e-8,
        "max_learning_rate": 0.1,
        "max_seq_length_sft": 24_576 if large else 131_072,
        "max_seq_length_dpo": 8_192 if large else 24_576,
        "min_max_seq_length": 1_024,
        "default_gradient_accumulation_steps": 1,
        "merge_output_lora": True,
        "supports_tools": True,
        "supports_vision": False,
        "supports_reasoning": False,
        "supports_full_training": not large,
        "lora_training": {
            "default_rank": 8,
            "max_rank": 64,
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
            **batches,
        },
        "full_training": dict.fromkeys(batches, 0) if large else batches,
    }


def wrong_with(asked: dict[str, Any]) -> tuple[str, str] | None:
    """The field of a create that is out of bounds, and why."""
    limits = limits_of(asked["model"])
    kind = asked.get("training_type") or {"type": "Lora"}
    dpo = (asked.get("training_method") or {}).get("method") == "dpo"
    lora = kind.get("type") == "Lora"
    if not lora and not limits["supports_full_training"]:
        return "training_type", "Full training is not supported for this model."
    sizes = limits["lora_training" if lora else "full_training"]
    longest = limits["max_seq_length_dpo" if dpo else "max_seq_length_sft"]
    batch = asked.get("batch_size")
    bounds = [
        ("n_epochs", asked.get("n_epochs"), 1, limits["max_num_epochs"]),
        ("n_evals", asked.get("n_evals"), 0, limits["max_num_evals"]),
        ("n_checkpoints", asked.get("n_checkpoints"), 1, limits["max_num_checkpoints"]),
        (
            "learning_rate",
            asked.get("learning_rate"),
            limits["min_learning_rate"],
            limits["max_learning_rate"],
        ),
        ("max_seq_length", asked.get("max_seq_length"), limits["min_max_seq_length"], longest),
        ("warmup_ratio", asked.get("warmup_ratio"), 0, 1),
        ("suffix", len(asked.get("suffix") or ""), 0, _LONGEST_SUFFIX),
        (
            "batch_size",
            None if batch == "max" else batch,
            sizes["min_batch_size"],
            sizes["max_batch_size_dpo" if dpo else "max_batch_size"],
        ),
        ("training_type", kind.get("lora_r") if lora else None, 1, sizes.get("max_rank")),
    ]
    for name, value, low, high in bounds:
        if value is not None and not low <= value <= high:
            return name, f"{name} must be between {low} and {high}."
    return _wrong_evaluations(asked)


def _wrong_evaluations(asked: dict[str, Any]) -> tuple[str, str] | None:
    evals = asked.get("n_evals") or 0
    if evals and not asked.get("validation_file"):
        return "n_evals", "Evaluations need a validation file."
    if asked.get("early_stopping_enabled"):
        patience = asked.get("early_stopping_patience", 2)
        needed = patience + asked.get("early_stopping_warmup_evals", 1) + 1
        if not asked.get("validation_file") or evals < needed:
            return "n_evals", f"Early stopping needs a validation file and n_evals >= {needed}."
    return None
