"""The score of each checkpoint: answers to held-out cases, judged by the job's graders.

Nothing that a grader does, or fails to do, ends the job: a checkpoint may be left without a score.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback

from app.graders.client import Graders
from app.graders.errors import GraderInvalid, GradersUnavailable
from app.graders.protocol import GradeCase
from app.graders.result import GraderResult
from app.training import group
from app.training.answers import Asking, CutShort, answers
from app.training.asking import Asker, GivenUp
from app.training.config import EvaluationConfig
from app.training.errors import TrainingFailed, TrainingStopped
from app.training.marks import Unscorable, count
from app.training.prompts import Prompt, read_prompts
from app.training.report import Score
from app.training.resolve import COMPLETION_TOKENS, DEFAULT_MAX_LENGTH, Device
from app.training.run import Run

TRY_AGAIN_AFTER = 2.0  # seconds, when the graders' process could not be reached


def prepare(run: Run, tokenizer: Any, context: int | None, device: Device) -> "Scorer | None":
    """Read the held-out cases. Raises TrainingFailed for a file that cannot be used."""
    config = run.config.evaluation
    if config is None:
        return None
    found = read_prompts(config.file, tokenizer, "invalid_evaluation_file", {})
    room = context or 2 * DEFAULT_MAX_LENGTH
    longest = max((prompt.tokens for prompt in found), default=0)
    most = max(1, min(COMPLETION_TOKENS[device], room - longest))
    if config.max_completion_tokens != "auto":
        most = config.max_completion_tokens
    kept = [prompt for prompt in found if prompt.tokens + most <= room]
    if len(kept) < len(found):
        run.reporter.message(
            "warn",
            f"{len(found) - len(kept)} held-out cases are left out: with an answer of {most} tokens"
            f" they would be longer than the {room} tokens that the base model reads.",
        )
    if not kept:
        raise TrainingFailed(
            "invalid_evaluation_file", "No held-out case is left to judge by.", "evaluation_file"
        )
    cases = min(len(kept), config.max_cases)
    # Spread over the file, which may be sorted.
    chosen = [kept[n * len(kept) // cases] for n in range(cases)]
    asking = Asking(config.samples, most, config.temperature, run.config.seed, device)
    return Scorer(run, config, tokenizer, chosen, asking)


@dataclass
class Scorer:
    """Judges the model as it is at that moment."""

    run: Run
    config: EvaluationConfig
    tokenizer: Any
    prompts: list[Prompt]
    asking: Asking

    def __post_init__(self) -> None:
        self._asker = Asker(self.run.config.model_endpoint)
        tokenized = self.tokenizer([p.text for p in self.prompts], add_special_tokens=False)
        self._ids: list[list[int]] = tokenized["input_ids"]
        self._items: list[dict[str, Any]] = [json.loads(p.item) for p in self.prompts]

    def close(self) -> None:
        self._asker.close()

    def score(self, model: Any, step: int) -> None:
        """Report the score of this step, unless a stop is asked for before it is there."""
        if self.run.stop.heard:
            self.run.unscored = True  # made up for when the run is taken up again
            return
        begun = time.monotonic()
        until = begun + self.config.seconds

        def may_go_on() -> bool:
            return not self.run.stop.heard and time.monotonic() < until

        said: dict[str, Any] = {}
        try:
            texts = answers(model, self.tokenizer, self._ids, self.asking, may_go_on)
            results = self._judged(texts, until, may_go_on)
            items = [item for item in self._items for _ in range(self.asking.samples)]
            said = count(self.config.graders, items, texts, results)
        except (CutShort, GivenUp):
            if self.run.stop.heard:
                self.run.unscored = True
                return
            said["reason"] = (
                f"Judging it took longer than {self.config.seconds:g} s: lower maxCases or"
                " maxCompletionTokens."
            )
        except Unscorable as why:
            said["reason"] = str(why)
        taken = round(time.monotonic() - begun, 3)
        report = Score(step=step, **{"score": None, **said}, cases=len(self._items), seconds=taken)
        self.run.reporter.send(report)

    def _judged(
        self, texts: list[str], until: float, may_go_on: Callable[[], bool]
    ) -> list[list[GraderResult]]:
        """For each grader what it gave for each answer. Raises GivenUp and Unscorable."""
        samples = self.asking.samples
        items = [item for item in self._items for _ in range(samples)]
        cases = [GradeCase(item=i, sample=s) for i, s in zip(items, texts, strict=True)]
        while True:
            try:
                return self._asker.ask(
                    lambda graders: self._grade(graders, cases, until), may_go_on
                )
            except GraderInvalid as invalid:
                raise Unscorable(f"A grader cannot be used: {invalid.message}") from invalid
            except GradersUnavailable:
                pause = time.monotonic() + TRY_AGAIN_AFTER
                while time.monotonic() < pause:
                    if not may_go_on():
                        raise GivenUp from None
                    time.sleep(0.1)

    async def _grade(
        self, graders: Graders, cases: list[GradeCase], until: float
    ) -> list[list[GraderResult]]:
        config = self.config
        return await asyncio.gather(
            *(
                graders.grade(
                    one.grader,
                    cases,
                    tenant=config.tenant,
                    seconds=max(0.1, until - time.monotonic()),
                    endpoint=self.run.config.model_endpoint,
                )
                for one in config.graders
            )
        )


class ScoringCallback(TrainerCallback):  # type: ignore[misc]  # the library is untyped here
    """To come after the one that seals and reports the checkpoints."""

    def __init__(self, run: Run, scorer: Scorer) -> None:
        self._run, self._scorer = run, scorer

    def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Make up for the score that a stop had cut off."""
        config, resumed = self._scorer.config, self._run.resumed
        owed = resumed and config.resumed_is_unscored and self._is_due(resumed.step)
        if resumed and owed and self._scored(known["model"], resumed.step):
            raise TrainingStopped

    def on_save(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        due = self._is_due(state.global_step)
        if due and self._scored(known["model"], state.global_step):
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._scorer.close()

    def _scored(self, model: Any, step: int) -> bool:
        """By the first process, while the others wait. Returns whether a stop was asked for."""
        if group.is_first():
            self._scorer.score(model, step)
        self._run.unscored = group.any_of(self._run.unscored)
        self._run.stop.compare()
        return self._run.stop.asked

    def _is_due(self, step: int) -> bool:
        """Where a run that nobody pauses saves: the choice must not depend on pauses."""
        resolved = self._run.resolved
        last = step >= resolved.total_steps or self._run.ended_early
        return last or not step % resolved.checkpoint_interval
