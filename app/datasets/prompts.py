"""Which questions a file asks the model, whatever its format: held-out cases must not be among
those that are learnt."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from app.datasets.formats import fingerprint
from app.datasets.report import lines


def leaked(training: Path, held_out: Path) -> list[int]:
    """Lines of the held-out questions that the training data answers."""
    known = {mark for _, line in lines(training) for mark in _questions(orjson.loads(line))}
    return [
        number
        for number, line in lines(held_out)
        if fingerprint(_plain(orjson.loads(line)["messages"])) in known
    ]


def _questions(case: dict[str, Any]) -> Iterator[bytes]:
    if "input" in case:
        yield fingerprint(_plain(case["input"]["messages"]))
        return
    messages = case["messages"]
    for n, message in enumerate(messages):
        if message["role"] == "assistant":
            yield fingerprint(_plain(messages[:n]))
    yield fingerprint(_plain(messages))


def _plain(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return {"asked": [(message["role"], message.get("content")) for message in messages]}
