"""Direct preference optimisation on pairs of answers."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import pad

from app.training import session, trainer, weights
from app.training.errors import FailureCode
from app.training.pairs import read_pairs
from app.training.run import Run
from app.training.session import Data, Recipe


def train(run: Run) -> None:
    session.train(run, Recipe(_read, _build))


class PreferenceTrainer(trainer.Stoppable, DPOTrainer):  # type: ignore[misc]  # untyped
    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # tokenised and masked already


class Collator:
    """All preferred answers of a batch, then all others, each with its conversation before it."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        sides = ("chosen", "rejected")
        ids = [torch.tensor(e[f"{side}_ids"]) for side in sides for e in examples]
        masks = [torch.tensor(e[f"{side}_mask"]) for side in sides for e in examples]
        return {
            "input_ids": pad(ids, self._pad_token_id, "right"),
            "attention_mask": pad([torch.ones_like(i) for i in ids], 0, "right"),
            "completion_mask": pad(masks, 0, "right"),
        }


def _read(run: Run, path: Path, tokenizer: Any, max_length: int, code: FailureCode) -> Data:
    found = read_pairs(path, tokenizer, max_length, code)
    pairs = found.pairs
    rows = {
        "chosen_ids": [pair.chosen.input_ids for pair in pairs],
        "chosen_mask": [pair.chosen.assistant_masks for pair in pairs],
        "rejected_ids": [pair.rejected.input_ids for pair in pairs],
        "rejected_mask": [pair.rejected.assistant_masks for pair in pairs],
    }
    return Data(
        rows=Dataset.from_dict(rows),
        cases=len(pairs),
        tokens=sum(pair.tokens for pair in pairs),
        longest=max((pair.longest for pair in pairs), default=0),
        truncated=found.truncated,
        left_out=len(found.left_out),
        origins=found.origins,
        left_out_lines=found.left_out,
    )


def _build(
    run: Run, model: Any, tokenizer: Any, training: Data, validation: Data | None
) -> PreferenceTrainer:
    arguments = DPOConfig(
        **trainer.arguments(run, validates=validation is not None),
        beta=run.resolved.beta,
        max_length=None,  # cut already
        remove_unused_columns=False,
    )
    # With an adapter the starting point is the model without it, or a copy of the earlier job's.
    full = run.resolved.adapter == "full"
    return PreferenceTrainer(
        model=model,
        ref_model=weights.load_model(run, run.environment.dtype) if full else None,
        args=arguments,
        data_collator=Collator(tokenizer.pad_token_id),
        train_dataset=training.rows,
        eval_dataset=validation.rows if validation else None,
        processing_class=tokenizer,
        peft_config=weights.lora_config(run, model),
    )
