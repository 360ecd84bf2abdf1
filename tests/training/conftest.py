"""A tiny model, small chat files, and a way to start training on them."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.training_helpers import Start, Training, base_config, write_rows


@pytest.fixture(scope="session")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (48 cases) and valid.jsonl (6)."""
    folder = tmp_path_factory.mktemp("chats")
    rng = random.Random(5)
    rows = []
    for number in range(54):
        queue = rng.choice(["billing", "shipping", "account"])
        question = f"ticket {number}: please sort my question about {queue}"
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": json.dumps({"queue": queue})},
                ]
            }
        )
    write_rows(folder / "train.jsonl", rows[:48])
    write_rows(folder / "valid.jsonl", rows[48:])
    return folder


@pytest.fixture
def start(tiny_model: Path, chats: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts training on the tiny model; keyword arguments override the configuration."""
    running = []

    def start(name: str = "run", **overrides: Any) -> Training:
        defaults = base_config(tiny_model, chats, tmp_path / name)
        running.append(Training(tmp_path / name, **{**defaults, **overrides}))
        return running[-1]

    yield start
    for training in running:
        training.clean_up()
