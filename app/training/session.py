"""One training session from files to a finished model, the same for every method."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from app.training import examples, group, hardware, preflight, scoring, weights
from app.training.data import Origin
from app.training.environment import default_threads
from app.training.errors import FailureCode, TrainingFailed, TrainingOver, TrainingStopped
from app.training.manifest import RunEnvironment
from app.training.report import Started
from app.training.resolve import resolve, resolved_max_length
from app.training.run import Run
from app.training.trainer import watch


@dataclass(frozen=True)
class Data:
    """Tokenised cases as a method's trainer takes them; `tokens` of an epoch, `longest` of one.

    `truncated` were cut and are learnt; `left_out` are not, for the reason given. Where each case
    has a loss of its own, `origins` has one for each row."""

    rows: Any
    cases: int
    tokens: int
    longest: int
    truncated: int
    left_out: int
    why_left_out: str = "no answer that counts remains in them"
    origins: Sequence[Origin] = ()
    left_out_lines: Sequence[int] = ()


@dataclass(frozen=True)
class Recipe:
    """What differs between methods: how a line becomes a case, and which trainer learns it."""

    read: Callable[[Run, Path, Any, int, FailureCode], Data]
    build: Callable[[Run, Any, Any, Data, Data | None], Any]


def train(run: Run, recipe: Recipe) -> None:
    """From the files named in the configuration to a finished model, or `TrainingStopped`."""
    config = run.config
    torch.set_num_threads(config.threads or default_threads())
    transformers_logging.disable_progress_bar()

    tokenizer, model_config = weights.load_tokenizer(run)
    context = getattr(model_config, "max_position_embeddings", None)
    max_length = resolved_max_length(config.hyperparameters, context)
    if context and max_length > context:
        raise TrainingFailed(
            "invalid_hyperparameters",
            f"max_length is {max_length}, but the base model reads at most {context} tokens.",
            "max_length",
        )
    training = _read(run, recipe, config.training_file, tokenizer, max_length, "training")
    validation = None
    if config.validation_file:
        path = config.validation_file
        validation = _read(run, recipe, path, tokenizer, max_length, "validation")

    device, processes = hardware.device(), group.size()
    group.join(device)
    dtype = weights.choose_dtype(run)
    try:
        resolved = resolve(
            config.hyperparameters,
            training.cases,
            training.longest,
            context,
            # What "auto" became on the machine where the run began, it stays.
            run.resumed.environment.device if run.resumed else device,
            auto_lora_rank=run.start.resolved.lora_rank if run.start else None,
            processes=processes,
        )
    except ValueError as error:
        raise TrainingFailed("invalid_hyperparameters", f"{error}.", "batch_size") from error
    needed = training.longest + (resolved.max_completion_tokens or 0)
    if context and needed > context:
        raise TrainingFailed(
            "invalid_hyperparameters",
            f"The longest prompt and max_completion_tokens make {needed} tokens, but the base model"
            f" reads at most {context}.",
            "max_completion_tokens",
        )
    if run.resumed and run.resumed.environment.processes == processes:
        resolved = resolved.cut_as(run.resumed.resolved)
    longest_validation = validation.longest if validation else 0
    resolved = preflight.fit(
        run, model_config, resolved, device, dtype, training.longest, longest_validation, processes
    )
    scorer = scoring.prepare(run, tokenizer, context, device)
    environment = RunEnvironment(
        device=device,
        dtype=dtype,
        threads=torch.get_num_threads(),
        processes=processes,
        versions=hardware.versions(),
    )
    template = str(tokenizer.chat_template).encode()
    run.settle(resolved, environment, hashlib.sha256(template).hexdigest())
    model = weights.load_model(run, dtype)
    trainer = recipe.build(run, model, tokenizer, training, validation)
    watch(trainer, run, validates=validation is not None)
    if scorer:
        trainer.add_callback(scoring.ScoringCallback(run, scorer))

    run.reporter.send(
        Started(
            resolved=resolved,
            total_steps=resolved.total_steps,
            total_epochs=resolved.n_epochs,
            from_step=run.resumed.step if run.resumed else 0,
            training_cases=training.cases,
            validation_cases=validation.cases if validation else 0,
            training_tokens=training.tokens,
            truncated_cases=training.truncated,
            base_sha256=run.base_sha256,
            template_sha256=run.template_sha256,
            **environment.model_dump(),
        )
    )
    run.stop.training_begins()
    begun = time.monotonic()
    try:
        # After an explicit check of the manifest; a path, because "the last one" may be torn.
        checkpoint = str(config.resume_from) if config.resume_from else None
        trainer.train(resume_from_checkpoint=checkpoint)
    except TrainingOver:
        pass
    state = trainer.state
    over = state.global_step >= state.max_steps or run.ended_early
    if run.stop.asked and (run.unscored or not over):
        raise TrainingStopped
    trained = trainer.accelerator.unwrap_model(trainer.model)
    trained_for = time.monotonic() - begun
    if group.is_first():
        run.finished(weights.write_model(run, trained, tokenizer), state.global_step, state.epoch)
    data = {"training": training, "validation": validation}
    examples.measure(run, trainer, data, seconds=examples.allowance(trained_for))


def _read(run: Run, recipe: Recipe, path: Path, tokenizer: Any, max_length: int, what: str) -> Data:
    code: Any = f"invalid_{what}_file"
    data = recipe.read(run, path, tokenizer, max_length, code)
    if not data.cases:
        raise TrainingFailed(
            code, f"Nothing in the {what} file can be learnt from.", f"{what}_file"
        )
    if data.truncated:
        run.reporter.message(
            "warn", f"{data.truncated} {what} cases were cut at max_length = {max_length} tokens."
        )
    if data.left_out:
        run.reporter.message(
            "warn", f"{data.left_out} {what} cases were left out: {data.why_left_out}."
        )
    return data
