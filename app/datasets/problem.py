"""What keeps a line from being a case, and the checks that all formats share."""

from dataclasses import dataclass
from typing import Any

import orjson

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True)
class Problem:
    line: int
    field: str
    reason: str


def check_messages(line: int, where: str, messages: Any) -> list[Problem]:
    """Everything that is wrong with a list of messages."""
    if not isinstance(messages, list) or not messages:
        return [Problem(line, where, "Must be a list with at least one message.")]
    return [
        problem
        for index, message in enumerate(messages)
        if (problem := _check_message(line, f"{where}[{index}]", message))
    ]


def texts_of(messages: list[dict[str, Any]], tools: Any) -> list[str]:
    """What the model reads of a conversation."""
    found = [_text(message.get("content")) for message in messages]
    found += [
        orjson.dumps(message["tool_calls"]).decode()
        for message in messages
        if message.get("tool_calls")
    ]
    if tools:
        found.append(orjson.dumps(tools).decode())
    return found


def kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")


def system_signature(messages: list[dict[str, Any]]) -> str:
    system = any(message["role"] in ("system", "developer") for message in messages)
    return ("with" if system else "without") + " a system message"


def _check_message(line: int, where: str, message: Any) -> Problem | None:
    if not isinstance(message, dict):
        return Problem(line, where, f"Must be an object, not {kind(message)}.")
    role = message.get("role")
    if role not in ROLES:
        return Problem(line, f"{where}.role", f"Must be one of {', '.join(ROLES)}.")
    content = message.get("content")
    calls = message.get("tool_calls")
    if calls is not None and (role != "assistant" or not isinstance(calls, list) or not calls):
        return Problem(line, f"{where}.tool_calls", "Must be a list of calls by the assistant.")
    if content is None and not calls:
        return Problem(line, f"{where}.content", "Must be text.")
    if content is not None and not isinstance(content, str) and not _is_text_parts(content):
        return Problem(line, f"{where}.content", f"Must be text, not {kind(content)}.")
    if role == "assistant" and not calls and not _text(content).strip():
        return Problem(line, f"{where}.content", "The assistant's answer is empty.")
    if "weight" in message and (role != "assistant" or message["weight"] not in (0, 1)):
        return Problem(line, f"{where}.weight", "Must be 0 or 1, on an assistant message.")
    return None


def _is_text_parts(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in content
    )


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content or ""
