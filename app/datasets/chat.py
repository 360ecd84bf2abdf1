"""The chat format: one case a line, `{"messages": [{"role", "content", …}, …], "tools": […]}`.

OpenAI's supervised fine-tuning format, with `weight` 0 or 1 on assistant messages.
"""

from typing import Any

from app.datasets.problem import Problem, check_messages, kind, system_signature, texts_of

FIELDS = frozenset({"messages", "tools", "parallel_tool_calls", "functions"})


def check_case(line: int, case: Any) -> list[Problem]:
    """Everything that keeps a parsed line from being a training case."""
    if not isinstance(case, dict):
        return [Problem(line, "", f"Must be a JSON object, not {kind(case)}.")]
    unknown = sorted(set(case) - FIELDS)
    if unknown:
        return [
            Problem(line, unknown[0][:60], "Unknown field. A case has messages and, maybe, tools.")
        ]
    messages = case.get("messages")
    if problems := check_messages(line, "messages", messages):
        return problems
    assert isinstance(messages, list)  # noqa: S101 - checked above
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
    return texts_of(case["messages"], case.get("tools"))


def signature(case: dict[str, Any]) -> str:
    """The form of a case: mixed forms in one file make a worse model."""
    return system_signature(case["messages"])
