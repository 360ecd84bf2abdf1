"""Reinforcement on the tiny model, in real processes, with real graders: the reward rises, and a
run goes on exactly."""

import random
from pathlib import Path
from typing import Any

import pytest

from app.training.manifest import verify
from app.training.report import Checkpoint
from tests.training.training_helpers import (
    Start,
    at_step,
    resuming,
    sha256,
    values_from,
    write_rows,
)

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

LETTERS = """
def grade(sample, item):
    text = sample["output_text"]
    return text.count(item["letter"]) / max(1, len(text))
"""
GRADER: dict[str, Any] = {
    "type": "multi",
    "name": "both",
    "calculate_output": "letters - 0.01 * marks",
    "graders": {
        "letters": {"type": "python", "name": "letters", "source": LETTERS},
        "marks": {
            "type": "string_check",
            "name": "marks",
            "input": "{{ sample.output_text }}",
            "reference": "?",
            "operation": "like",
        },
    },
}
# 12 prompts, four a step: three steps an epoch.
HYPERPARAMETERS: dict[str, Any] = {
    "adapter": "full",
    "n_epochs": 5,
    "batch_size": 4,
    "compute_multiplier": 2.0,
    "max_completion_tokens": 16,
    "learning_rate": 1e-2,
    "checkpoint_interval": 3,
    "eval_interval": 5,
}


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("questions")
    config: dict[str, Any] = {"method": "reinforcement", "grader": GRADER, "tenant": "org_test"}
    for name, numbers in {"training": range(12), "validation": range(12, 16)}.items():
        file = folder / f"{name}.jsonl"
        question = "say something about ticket"
        write_rows(
            file,
            [
                {"messages": [{"role": "user", "content": f"{question} {n}"}], "letter": "e"}
                for n in numbers
            ],
        )
        config |= {f"{name}_file": file, f"{name}_sha256": sha256(file)}
    return config


def test_the_reward_rises_and_neither_a_pause_nor_a_kill_changes_a_digit(
    start: Start, questions: dict[str, Any]
) -> None:
    settings = {**questions, "hyperparameters": HYPERPARAMETERS}
    whole = start("whole", **settings).end()

    resolved = whole.started.resolved
    assert (resolved.samples, resolved.beta, resolved.total_steps) == (8, 0.04, 15)
    assert [m.step for m in whole.metrics] == list(range(16))
    rewards = [m.values["reward"] or 0 for m in whole.metrics[1:]]
    assert sum(rewards[-3:]) > 1.5 * sum(rewards[:3])
    last = whole.metrics[-1].values
    assert last["validation_reward"] is not None
    assert last["grader/letters"] is not None
    assert last["reward"] == pytest.approx(
        last["grader/letters"] - 0.01 * (last["grader/marks"] or 0), abs=1e-5
    )
    assert (last["kl"] or 0) > 0
    assert last["grader_error_fraction"] == 0
    assert 0 <= (last["reward_zero_std_fraction"] or 0) <= 1
    assert 1 <= (last["completion_length"] or 0) <= 16
    manifest = verify(Path(whole.finished.model_path), whole.finished.manifest_sha256)
    assert (manifest.method, manifest.kind) == ("reinforcement", "full")

    step = random.randint(1, 11)
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

    rest = start("last", attempt=3, **settings, **resuming(kept)).end()
    values = values_from(outcome.metrics, 0)
    values |= values_from(second.metrics, 0)
    values |= values_from(rest.metrics, 0)
    assert values == values_from(whole.metrics, 0)


@pytest.mark.soak
def test_a_grader_that_fails_on_everything_fails_the_job_and_says_why(
    start: Start, questions: dict[str, Any]
) -> None:
    broken = {
        "type": "python",
        "name": "broken",
        "source": "def grade(sample, item):\n    return item['no such field']\n",
    }
    outcome = start(**{**questions, "grader": broken, "hyperparameters": HYPERPARAMETERS}).end()
    assert (outcome.failed.code, outcome.failed.param) == ("grader_failed", "grader")
    assert "no such field" in outcome.failed.message


@pytest.mark.soak
def test_effort_is_refused_where_the_template_knows_none(
    start: Start, questions: dict[str, Any]
) -> None:
    asked = {**HYPERPARAMETERS, "reasoning_effort": "high"}
    failed = start(**{**questions, "hyperparameters": asked}).end().failed
    assert (failed.code, failed.param) == ("invalid_hyperparameters", "reasoning_effort")
