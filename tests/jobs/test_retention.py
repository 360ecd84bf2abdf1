"""Which checkpoints stay, and which is the best."""

from app.core import clock
from app.jobs.retention import Retention, best
from app.jobs.tables import Checkpoint


def saved(step: int, loss: float | None = None, score: float | None = None) -> Checkpoint:
    return Checkpoint(
        org_id="org_1",
        id=f"ftckpt_{step}",
        job_id="ftjob_1",
        attempt=1,
        step=step,
        path="",
        manifest_sha256="",
        size_bytes=0,
        metrics={"validation_loss": loss} if loss is not None else {},
        score=score,
        created_at=clock.now(),
    )


LOSSES = [(5, 0.9), (4, 0.5), (3, 0.3), (2, 0.4), (1, 0.8)]


def gone(rule: Retention, found: list[Checkpoint]) -> list[int]:
    return [c.step for c in rule.superfluous(found)]


def test_the_furthest_and_the_best_by_loss_stay() -> None:
    found = [saved(step, loss) for step, loss in LOSSES]
    assert gone(Retention(last=1), found) == [4, 2, 1]
    assert gone(Retention(last=2, best_by_loss=0), found) == [3, 2, 1]
    assert gone(Retention(last=1, best_by_loss=2), found) == [4, 1]


def test_a_score_keeps_what_the_loss_would_not() -> None:
    scores = {5: 0.1, 4: 0.2, 3: 0.3, 2: 0.4, 1: 0.9}
    found = [saved(step, loss, scores[step]) for step, loss in LOSSES]
    assert gone(Retention(last=1), found) == [4, 2]


def test_the_best_is_by_score_then_by_loss_then_the_furthest() -> None:
    scored = [saved(step, loss, 1.0 if step < 3 else 0.0) for step, loss in LOSSES]
    assert best(scored).step == 1  # type: ignore[union-attr]
    assert best([saved(step, loss) for step, loss in LOSSES]).step == 3  # type: ignore[union-attr]
    assert best([saved(2), saved(1)]).step == 2  # type: ignore[union-attr]
    assert best([]) is None
