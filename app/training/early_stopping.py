"""Ending a run whose validation no longer gets better."""

import math
from collections.abc import Iterable
from typing import Any

from transformers import TrainerCallback

from app.training.hyperparameters import EarlyStopping
from app.training.run import Run


def exhausted(rule: EarlyStopping, costs: Iterable[float]) -> bool:
    """Whether the last `patience` costs all failed to beat the best before them by `min_delta`.

    A cost that is no number beats nothing.
    """
    best, waited = math.inf, 0
    for cost in costs:
        if cost < best - rule.min_delta:
            best, waited = cost, 0
        else:
            waited += 1
    return waited >= rule.patience


class EarlyStoppingCallback(TrainerCallback):  # type: ignore[misc]  # the library is untyped here
    """Judges by the trainer's log, which checkpoints keep: a resumed run decides alike."""

    def __init__(self, run: Run, rule: EarlyStopping) -> None:
        self._run, self._rule = run, rule
        # Of a reward more is better, of a loss less.
        self._name, self._sign = "eval_loss", 1.0
        if run.config.method == "reinforcement":
            self._name, self._sign = "eval_reward", -1.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._run.resumed:
            self._judge(state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._judge(state, control)

    def _judge(self, state: Any, control: Any) -> None:
        seen = [entry[self._name] for entry in state.log_history if self._name in entry]
        # None: no sample of that evaluation could be judged.
        costs = [math.inf if value is None else self._sign * value for value in seen]
        if not exhausted(self._rule, costs):
            return
        control.should_training_stop = True
        control.should_save = state.global_step > 0
        if not self._run.ended_early:
            self._run.ended_early = True
            what = "validation reward" if self._sign < 0 else "validation loss"
            self._run.reporter.message(
                "info",
                f"Ended early at step {state.global_step}: the {what} did not get better by more"
                f" than {self._rule.min_delta:g} in {self._rule.patience} evaluations.",
            )
