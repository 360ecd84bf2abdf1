"""From reinforcement lines to prompts for the model and items for its graders."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.training.data import Row, plain_message, read_rows, render
from app.training.errors import FailureCode


@dataclass(frozen=True, slots=True)
class Prompt:
    """`text` ends where the model's answer begins; `item` is the whole line, as JSON: a table of
    columns would give every item the fields of all."""

    text: str
    item: str
    tokens: int


def read_prompts(
    path: Path, tokenizer: Any, code: FailureCode, variables: dict[str, Any]
) -> list[Prompt]:
    """Render a whole file; `variables` go to the chat template."""

    def encode(row: Row, tokenizer: Any) -> Prompt:
        messages = [plain_message(message) for message in row["messages"]]
        text = render(tokenizer, messages, row.get("tools") or None, ask=True, **variables)
        tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        return Prompt(text, json.dumps(row), tokens)

    return [prompt for _, prompt in read_rows(path, tokenizer, code, encode)]
