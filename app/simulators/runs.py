"""Jobs that train nothing but behave as if: phases on a clock, curves, tokens."""

import math
import random
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


OVER = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})


@dataclass(frozen=True)
class Plan:
    """How long everything takes, in seconds."""

    validating: float = 1.0
    queued: float = 1.0
    stopping: float = 0.0
    steps: int = 20
    step_seconds: float = 0.5


@dataclass(frozen=True)
class Point:
    step: int
    at: float
    training_loss: float
    training_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass
class Run:
    """One job's life. Times are seconds since 1970; `advance` first, then look."""

    id: str
    created_at: float
    plan: Plan
    seed: int = 0
    tokens: int = 0
    """That training will have read in the end."""
    has_validation: bool = False
    failure: tuple[str, str, str | None] | None = None
    """Code, message and parameter, if its data is bad: it fails when that is looked at."""
    phase: Phase = Phase.VALIDATING
    history: list[tuple[Phase, float]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.history.append((self.phase, self.created_at))

    @property
    def entered_at(self) -> float:
        return self.history[-1][1]

    @property
    def started_at(self) -> float | None:
        return next((at for phase, at in self.history if phase is Phase.RUNNING), None)

    @property
    def finished_at(self) -> float | None:
        return self.entered_at if self.phase in OVER else None

    @property
    def step(self) -> int:
        return len(self.points)

    @property
    def trained_tokens(self) -> int:
        return self.tokens * self.step // self.plan.steps

    @property
    def checkpoint_steps(self) -> list[int]:
        """A checkpoint at each third of the way."""
        third = max(1, self.plan.steps // 3)
        return [point.step for point in self.points if point.step % third == 0][-3:]

    def at(self, step: int) -> Point:
        return self.points[step - 1]

    def advance(self, now: float) -> None:
        while self._next(now):
            pass

    def pause(self, now: float) -> bool:
        """False: it is not running, or has not made a step."""
        self.advance(now)
        if self.phase is not Phase.RUNNING or not self.points:
            return False
        self._enter(Phase.PAUSED, now)
        return True

    def resume(self, now: float) -> bool:
        if self.phase is not Phase.PAUSED:
            return False
        self._enter(Phase.QUEUED, now)
        return True

    def cancel(self, now: float) -> bool:
        """False: it is over already."""
        self.advance(now)
        if self.phase in OVER:
            return False
        if self.phase is not Phase.STOPPING:
            self._enter(Phase.STOPPING, now)
            self.advance(now)
        return True

    def _enter(self, phase: Phase, at: float) -> None:
        self.phase = phase
        self.history.append((phase, at))

    def _next(self, now: float) -> bool:
        """Do what comes next, if its time has come."""
        plan = self.plan
        match self.phase:
            case Phase.VALIDATING if now >= (at := self.entered_at + plan.validating):
                self._enter(Phase.FAILED if self.failure else Phase.QUEUED, at)
            case Phase.QUEUED if now >= (at := self.entered_at + plan.queued):
                self._enter(Phase.RUNNING, at)
            case Phase.RUNNING:
                resumed = self.entered_at
                last = max(resumed, self.points[-1].at) if self.points else resumed
                at = last + plan.step_seconds
                if self.step >= plan.steps:
                    self._enter(Phase.SUCCEEDED, last)
                elif now >= at:
                    self.points.append(self._measure(self.step + 1, at))
                else:
                    return False
            case Phase.STOPPING if now >= (at := self.entered_at + plan.stopping):
                self._enter(Phase.CANCELLED, at)
            case _:
                return False
        return True

    def _measure(self, step: int, at: float) -> Point:
        """A loss that falls as losses do; the same for the same seed."""
        noise = random.Random(f"{self.seed}-{step}")  # noqa: S311 - a curve, not a secret
        share = step / self.plan.steps
        loss = 0.35 + 2.1 * math.exp(-3.2 * share) + noise.gauss(0, 0.03)
        accuracy = min(0.99, 0.97 - loss / 4)
        validated = self.has_validation and (step % max(1, self.plan.steps // 4) == 0)
        return Point(
            step,
            at,
            round(loss, 4),
            round(accuracy, 4),
            round(loss + 0.12 * share + abs(noise.gauss(0, 0.02)), 4) if validated else None,
            round(accuracy - 0.03, 4) if validated else None,
        )
