"""Our cases in Together's form."""

from collections.abc import Mapping
from typing import Any

from app.providers.base import Method
from app.providers.cases import CannotConvert, converted, renamed, tools_of

_ROLES = {"developer": "system", "function": "tool"}


def lines_of(content: bytes, method: Method, param: str = "training_file") -> bytes:
    """Raises ProviderRefused for what their form cannot say."""
    form = _pair if method == "dpo" else _conversation
    return b"".join(converted(content.splitlines(), form, param))


def _conversation(case: Mapping[str, Any]) -> dict[str, Any]:
    """No other columns than these two are known to it."""
    return {"messages": renamed(case["messages"], _ROLES), **tools_of(case)}


def _pair(case: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"input": _conversation(case["input"])}
    for name in ("preferred_output", "non_preferred_output"):
        if len(case[name]) != 1:
            raise CannotConvert(
                f"{name} has {len(case[name])} messages, and Together AI takes answers of exactly "
                "one"
            )
        made[name] = renamed(case[name], _ROLES)
    return made
