"""Which lines of the data the finished model knows least."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.training.manifest import verify
from app.training.report import Example, Examples, Finished
from tests.training.training_helpers import Start, Training, sha256, with_validation, write_rows

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

QUICK = {
    "adapter": "full",
    "n_epochs": 8,
    "batch_size": 4,
    "learning_rate": 3e-3,
    "checkpoint_interval": 1000,
}
PLANTED = {7: "zq9 xx vbnm 77 lkj", 21: "0x1f pqrs ~~ wy", 40: "mmm tt 5 gh#k z!"}


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer, **more},
        ]
    }


def worst(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda one: -(one.loss or 0.0))


@pytest.mark.soak
def test_planted_nonsense_has_the_highest_losses(start: Start, chats: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (chats / "train.jsonl").read_text().splitlines()]
    for line, nonsense in PLANTED.items():
        rows[line - 1]["messages"][-1]["content"] = nonsense
    rows.append({**chat("never learnt", "nothing"), "messages": [{"role": "user", "content": "?"}]})
    rows.append(chat("please sort my question about billing", '{"queue": "billing"}' * 40))
    file = tmp_path / "planted.jsonl"
    write_rows(file, rows)
    outcome = start(
        training_file=file,
        training_sha256=sha256(file),
        hyperparameters={**QUICK, "max_length": 120},
        **with_validation(chats),
    ).end()

    said = outcome.examples
    by_line = {(one.split, one.line): one for one in said.examples}
    assert len(said.examples) == len(by_line) == said.lines == 50 + 6
    assert {one.line for one in worst(said.examples)[:3]} == set(PLANTED)
    assert (by_line["training", 49].loss, by_line["training", 49].tokens) == (None, 0)
    assert [one.line for one in said.examples if one.truncated] == [50]
    # They are the losses that training speaks of: their mean by token is the validation loss.
    held_out = [one for one in said.examples if one.split == "validation"]
    total = sum((one.loss or 0) * one.tokens for one in held_out)
    assert total / sum(one.tokens for one in held_out) == pytest.approx(
        outcome.finished.metrics["validation_loss"], rel=0.02
    )


@pytest.mark.soak
def test_each_pair_of_answers_has_a_loss(start: Start, tmp_path: Path) -> None:
    pairs = [
        {
            "input": {"messages": [{"role": "user", "content": f"greet {n}"}]},
            "preferred_output": [{"role": "assistant", "content": "ahoy"}],
            "non_preferred_output": [{"role": "assistant", "content": "go away"}],
        }
        for n in range(16)
    ]
    bad = pairs[4]
    bad["preferred_output"], bad["non_preferred_output"] = (
        bad["non_preferred_output"],
        bad["preferred_output"],
    )
    file = tmp_path / "pairs.jsonl"
    write_rows(file, pairs)
    outcome = start(
        method="dpo",
        training_file=file,
        training_sha256=sha256(file),
        hyperparameters={"n_epochs": 4, "batch_size": 4, "learning_rate": 2e-3, "adapter": "lora"},
    ).end()
    assert outcome.finished.kind == "lora"
    assert worst(outcome.examples.examples)[0].line == 5
    assert len(outcome.examples.examples) == 16


@pytest.mark.soak
def test_a_stop_while_measuring_leaves_a_finished_model(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    write_rows(file, [chat(f"say it {n}", "b" * 300) for n in range(60)])
    training: Training = start(
        training_file=file,
        training_sha256=sha256(file),
        hyperparameters={**QUICK, "n_epochs": 1, "batch_size": 16},
    )
    finished = training.wait_for(lambda report: isinstance(report, Finished))
    training.terminate()
    outcome = training.end()
    assert outcome.finished == finished
    assert sum(len(r.examples) for r in outcome.reports if isinstance(r, Examples)) < 60
    assert isinstance(finished, Finished)
    verify(Path(finished.model_path), finished.manifest_sha256)
