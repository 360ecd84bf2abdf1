"""Every method on the embedded model: each gets better at what it is for. Minutes of work, so part
of the long campaigns."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.training.embedded import unavailable_reason
from tests.support import run_module
from tests.training.training_helpers import Outcome, Start, sha256, write_rows

pytestmark = [pytest.mark.train, pytest.mark.soak, pytest.mark.timeout(1200)]
QUEUES = ("billing", "shipping", "account")


@pytest.fixture(scope="module")
def smol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := unavailable_reason():
        pytest.fail(reason)
    folder = tmp_path_factory.mktemp("embedded") / "smol"
    assert run_module("app.training.convert", "--to", folder).returncode == 0
    return folder


def asked(number: int) -> list[dict[str, str]]:
    queue = QUEUES[number % 3]
    return [{"role": "user", "content": f"Ticket {number}: sort my question about {queue}."}]


def answer(number: int) -> str:
    return json.dumps({"queue": QUEUES[number % 3]})


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def trained(
    start: Start, base: Path, folder: Path, rows: list[dict[str, Any]], **config: Any
) -> Outcome:
    """Four fifths are trained on, the rest validates."""
    split = len(rows) * 4 // 5
    for name, part in {"training": rows[:split], "validation": rows[split:]}.items():
        file = folder / f"{name}.jsonl"
        write_rows(file, part)
        config |= {f"{name}_file": file, f"{name}_sha256": sha256(file)}
    settings = {"base_model": base, "base_model_name": "smollm2", "dtype": "bfloat16"}
    outcome = start(**settings, **config).end()
    assert outcome.finished
    return outcome


def test_supervised_lowers_the_loss(start: Start, smol: Path, tmp_path: Path) -> None:
    rows = [{"messages": [*asked(n), said(answer(n))]} for n in range(50)]
    metrics = trained(start, smol, tmp_path, rows, hyperparameters={"n_epochs": 2}).metrics
    first, last = (m.values["validation_loss"] or 0 for m in (metrics[0], metrics[-1]))
    print(f"supervised: validation loss {first:.3f} -> {last:.3f}")  # noqa: T201
    assert last < first / 4


def test_preferences_widen_the_margin(start: Start, smol: Path, tmp_path: Path) -> None:
    rows = [
        {
            "input": {"messages": asked(n)},
            "preferred_output": [said(answer(n))],
            "non_preferred_output": [said("I am happy to help you with that today!")],
        }
        for n in range(40)
    ]
    metrics = trained(
        start, smol, tmp_path, rows, method="dpo", hyperparameters={"n_epochs": 2}
    ).metrics
    margin = metrics[-1].values["validation_reward_margin"] or 0
    accuracy = metrics[-1].values["validation_reward_accuracy"]
    print(f"dpo: validation margin 0 -> {margin:.3f}, accuracy {accuracy}")  # noqa: T201
    assert margin > 1
    assert accuracy == 1


def test_reinforcement_raises_the_reward(start: Start, smol: Path, tmp_path: Path) -> None:
    rows = [{"messages": asked(n), "answer": answer(n)} for n in range(60)]
    grader = {
        "type": "text_similarity",
        "name": "near",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.answer }}",
        "evaluation_metric": "fuzzy_match",
    }
    metrics = trained(
        start,
        smol,
        tmp_path,
        rows,
        method="reinforcement",
        grader=grader,
        tenant="org_test",
        hyperparameters={
            "n_epochs": 2,
            "batch_size": 4,
            "max_completion_tokens": 14,
            "learning_rate": 3e-4,
        },
    ).metrics
    first, last = (m.values["validation_reward"] or 0 for m in (metrics[0], metrics[-1]))
    print(f"reinforcement: validation reward {first:.3f} -> {last:.3f}")  # noqa: T201
    assert last > 1.2 * first
