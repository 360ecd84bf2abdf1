"""Supervised fine-tuning on chat conversations."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from trl.trainer import utils as trl_utils

from app.training import session, trainer, weights
from app.training.data import read_cases
from app.training.errors import FailureCode
from app.training.run import Run
from app.training.session import Data, Recipe


def train(run: Run) -> None:
    _score_only_what_is_learnt()
    session.train(run, Recipe(_read, _build))


class SupervisedTrainer(trainer.Stoppable, SFTTrainer):  # type: ignore[misc]  # untyped
    pass


def _score_only_what_is_learnt() -> None:
    """Project onto the vocabulary at the assistant's tokens only, as TRL does on accelerators.

    Elsewhere it projects every position and masks afterwards, for the sake of compilers that want
    fixed shapes; on a CPU, with a large vocabulary, that is a fifth of a training step.
    """
    if hasattr(trl_utils, "_use_triton"):
        trl_utils._use_triton = lambda _device: True  # consulted for the choice of positions only


def _read(run: Run, path: Path, tokenizer: Any, max_length: int, code: FailureCode) -> Data:
    found = read_cases(path, tokenizer, max_length, code)
    cases = found.cases
    rows = {"input_ids": [c.input_ids for c in cases], "labels": [c.labels for c in cases]}
    return Data(
        rows=Dataset.from_dict(rows),
        cases=len(cases),
        tokens=sum(len(case.input_ids) for case in cases),
        longest=max((len(case.input_ids) for case in cases), default=0),
        truncated=found.truncated,
        left_out=found.without_target,
        origins=found.origins,
        left_out_lines=found.left_out,
    )


def _build(
    run: Run, model: Any, tokenizer: Any, training: Data, validation: Data | None
) -> SupervisedTrainer:
    arguments = SFTConfig(
        **trainer.arguments(run, validates=validation is not None),
        max_length=None,  # cut already
        dataset_kwargs={"skip_prepare_dataset": True},  # tokenised and masked already
    )
    return SupervisedTrainer(
        model=model,
        args=arguments,
        train_dataset=training.rows,
        eval_dataset=validation.rows if validation else None,
        processing_class=tokenizer,
        peft_config=weights.lora_config(run, model),
    )
