"""Which of a job's checkpoints are kept."""

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.jobs.tables import Checkpoint

_Count = Annotated[int, Field(strict=True, ge=0, le=100)]


class Retention(BaseModel):
    """So many of each; a checkpoint that one of the rules keeps is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    last: Annotated[int, Field(strict=True, ge=1, le=100)] = 3
    best_by_loss: _Count = 1
    best_by_score: _Count = 1

    def superfluous(self, found: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Those that no rule keeps, of a job's checkpoints with the furthest first.

        Without validation there is no loss to judge by: the training loss of one batch says little.
        """
        kept = {c.id for c in found[: self.last]}
        kept |= {c.id for c in by_loss(found)[: self.best_by_loss]}
        kept |= {c.id for c in by_score(found)[: self.best_by_score]}
        return [c for c in found if c.id not in kept]


def best(found: Sequence[Checkpoint]) -> Checkpoint | None:
    """By score where there are scores, else by validation loss, else the furthest. Of equals the
    earlier one: it has forgotten less."""
    ranked = by_score(found) or by_loss(found) or list(found)
    return ranked[0] if ranked else None


def by_score(found: Iterable[Checkpoint]) -> list[Checkpoint]:
    scored = [(c.score, c) for c in found if c.score is not None]
    return [c for _, c in sorted(scored, key=lambda pair: (-pair[0], pair[1].step))]


def by_loss(found: Iterable[Checkpoint]) -> list[Checkpoint]:
    judged = [(c.metrics.get("validation_loss"), c) for c in found]
    known = [(loss, c) for loss, c in judged if loss is not None]
    return [c for _, c in sorted(known, key=lambda pair: (pair[0], pair[1].step))]
