"""Our cases in the form of each family of models, and conversations as all of them know them."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from app.providers.cases import CannotConvert, converted


def in_form(path: Path, base_model: str, param: str) -> bytes:
    """Our cases in the form of the model's family. Raises ProviderRefused."""
    claude = not base_model or "anthropic.claude" in base_model
    with path.open("rb") as lines:
        return b"".join(converted(lines, partial(_case, claude=claude), param))


def _case(case: dict[str, Any], claude: bool) -> dict[str, Any]:
    if case.get("tools") or case.get("functions"):
        raise CannotConvert("tools cannot be trained there")
    if any(message.get("weight") == 0 for message in case["messages"]):
        raise CannotConvert("it learns from every answer, so that weight 0 cannot be kept")
    system, said = turns(case["messages"])
    if said[-1][0] != "assistant":
        raise CannotConvert("the last turn must be the assistant's")
    if claude:
        told: dict[str, Any] = {"system": system} if system else {}
        return {**told, "messages": [{"role": role, "content": text} for role, text in said]}
    return {
        "schemaVersion": "bedrock-conversation-2024",
        **({"system": [{"text": system}]} if system else {}),
        "messages": [{"role": role, "content": [{"text": text}]} for role, text in said],
    }


def turns(messages: Iterable[Mapping[str, Any]]) -> tuple[str, list[tuple[str, str]]]:
    """What the system is told, and turns that alternate, the user's first: messages of one role in
    a row become one. Raises CannotConvert."""
    system: list[str] = []
    said: list[tuple[str, str]] = []
    for message in messages:
        role = message.get("role")
        if message.get("tool_calls") or message.get("function_call"):
            raise CannotConvert("calls of tools cannot be passed on")
        text = _text(message.get("content"))
        if role in ("system", "developer"):
            if said:
                raise CannotConvert("a system message can only come first")
            system.append(text)
        elif role not in ("user", "assistant"):
            raise CannotConvert(f"messages of the role {role!r} cannot be passed on")
        elif said and said[-1][0] == role:
            said[-1] = role, f"{said[-1][1]}\n\n{text}"
        else:
            said.append((role, text))
    if not said or said[0][0] != "user":
        raise CannotConvert("the first turn must be the user's")
    return "\n\n".join(system), said


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    if not parts or any(part.get("type") != "text" for part in parts):
        raise CannotConvert("a message's content must be text")
    return "".join(part["text"] for part in parts)
