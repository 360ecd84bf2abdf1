"""Going on from another job's weights, and ending early; both go on exactly after a stop."""

from pathlib import Path
from typing import Any

import pytest

from app.training.hyperparameters import EarlyStopping
from app.training.report import Finished
from tests.training.training_helpers import (
    Start,
    at_step,
    pair_files,
    resuming,
    sha256,
    values_from,
    with_validation,
)

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

SHORT: dict[str, Any] = {"n_epochs": 1, "batch_size": 8, "learning_rate": 5e-3, "lora_rank": 4}


def starting_from(model: Finished) -> dict[str, Any]:
    return {"start_from": model.model_path, "start_manifest_sha256": model.manifest_sha256}


@pytest.fixture
def earlier(start: Start, chats: Path) -> Finished:
    """An adapter of rank 4, supervised."""
    return start("earlier", hyperparameters=SHORT).end().finished


@pytest.mark.soak
def test_preferences_on_top_of_an_adapter_compare_with_it_and_go_on_exactly(
    start: Start, earlier: Finished, tmp_path: Path
) -> None:
    asked = {"n_epochs": 1, "batch_size": 4, "learning_rate": 5e-3, "beta": 0.5}
    settings = {**pair_files(tmp_path), **starting_from(earlier), "hyperparameters": asked}
    whole = start("whole", **settings).end()

    assert whole.started.resolved.lora_rank == 4
    before, after = whole.metrics[0].values, whole.metrics[-1].values
    assert before["validation_reward_margin"] == 0
    assert (after["validation_reward_margin"] or 0) > 0.2
    names = {file.name for file in Path(whole.finished.model_path).iterdir()}
    assert "adapter_model.safetensors" in names
    assert "ref" not in names

    paused = start("paused", **settings)
    paused.wait_for(at_step(3))
    paused.terminate()
    outcome = paused.end()
    rest = start("rest", attempt=2, **settings, **resuming(outcome.checkpoints[-1])).end()
    values = values_from(outcome.metrics, 0) | values_from(rest.metrics, 0)
    assert values == values_from(whole.metrics, 0)


@pytest.mark.soak
def test_a_run_ends_early_and_a_resumed_one_decides_alike(
    start: Start, earlier: Finished, chats: Path
) -> None:
    asked = {
        "adapter": "full",
        "n_epochs": 3,
        "batch_size": 4,
        "eval_interval": 2,
        "checkpoint_interval": 50,
        "early_stopping": {"patience": 2, "min_delta": 9.0},  # no gain is ever so large
    }
    settings = {**with_validation(chats), **starting_from(earlier), "hyperparameters": asked}
    done = start("early", **settings).end()

    assert (done.finished.step, done.started.total_steps) == (4, 36)
    assert (done.finished.kind, done.started.dtype) == ("full", "float32")
    assert [m.step for m in done.metrics] == [0, 1, 2, 3, 4]
    assert any("Ended early at step 4" in message for message in done.messages)
    checkpoint = done.checkpoints[-1]
    assert checkpoint.step == 4

    again = start("again", attempt=2, **settings, **resuming(checkpoint)).end()
    assert again.finished.step == 4
    assert not again.metrics
    weights = "model.safetensors"
    assert sha256(Path(again.finished.model_path) / weights) == sha256(
        Path(done.finished.model_path) / weights
    )


@pytest.mark.parametrize(
    ("costs", "over"),
    [
        ([3, 2, 1], False),
        ([3, 3], False),
        ([3, 3, 3], True),
        ([3, 2.95, 2.9], True),  # each better, but by too little
        ([3, 2.95, 2.8, 2.8], False),
        ([3, float("nan"), float("inf")], True),
        ([3, 4, 5, 2], False),
    ],
)
def test_patience_runs_out_when_gains_stay_small(costs: list[float], over: bool) -> None:
    from app.training.early_stopping import exhausted  # noqa: PLC0415 - takes seconds

    assert exhausted(EarlyStopping(patience=2, min_delta=0.1), costs) is over
