"""The chat format: one case a line, `{"messages": [{"role", "content", …}, …], "tools": […]}`.

OpenAI's supervised fine-tuning format, with `weight` 0 or 1 on assistant messages.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_CASE_FIELDS = {"messages", "tools", "parallel_tool_calls", "functions"}


@dataclass(frozen=True)
class Problem:
    line: int
    field: str
    reason: str


def check_case(line: int, case: Any) -> list[Problem]:
    """Everything that keeps a parsed line from being a training case."""
    if not isinstance(case, dict):
        return [Problem(line, "", f"Must be a JSON object, not {_kind(case)}.")]
    unknown = sorted(set(case) - _CASE_FIELDS)
    if unknown:
        return [
            Problem(line, unknown[0][:60], "Unknown field. A case has messages and, maybe, tools.")
        ]
    messages = case.get("messages")
    if not isinstance(messages, list) or not messages:
        return [Problem(line, "messages", "Must be a list with at least one message.")]
    problems = []
    for index, message in enumerate(messages):
        if problem := _check_message(line, f"messages[{index}]", message):
            problems.append(problem)
    if problems:
        return problems
    if messages[-1]["role"] != "assistant":
        return [
            Problem(
                line, f"messages[{len(messages) - 1}].role", "The last must be the assistant's."
            )
        ]
    if not any(m["role"] == "assistant" and m.get("weight") != 0 for m in messages):
        return [
            Problem(line, "messages", "Every assistant message has weight 0: nothing to learn.")
        ]
    return []


def texts(case: dict[str, Any]) -> list[str]:
    """What the model reads of a case."""
    found = [_text(message.get("content")) for message in case["messages"]]
    found += [
        orjson.dumps(message["tool_calls"]).decode()
        for message in case["messages"]
        if message.get("tool_calls")
    ]
    if case.get("tools"):
        found.append(orjson.dumps(case["tools"]).decode())
    return found


def signature(case: dict[str, Any]) -> str:
    """The form of a case: mixed forms in one file make a worse model."""
    system = any(message["role"] in ("system", "developer") for message in case["messages"])
    return ("with" if system else "without") + " a system message"


def fingerprint(case: dict[str, Any]) -> bytes:
    """Equal for equal conversations, whatever the spacing or order of keys in the line."""
    canonical = orjson.dumps(case, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=16).digest()


def _check_message(line: int, where: str, message: Any) -> Problem | None:
    if not isinstance(message, dict):
        return Problem(line, where, f"Must be an object, not {_kind(message)}.")
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
        return Problem(line, f"{where}.content", f"Must be text, not {_kind(content)}.")
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


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")
