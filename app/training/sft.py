"""Supervised fine-tuning on chat conversations, with LoRA or of all weights."""

import shutil
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer
from trl.trainer import utils as trl_utils

from app.training import hardware
from app.training.config import resolve, resolved_max_length
from app.training.data import Case, Cases, read_cases
from app.training.environment import default_threads
from app.training.errors import TrainingFailed, TrainingStopped
from app.training.manifest import RunEnvironment
from app.training.progress import ReportingCallback
from app.training.report import Started
from app.training.run import Run, base_model_unavailable


def train(run: Run) -> None:
    """From the files named in the configuration to a finished model, or `TrainingStopped`."""
    config, hp = run.config, run.config.hyperparameters
    torch.set_num_threads(config.threads or default_threads())
    transformers_logging.disable_progress_bar()
    _score_only_what_is_learnt()

    tokenizer, model_config = _load_tokenizer(run)
    context = getattr(model_config, "max_position_embeddings", None)
    max_length = resolved_max_length(hp, context)
    if context and max_length > context:
        raise TrainingFailed(
            "invalid_hyperparameters",
            f"max_length is {max_length}, but the base model reads at most {context} tokens.",
            "max_length",
        )
    training = _read(run, config.training_file, tokenizer, max_length, "training")
    validation = None
    if config.validation_file:
        validation = _read(run, config.validation_file, tokenizer, max_length, "validation")

    device = hardware.device()
    dtype = _dtype(run)
    resolved = resolve(hp, len(training.cases), training.longest, context, device)
    environment = RunEnvironment(
        device=device,
        dtype=dtype,
        threads=torch.get_num_threads(),
        versions=hardware.versions(),
    )
    run.settle(resolved, environment)
    model = _load_model(run, dtype)
    trainer = _trainer(run, model, tokenizer, training, validation)

    run.reporter.send(
        Started(
            resolved=resolved,
            total_steps=resolved.total_steps,
            total_epochs=resolved.n_epochs,
            from_step=run.resumed.step if run.resumed else 0,
            training_cases=len(training.cases),
            validation_cases=len(validation.cases) if validation else 0,
            training_tokens=training.tokens,
            truncated_cases=training.truncated,
            **environment.model_dump(),
        )
    )
    run.stop.training_begins()
    # After an explicit check of the manifest; a path, because "the last one" may be a torn one.
    trainer.train(resume_from_checkpoint=str(config.resume_from) if config.resume_from else None)
    state = trainer.state
    if run.stop.asked and state.global_step < state.max_steps:
        raise TrainingStopped
    run.finished(_write_model(run, trainer, tokenizer), state.global_step, state.epoch)


class StoppableTrainer(SFTTrainer):  # type: ignore[misc]  # the library is untyped here
    """TRL's trainer, which leaves an evaluation when asked to and writes no model cards."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        try:
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
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
        shutil.rmtree(folder, ignore_errors=True)
        super()._save_checkpoint(model, trial)


def _score_only_what_is_learnt() -> None:
    """Project onto the vocabulary at the assistant's tokens only, as TRL does on accelerators.

    Elsewhere it projects every position and masks afterwards, for the sake of compilers that want
    fixed shapes; on a CPU, with a large vocabulary, that is a fifth of a training step.
    """
    if hasattr(trl_utils, "_use_triton"):
        trl_utils._use_triton = lambda _device: True  # consulted for the choice of positions only


def _load_tokenizer(run: Run) -> tuple[Any, Any]:
    from transformers import AutoConfig

    where = {"local_files_only": not run.config.allow_hub, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(run.config.base_model, **where)
        tokenizer = AutoTokenizer.from_pretrained(run.config.base_model, **where)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise base_model_unavailable(run.config) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, config


def _load_model(run: Run, dtype: str) -> Any:
    try:
        model = AutoModelForCausalLM.from_pretrained(
            run.config.base_model,
            dtype=getattr(torch, dtype),
            local_files_only=not run.config.allow_hub,
            use_safetensors=True,  # other formats are pickles, which run code when read
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise base_model_unavailable(run.config) from error
    model.config.use_cache = False
    return model


def _read(run: Run, path: Path, tokenizer: Any, max_length: int, what: str) -> Cases:
    code: Any = f"invalid_{what}_file"
    cases = read_cases(path, tokenizer, max_length, code)
    if not cases.cases:
        raise TrainingFailed(
            code, f"No assistant message of the {what} file can be learnt from.", f"{what}_file"
        )
    if cases.truncated:
        run.reporter.message(
            "warn", f"{cases.truncated} {what} cases were cut at max_length = {max_length} tokens."
        )
    if cases.without_target:
        run.reporter.message(
            "warn",
            f"{cases.without_target} {what} cases were left out:"
            " no assistant message with weight 1 remains in them.",
        )
    return cases


def _dtype(run: Run) -> str:
    if run.resumed:
        return run.resumed.environment.dtype  # measured again, it might come out otherwise
    dtype, why = hardware.choose_dtype(run.config.dtype, run.config.hyperparameters.adapter)
    run.reporter.message("info", f"Computing in {dtype}: {why}.")
    return dtype


def _dataset(cases: list[Case]) -> Any:
    return Dataset.from_dict(
        {"input_ids": [c.input_ids for c in cases], "labels": [c.labels for c in cases]}
    )


def _trainer(
    run: Run, model: Any, tokenizer: Any, training: Cases, validation: Cases | None
) -> StoppableTrainer:
    resolved, on_gpu = run.resolved, run.environment.device == "cuda"
    lora = resolved.adapter == "lora"
    arguments = SFTConfig(
        output_dir=str(run.config.run_dir),
        num_train_epochs=resolved.n_epochs,
        per_device_train_batch_size=resolved.per_device_batch_size,
        gradient_accumulation_steps=resolved.gradient_accumulation_steps,
        per_device_eval_batch_size=max(resolved.per_device_batch_size, 8 if on_gpu else 4),
        learning_rate=resolved.learning_rate,
        warmup_steps=resolved.warmup_steps,
        lr_scheduler_type="linear",
        max_length=None,  # cut already
        dataset_kwargs={"skip_prepare_dataset": True},  # tokenised and masked already
        gradient_checkpointing=resolved.activation_checkpointing,
        # Autocast for a full fine-tune on an accelerator; elsewhere the weights' format decides.
        bf16=on_gpu and not lora and torch.cuda.is_bf16_supported(),
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        seed=run.config.seed,
        data_seed=run.config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would hide a diverged loss behind the last good one
        eval_strategy="steps" if validation else "no",
        eval_steps=resolved.eval_interval,
        eval_on_start=validation is not None and run.resumed is None,
        save_strategy="steps",
        save_steps=resolved.checkpoint_interval,
        report_to="none",
        disable_tqdm=True,
    )
    peft_config = LoraConfig(
        task_type="CAUSAL_LM",
        r=resolved.lora_rank,
        lora_alpha=2 * resolved.lora_rank,
        lora_dropout=0.0,
        target_modules="all-linear",
    )
    trainer = StoppableTrainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(training.cases),
        eval_dataset=_dataset(validation.cases) if validation else None,
        processing_class=tokenizer,
        peft_config=peft_config if lora else None,
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.is_world_process_zero():
        trainer.add_callback(ReportingCallback(run, validates=validation is not None))
    return trainer


def _write_model(run: Run, trainer: StoppableTrainer, tokenizer: Any) -> Path:
    """The adapter alone, or the whole model in the format it was published in."""
    folder = run.config.run_dir / "model.part"
    shutil.rmtree(folder, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config.use_cache = True
    if run.resolved.adapter == "lora":
        model.save_pretrained(folder)
    else:
        model.to(_published_dtype(run)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _published_dtype(run: Run) -> Any:
    _, config = _load_tokenizer(run)
    return getattr(config, "dtype", None) or torch.float32
