"""Whole runs of the training program on the tiny model, in real processes."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from app.training.manifest import verify
from app.training.report import Checkpoint, Metrics, Progress, Started
from tests.training.training_helpers import (
    Start,
    at_step,
    resuming,
    sha256,
    values_from,
    with_validation,
    write_rows,
)

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

# 48 cases in batches of 4: twelve steps an epoch.
FULL = {
    "adapter": "full",
    "n_epochs": 3,
    "batch_size": 4,
    "learning_rate": 3e-3,
    "checkpoint_interval": 10,
    "eval_interval": 9,
}
LORA = {**FULL, "adapter": "lora", "n_epochs": 1, "checkpoint_interval": 4, "eval_interval": 8}


def test_a_full_run_reports_every_step_once_and_survives_a_kill(
    start: Start, chats: Path, tmp_path: Path
) -> None:
    whole = start("whole", hyperparameters=FULL, **with_validation(chats)).end()

    finished, started = whole.finished, whole.started
    assert (started.total_steps, started.total_epochs, started.from_step) == (36, 3, 0)
    assert (started.training_cases, started.validation_cases) == (48, 6)
    assert started.dtype == "float32"
    assert [m.step for m in whole.metrics] == list(range(37))
    validated = [m.step for m in whole.metrics if "validation_loss" in m.values]
    assert validated == [0, 9, 10, 18, 20, 27, 30, 36]  # by the interval, and at each checkpoint
    assert [c.step for c in whole.checkpoints] == [10, 20, 30, 36]
    assert set(whole.metrics[0].values) == {
        "validation_loss",
        "validation_accuracy",
        "validation_entropy",
    }
    losses = [m.values["training_loss"] or 0 for m in whole.metrics[1:]]
    assert sum(losses[-5:]) < sum(losses[:5]) / 3
    assert finished.kind == "full"
    assert finished.trained_tokens == 3 * started.training_tokens
    assert finished.metrics["validation_loss"] == whole.metrics[-1].values["validation_loss"]
    verify(Path(finished.model_path), finished.manifest_sha256)
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= {
        file.name for file in Path(finished.model_path).iterdir()
    }
    last: Progress = whole.metrics[-1].progress
    assert (last.step, last.total_steps, last.remaining_seconds) == (36, 36, 0)

    killed = start("killed", hyperparameters=FULL, **with_validation(chats))
    killed.wait_for(lambda r: isinstance(r, Checkpoint) and r.step == 20)
    killed.wait_for(at_step(23))
    killed.kill()
    checkpoint = killed.end().checkpoints[1]
    assert not (tmp_path / "killed" / "model").exists()

    resumed = start(
        "resumed",
        attempt=2,
        hyperparameters=FULL,
        resume_from=checkpoint.path,
        resume_manifest_sha256=checkpoint.manifest_sha256,
        **with_validation(chats),
    ).end()

    assert resumed.started.from_step == 20
    assert [m.step for m in resumed.metrics] == list(range(21, 37))
    assert values_from(resumed.metrics, 0) == values_from(whole.metrics, 21)
    assert resumed.finished.trained_tokens == finished.trained_tokens
    assert not resumed.messages  # nothing differed, and the processor was not measured again


def test_sigterm_saves_and_the_rest_equals_an_uninterrupted_run(start: Start) -> None:
    whole = start("whole", hyperparameters=LORA).end()
    assert whole.finished.kind == "lora"

    paused = start("paused", hyperparameters=LORA)
    paused.wait_for(at_step(5))  # in the middle of an epoch, and between two checkpoints
    paused.terminate()
    outcome = paused.end()

    stopped = outcome.stopped
    assert 5 <= stopped.step <= 8
    checkpoint = outcome.checkpoints[-1]
    assert (checkpoint.step, checkpoint.path) == (stopped.step, stopped.checkpoint_path)

    resumed = start(
        "resumed",
        attempt=2,
        hyperparameters=LORA,
        resume_from=checkpoint.path,
        resume_manifest_sha256=checkpoint.manifest_sha256,
    ).end()

    assert resumed.finished.step == 12
    assert values_from(resumed.metrics, 0) == values_from(whole.metrics, stopped.step + 1)
    adapter = json.loads((Path(resumed.finished.model_path) / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "tiny"
    # Equal to the last bit, and not only in what was reported.
    weights = "adapter_model.safetensors"
    assert sha256(Path(resumed.finished.model_path) / weights) == sha256(
        Path(whole.finished.model_path) / weights
    )


def test_a_stop_does_not_wait_for_an_evaluation(start: Start, tmp_path: Path) -> None:
    row = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 400}]
    }
    file = tmp_path / "long.jsonl"
    write_rows(file, [row] * 150)
    training = start(
        hyperparameters={**LORA, "eval_interval": 1},
        validation_file=file,
        validation_sha256=sha256(file),
    )
    training.wait_for(at_step(0))  # after the first evaluation; the next begins in a moment
    time.sleep(0.3)
    training.terminate()
    outcome = training.end()

    assert outcome.stopped.step == outcome.metrics[-1].step == outcome.checkpoints[-1].step
    assert "validation_loss" in outcome.metrics[0].values
    assert "validation_loss" not in outcome.metrics[-1].values


def test_the_time_left_is_known_when_a_resumed_run_evaluates_first(
    start: Start, chats: Path
) -> None:
    """It had left between a step and its evaluation."""
    settings = {"hyperparameters": {**LORA, "eval_interval": 3}, **with_validation(chats)}
    paused = start("paused", **settings)
    paused.wait_for(at_step(5))
    paused.terminate()
    checkpoint = paused.end().checkpoints[-1]
    resumed = start("resumed", attempt=2, **settings, **resuming(checkpoint)).end()
    assert max(m.progress.remaining_seconds or 0 for m in resumed.metrics) < 60


def test_a_stop_before_training_leaves_at_once(start: Start) -> None:
    training = start()
    training.wait_for(lambda report: not isinstance(report, Started | Metrics))
    training.terminate()
    stopped = training.end().stopped
    assert (stopped.step, stopped.checkpoint_path) == (0, None)


def test_values_that_are_no_numbers_are_null_and_named(
    start: Start, tiny_model: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = safetensors.load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    safetensors.save_file(weights, broken / "model.safetensors", {"format": "pt"})

    hyperparameters = {"n_epochs": 1, "batch_size": 16, "checkpoint_interval": 2}
    outcome = start(base_model=broken, hyperparameters=hyperparameters).end()

    assert [m.step for m in outcome.metrics] == [1, 2, 3]
    for point in outcome.metrics:
        assert point.values["training_loss"] is None
        assert "training_loss" in point.non_finite
    assert not any("NaN" in line for line in outcome.lines)
    assert sum("diverged" in message for message in outcome.messages) == 1
    assert outcome.checkpoints[0].metrics["training_loss"] is None


def test_only_weighted_assistant_messages_count_and_the_rest_is_said(
    start: Start, tmp_path: Path
) -> None:
    def row(answer: str, **extra: Any) -> dict[str, Any]:
        return {
            "messages": [
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": answer, **extra},
            ]
        }

    file = tmp_path / "mixed.jsonl"
    write_rows(file, [row("yes"), row("no"), row("secret", weight=0), row("long " * 200)])
    outcome = start(
        training_file=file,
        training_sha256=sha256(file),
        hyperparameters={"n_epochs": 1, "max_length": 64},
        dtype="auto",
    ).end()

    assert outcome.finished.step == 1
    assert outcome.started.training_cases == 3
    assert outcome.started.truncated_cases == 1
    assert any("1 training cases were cut" in message for message in outcome.messages)
    assert any("1 training cases were left out" in message for message in outcome.messages)
    assert any(message.startswith("Computing in") for message in outcome.messages)
