"""Listens to the trainer: one line per step, a manifest per checkpoint, and the stop request."""

import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from app.training.errors import TrainingOver, TrainingStopped
from app.training.report import Metrics, Progress, finite
from app.training.run import Pace, Run

# The library's names, and ours; of validation the ones begin with "eval_" and "validation_".
_BOTH = {
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "rewards/accuracies": "reward_accuracy",
    "rewards/margins": "reward_margin",
    "logps/chosen": "chosen_log_probability",
    "logps/rejected": "rejected_log_probability",
    "reward": "reward",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "reward_zero_std_fraction",
    "kl": "kl",
    "grader_errors": "grader_error_fraction",
    "completions/mean_length": "completion_length",
    "completions/min_length": "completion_length_min",
    "completions/max_length": "completion_length_max",
    "completions/clipped_ratio": "completion_clipped_fraction",
}
NAMES = {
    "loss": "training_loss",
    "mean_token_accuracy": "training_accuracy",
    "entropy": "training_entropy",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "eval_loss": "validation_loss",
    "eval_mean_token_accuracy": "validation_accuracy",
    "eval_entropy": "validation_entropy",
    **_BOTH,
    **{f"eval_{theirs}": f"validation_{ours}" for theirs, ours in _BOTH.items()},
}
# The trainer's own clocks and counters, which start again after a resume (ours do not), and what is
# reported by another name.
DROPPED = (
    "epoch", "num_tokens", "total_flos", "train_", "eval_runtime", "eval_samples", "eval_steps",
    "eval_num_tokens", "eval_epoch", "eval_model_preparation_time", "step_time", "profiling/",
    "rewards/grader/", "eval_rewards/grader/", "clip_ratio/", "eval_clip_ratio/",
    "eval_reward_std", "eval_frac_reward_zero_std", *(
        f"{when}completions/{what}_terminated_length"
        for when in ("", "eval_") for what in ("mean", "min", "max")
    ),
)  # fmt: skip


GRADER = "grader/"  # before the name of a grader among several, which may be anything


def _our_name(theirs: str) -> str:
    if theirs.startswith("eval_" + GRADER):
        return "validation_" + theirs.removeprefix("eval_")
    return theirs if theirs.startswith(GRADER) else NAMES.get(theirs, theirs.replace("/", "_"))


class ReportingCallback(TrainerCallback):  # type: ignore[misc]  # the library is untyped here
    """Reports through `run`, and stops when that is asked for. Every process carries one."""

    def __init__(self, run: Run, validates: bool) -> None:
        self._run = run
        self._validates = validates
        self._pace = Pace()
        self._pending: dict[str, float] = {}
        self._evaluation_begun = 0.0
        self._tokens_before = 0
        self._warned_non_finite = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        run = self._run
        self._evaluation_begun = time.perf_counter()  # a resumed run may begin with one
        # Most trainers count from 0 after a resume; reinforcement's goes on where it was.
        self._tokens_before = state.num_input_tokens_seen
        if run.resumed and args.eval_on_start:  # what follows completes the line of this step
            self._pending = {name: math.nan if v is None else v for name, v in run.latest.items()}
            self._pending["trained_tokens"] = run.trained_tokens

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if control.should_training_stop:
            raise TrainingOver
        self._pace.step_begins()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._run.stop.compare()
        if self._run.stop.asked:
            # No evaluation: whoever asks for a pause waits for this process to leave.
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False
        elif self._run.resolved.validates_at(state.global_step):
            control.should_evaluate = self._validates

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Comes once with a step's training values and, after an evaluation, with its values."""
        logs = logs or {}
        if "loss" not in logs and "eval_loss" not in logs:
            return  # the summary at the end
        if self._run.config.method == "reinforcement":
            logs = {name: v for name, v in logs.items() if name != "eval_loss"}  # says nothing
        for name, value in logs.items():
            if isinstance(value, int | float) and not name.startswith(DROPPED):
                self._pending[_our_name(name)] = float(value)
        if "loss" in logs:
            total = int(logs["num_tokens"])
            tokens, self._tokens_before = total - self._tokens_before, total
            self._run.trained_tokens += tokens
            self._pending["tokens_per_second"] = self._pace.step_ends(tokens)
            self._pending["trained_tokens"] = self._run.trained_tokens
            self._evaluation_begun = time.perf_counter()
            if not control.should_evaluate:
                self._send_line(state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step:
            self._pace.evaluation_took(time.perf_counter() - self._evaluation_begun)
        self._send_line(state)
        self._run.stop.compare()
        if self._run.stop.asked:
            if not state.global_step:
                raise TrainingStopped
            control.should_save = control.should_training_stop = True

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leaves an evaluation half way; the step before it is complete and gets its line."""
        self._run.stop.compare()
        if self._run.stop.asked:
            if self._pending:
                self._send_line(state)
            raise TrainingStopped

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._run.checkpoint_saved(folder, state.global_step, state.epoch)
        if self._run.stop.asked:
            control.should_training_stop = True

    def _send_line(self, state: Any) -> None:
        values, non_finite = finite(self._pending)
        self._pending = {}
        counters = ("tokens_per_second", "trained_tokens")
        self._run.latest = {name: v for name, v in values.items() if name not in counters}
        self._run.reporter.send(
            Metrics(
                step=state.global_step,
                epoch=state.epoch or 0.0,
                values=values,
                non_finite=non_finite,
                progress=self._progress(state),
            )
        )
        if non_finite and not self._warned_non_finite:
            self._warned_non_finite = True
            self._run.reporter.message(
                "warn",
                f"At step {state.global_step} {', '.join(non_finite)} stopped being a number:"
                " training has probably diverged. A lower learning rate may help.",
            )

    def _progress(self, state: Any) -> Progress:
        resolved = self._run.resolved
        done, total = state.global_step, state.max_steps
        evaluations = 0
        if self._validates:
            evaluations = _evaluations(
                done, total, resolved.eval_interval, resolved.checkpoint_interval
            )
        return Progress(
            step=done,
            total_steps=total,
            epoch=state.epoch or 0.0,
            total_epochs=resolved.n_epochs,
            trained_tokens=self._run.trained_tokens,
            tokens_per_second=self._pace.tokens_per_second,
            remaining_seconds=self._pace.remaining(total - done, evaluations),
        )


def _evaluations(done: int, total: int, every: int, saved_every: int) -> int:
    """How many are still to come: at multiples of both intervals, and at the last step."""

    def multiples(n: int) -> int:
        return total // n - done // n

    found = multiples(every) + multiples(saved_every) - multiples(math.lcm(every, saved_every))
    last_is_one = not (total % every and total % saved_every)
    return found if done >= total or last_is_one else found + 1
