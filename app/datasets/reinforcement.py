"""The reinforcement format: one question a line, and whatever its graders need to judge answers.

`{"messages": […, {"role": "user", …}], "tools": […], <any other fields>}`; graders read the other
fields as `{{ item.<field> }}`.
"""

from typing import Any

from app.datasets.chat import FIELDS
from app.datasets.problem import Problem, check_messages, kind, texts_of


def check_case(line: int, case: Any) -> list[Problem]:
    """Everything that keeps a parsed line from being a question."""
    if not isinstance(case, dict):
        return [Problem(line, "", f"Must be a JSON object, not {kind(case)}.")]
    messages = case.get("messages")
    if problems := check_messages(line, "messages", messages):
        return problems
    assert isinstance(messages, list)  # noqa: S101 - checked above
    if messages[-1]["role"] != "user":
        where = f"messages[{len(messages) - 1}].role"
        return [Problem(line, where, "The last must be the user's: the model answers it.")]
    return []


def texts(case: dict[str, Any]) -> list[str]:
    """What the model reads of a question."""
    return texts_of(case["messages"], case.get("tools"))


def signature(case: dict[str, Any]) -> str:
    """The fields that graders can count on."""
    own = sorted(set(case) - FIELDS)
    return f"with {', '.join(own)}" if own else "with nothing for graders to compare with"
