"""Preference training on the tiny model, in real processes: it learns, and goes on exactly."""

import random
from pathlib import Path
from typing import Any

import pytest

from app.training.manifest import verify
from app.training.report import Checkpoint
from tests.training.training_helpers import (
    Start,
    at_step,
    pair_files,
    resuming,
    sha256,
    values_from,
)

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

# 32 pairs in batches of 4: eight steps an epoch.
HYPERPARAMETERS: dict[str, Any] = {
    "n_epochs": 2,
    "batch_size": 4,
    "learning_rate": 5e-3,
    "beta": 0.5,
    "checkpoint_interval": 3,
    "eval_interval": 5,
}


@pytest.fixture(scope="module")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return pair_files(tmp_path_factory.mktemp("pairs"))


def test_the_margin_rises_and_neither_a_pause_nor_a_kill_changes_a_digit(
    start: Start, preferences: dict[str, Any]
) -> None:
    settings = {**preferences, "hyperparameters": HYPERPARAMETERS}
    whole = start("whole", **settings).end()

    assert whole.started.total_steps == 16
    assert [m.step for m in whole.metrics] == list(range(17))
    before, after = whole.metrics[0].values, whole.metrics[-1].values
    assert before["validation_reward_margin"] == 0  # it is still what it is compared with
    assert (after["validation_reward_margin"] or 0) > 1
    assert after["validation_reward_accuracy"] == 1
    assert (after["validation_loss"] or 9) < (before["validation_loss"] or 0) / 2
    assert (after["reward_margin"] or 0) == pytest.approx(
        (after["chosen_reward"] or 0) - (after["rejected_reward"] or 0), abs=1e-5
    )
    manifest = verify(Path(whole.finished.model_path), whole.finished.manifest_sha256)
    assert (manifest.method, manifest.kind, manifest.resolved.beta) == ("dpo", "lora", 0.5)

    step = random.randint(1, 12)
    print(f"pause after step {step}")  # noqa: T201 - shown when the test fails
    paused = start("paused", **settings)
    paused.wait_for(at_step(step))
    paused.terminate()
    outcome = paused.end()
    assert outcome.checkpoints[-1].step == outcome.stopped.step

    killed = start("killed", attempt=2, **settings, **resuming(outcome.checkpoints[-1]))
    kept = killed.wait_for(lambda r: isinstance(r, Checkpoint))
    assert isinstance(kept, Checkpoint)
    killed.kill()
    second = killed.end()

    last = start("last", attempt=3, **settings, **resuming(kept)).end()
    values = values_from(outcome.metrics, 0)
    values |= values_from(second.metrics, 0)
    values |= values_from(last.metrics, 0)
    assert values == values_from(whole.metrics, 0)
    weights = "adapter_model.safetensors"
    assert sha256(Path(last.finished.model_path) / weights) == sha256(
        Path(whole.finished.model_path) / weights
    )
