"""Training data as simulators look at it."""

from typing import Any

import orjson

_FEWEST_LINES = 10


def count_tokens(lines: list[dict[str, Any]]) -> int:
    """Roughly as a tokenizer would: a token for four characters."""
    return sum(len(orjson.dumps(line)) // 4 for line in lines)


def read_lines(content: bytes) -> tuple[list[dict[str, Any]], str | None]:
    """The lines of a JSONL file, and what is wrong with it."""
    found: list[dict[str, Any]] = []
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            return found, f"Line {number} is not valid JSON."
        if not isinstance(value, dict):
            return found, f"Line {number} is not an object."
        found.append(value)
    return found, None if found else "The file is empty."


def check_lines(
    lines: list[dict[str, Any]], method: str, fewest: int = _FEWEST_LINES
) -> str | None:
    """What is wrong with training data in OpenAI's own formats."""
    if len(lines) < fewest:
        return f"The file has {len(lines)} examples; at least {fewest} are needed."
    for number, line in enumerate(lines, 1):
        if method == "dpo":
            if not {"input", "preferred_output", "non_preferred_output"} <= line.keys():
                return f"Line {number} lacks input, preferred_output or non_preferred_output."
        elif not isinstance(line.get("messages"), list) or not line["messages"]:
            return f"Line {number} has no messages."
        elif method == "supervised" and line["messages"][-1].get("role") != "assistant":
            return f"Line {number} does not end with the assistant's message."
        elif method == "reinforcement" and line["messages"][-1].get("role") != "user":
            return f"Line {number} does not end with the user's message."
    return None
