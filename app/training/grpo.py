"""Reinforcement: several answers to each prompt, judged by a grader, and the better ones made
more probable (GRPO)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

from app.training import session, trainer, weights
from app.training.config import ReinforcementConfig
from app.training.errors import FailureCode, TrainingFailed
from app.training.grading import Grading
from app.training.prompts import read_prompts
from app.training.run import Run
from app.training.session import Data, Recipe


def train(run: Run) -> None:
    assert isinstance(run.config, ReinforcementConfig)  # noqa: S101 - the method says so
    grading = Grading(run.config, run.reporter, run.stop)
    try:
        session.train(run, Recipe(_read, lambda *given: _build(Reward(grading), *given)))
    finally:
        grading.close()


class Reward:
    """A grader as the library calls it."""

    __name__ = "grader"

    def __init__(self, grading: Grading) -> None:
        self._grading = grading

    def __call__(
        self,
        completions: list[str],
        item: list[str],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        results = self._grading.judge([json.loads(one) for one in item], completions)
        log_metric("grader_errors", sum(result.failed for result in results) / len(results))
        good = [result for result in results if not result.failed]
        for name in dict.fromkeys(name for result in good for name in result.sub_rewards):
            known = [r.sub_rewards[name] for r in good if name in r.sub_rewards]
            log_metric(f"grader/{name}", sum(known) / len(known))
        return [None if result.failed else result.reward for result in results]


class _EpochSampler(RepeatSampler):  # type: ignore[misc]  # the library is untyped here
    """The library's, with an order of its own for each epoch: the library's own order depends on
    how many epochs this process has begun, so that a resumed run would go through other prompts."""

    def __init__(self, trainer: Any, steps_per_epoch: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._trainer, self._steps_per_epoch = trainer, steps_per_epoch

    def __iter__(self) -> Iterator[int]:
        epoch = self._trainer.state.global_step // self._steps_per_epoch
        self.generator.manual_seed(self.seed + epoch)
        yield from super().__iter__()


class ReinforcementTrainer(trainer.Stoppable, GRPOTrainer):  # type: ignore[misc]  # untyped
    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        # The chat template has written the special tokens already.
        ids = self.processing_class(text=prompts, add_special_tokens=False)["input_ids"]
        return ids, None, {}

    def _get_train_sampler(self, dataset: Any = None) -> _EpochSampler:
        prompts = self.args.generation_batch_size // self.num_generations
        rows = self.train_dataset if dataset is None else dataset
        return _EpochSampler(
            self,
            len(rows) // prompts,
            data_source=rows,
            mini_repeat_count=self.num_generations,
            batch_size=prompts,
            repeat_count=self.args.steps_per_generation,
            seed=self.args.seed,
        )


def _read(run: Run, path: Path, tokenizer: Any, max_length: int, code: FailureCode) -> Data:
    found = read_prompts(path, tokenizer, code, _variables(run, tokenizer))
    kept = [prompt for prompt in found if prompt.tokens <= max_length]
    return Data(
        rows=Dataset.from_dict(
            {"prompt": [prompt.text for prompt in kept], "item": [prompt.item for prompt in kept]}
        ),
        cases=len(kept),
        tokens=sum(prompt.tokens for prompt in kept),
        longest=max((prompt.tokens for prompt in kept), default=0),
        truncated=0,
        left_out=len(found) - len(kept),
        why_left_out=f"their prompts have more than max_length = {max_length} tokens",
    )


def _variables(run: Run, tokenizer: Any) -> dict[str, Any]:
    assert isinstance(run.config, ReinforcementConfig)  # noqa: S101 - the method says so
    effort = run.config.hyperparameters.reasoning_effort
    if effort == "default":
        return {}
    if "reasoning_effort" not in str(tokenizer.chat_template):
        raise TrainingFailed(
            "invalid_hyperparameters",
            f"The chat template of {run.config.base_model_name} knows no reasoning_effort: leave"
            " it out.",
            "reasoning_effort",
        )
    return {"reasoning_effort": effort}


def _build(
    reward: Reward,
    run: Run,
    model: Any,
    tokenizer: Any,
    training: Data,
    validation: Data | None,
) -> ReinforcementTrainer:
    resolved = run.resolved
    eval_samples = resolved.eval_samples or 1
    shared = trainer.arguments(run, validates=validation is not None)
    # All samples of one prompt go through the model together.
    shared["per_device_eval_batch_size"] = eval_samples * max(1, 8 // eval_samples)
    built = ReinforcementTrainer(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(
            **shared,
            beta=resolved.beta,
            num_generations=resolved.samples,
            num_generations_eval=eval_samples,
            max_completion_length=resolved.max_completion_tokens,
            remove_unused_columns=False,
        ),
        train_dataset=training.rows,
        eval_dataset=validation.rows if validation else None,
        processing_class=tokenizer,
        peft_config=weights.lora_config(run, model),
    )
    if built.ref_model is not None:
        # Loaded from the base model's folder, which is not always where this job starts.
        built.ref_model.load_state_dict(model.state_dict())
    return built
