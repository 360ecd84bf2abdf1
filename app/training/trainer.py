"""What our trainers share, whichever method they train with."""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import PrinterCallback, set_seed

from app.training import group
from app.training.early_stopping import EarlyStoppingCallback
from app.training.errors import TrainingStopped
from app.training.progress import ReportingCallback
from app.training.run import Run


class Stoppable:
    """To be put before one of TRL's trainers, which then leaves an evaluation when asked to,
    evaluates without disturbing the training, and writes no model cards."""

    args: Any
    state: Any
    control: Any

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        try:
            with own_randomness(self.args.seed + self.state.global_step):
                metrics: dict[str, float] = super().evaluate(*args, **kwargs)  # type: ignore[misc]
        except TrainingStopped:
            if not self.state.global_step:
                raise
            self.control.should_save = self.control.should_training_stop = True
            return {}
        return metrics

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # The remains of a crash would otherwise be sealed together with the new files.
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if group.is_first():
            shutil.rmtree(folder, ignore_errors=True)
        group.wait()
        super()._save_checkpoint(model, trial)  # type: ignore[misc]


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Random numbers of its own for an evaluation: whether it takes place, or is left for a pause,
    must not change what is trained after it."""
    python, arrays = random.getstate(), numpy.random.get_state()
    # Of the other processes' accelerators each would take memory, only for having been asked.
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(arrays)


def arguments(run: Run, validates: bool) -> dict[str, Any]:
    """The library's settings, as far as they are the same for all methods."""
    resolved, on_gpu = run.resolved, run.environment.device == "cuda"
    return {
        "output_dir": str(run.config.run_dir),
        "num_train_epochs": resolved.n_epochs,
        "per_device_train_batch_size": resolved.per_device_batch_size,
        "gradient_accumulation_steps": resolved.gradient_accumulation_steps,
        "per_device_eval_batch_size": resolved.validation_batch_size(run.environment.device),
        "learning_rate": resolved.learning_rate,
        "warmup_steps": resolved.warmup_steps,
        "lr_scheduler_type": "linear",
        "gradient_checkpointing": resolved.activation_checkpointing,
        # Autocast for a full fine-tune on an accelerator; elsewhere the weights' format decides.
        "bf16": on_gpu and resolved.adapter == "full" and torch.cuda.is_bf16_supported(),
        "use_cpu": not on_gpu,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": on_gpu,
        "seed": run.config.seed,
        "data_seed": run.config.seed,
        "logging_steps": 1,
        # The filter would hide a diverged loss behind the last good one.
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if validates else "no",
        "eval_steps": resolved.eval_interval,
        "eval_on_start": validates and run.evaluation_due,
        "save_strategy": "steps",
        "save_steps": resolved.checkpoint_interval,
        "report_to": "none",
        "disable_tqdm": True,
    }


def watch(trainer: Any, run: Run, validates: bool) -> None:
    """Let the run report, and end early where that is asked for."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ReportingCallback(run, validates))
    if run.resolved.early_stopping:
        trainer.add_callback(EarlyStoppingCallback(run, run.resolved.early_stopping))
