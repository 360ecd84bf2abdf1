"""Rewards: what graders say of the model's answers, asked in a process of their own."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from app.graders.errors import GraderInvalid, GradersUnavailable
from app.graders.protocol import GradeCase
from app.graders.result import GraderResult
from app.training.asking import Asker, GivenUp
from app.training.config import ReinforcementConfig
from app.training.errors import TrainingFailed, TrainingStopped
from app.training.report import Reporter
from app.training.run import StopRequest

BATCH_SECONDS = 600.0
LONGEST_PAUSE = 30.0  # seconds between two tries to reach graders that are out of reach
MODEL_PATIENCE = 600.0  # seconds that a grader's model may be out of reach, as in a restart
STOP_GRACE = 10.0  # seconds that a batch in work may still take once a stop was asked for
# When more than half of the samples could not be judged, so many batches in a row, the grader is
# at fault and not the samples.
BAD_BATCHES = 3
MOST_WARNINGS = 5


class Grading:
    """Asks one grader, batch by batch. To be closed: it owns a process."""

    def __init__(self, config: ReinforcementConfig, reporter: Reporter, stop: StopRequest) -> None:
        self._config, self._reporter, self._stop = config, reporter, stop
        self._asker = Asker(config.model_endpoint)
        self._bad_batches = 0
        self._away_since: float | None = None  # the model that a grader asks
        self._warned: set[str] = set()

    def close(self) -> None:
        self._asker.close()

    def judge(self, items: Sequence[dict[str, Any]], samples: Sequence[str]) -> list[GraderResult]:
        """The results, in order; one that `failed` is no basis for learning.

        Raises TrainingFailed for a grader that cannot be used, and TrainingStopped when a stop was
        asked for while it takes long, or is out of reach.
        """
        config = self._config
        cases = [GradeCase(item=i, sample=s) for i, s in zip(items, samples, strict=True)]
        pause = 1.0
        while True:
            try:
                results = self._asker.ask(
                    lambda graders: graders.grade(
                        config.grader,
                        cases,
                        tenant=config.tenant,
                        seconds=BATCH_SECONDS,
                        endpoint=config.model_endpoint,
                    ),
                    self._patience(),
                )
                if (why := self._model_is_away(results)) is None:
                    break
                self._warn(f"The model that judges is out of reach, trying again: {why}")
            except GivenUp as given_up:
                raise TrainingStopped from given_up
            except GraderInvalid as invalid:
                raise TrainingFailed("invalid_grader", invalid.message, "grader") from invalid
            except GradersUnavailable as trouble:
                self._warn(f"The graders are out of reach, trying again: {trouble.message}")
            if self._stop.asked:
                raise TrainingStopped
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
        self._look_at_failures(results)
        return results

    def _patience(self) -> Callable[[], bool]:
        """True until a stop has been asked for and the batch has taken its grace as well."""
        until: float | None = None

        def may_go_on() -> bool:
            nonlocal until
            if self._stop.asked and until is None:
                until = time.monotonic() + STOP_GRACE
            return until is None or time.monotonic() < until

        return may_go_on

    def _model_is_away(self, results: list[GraderResult]) -> str | None:
        """Why most of the samples were not judged, where that is worth waiting for."""
        missed = [result for result in results if result.metadata.errors.model_grader_server_error]
        if 2 * len(missed) <= len(results):
            self._away_since = None
            return None
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        return _reason(missed[0]) if now - self._away_since < MODEL_PATIENCE else None

    def _look_at_failures(self, results: list[GraderResult]) -> None:
        failed = [result for result in results if result.failed]
        for result in failed:
            self._warn(f"A sample could not be graded: {_reason(result)}")
        self._bad_batches = self._bad_batches + 1 if 2 * len(failed) > len(results) else 0
        if self._bad_batches >= BAD_BATCHES:
            raise TrainingFailed(
                "grader_failed",
                f"Most samples of {BAD_BATCHES} batches in a row could not be graded:"
                f" {_reason(failed[0])}",
                "grader",
            )

    def _warn(self, message: str) -> None:
        if message not in self._warned and len(self._warned) < MOST_WARNINGS:
            self._warned.add(message)
            self._reporter.message("warn", message)


def _reason(result: GraderResult) -> str:
    errors = result.metadata.errors
    return (errors.python_grader_runtime_error_details or errors.details or "no reason given")[:500]
