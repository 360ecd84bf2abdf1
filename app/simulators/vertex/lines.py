"""Gemini's side of a simulated Vertex AI: what its training lines must be, and what it says."""

from itertools import pairwise
from typing import Any

_FEWEST_LINES = 10


def check_lines(lines: list[dict[str, Any]], method: str) -> str | None:
    """What is wrong with a tuning file."""
    if len(lines) < _FEWEST_LINES:
        return f"The dataset has {len(lines)} examples; at least {_FEWEST_LINES} are needed."
    for number, line in enumerate(lines, 1):
        if wrong := _wrong(line, method):
            return f"Line {number} {wrong}."
    return None


def _wrong(line: dict[str, Any], method: str) -> str | None:
    known = {"contents", "systemInstruction", "system_instruction"}
    known |= {
        "supervised": {"tools"},
        "dpo": {"completions"},
        "reinforcement": {"references", "tools"},
    }[method]
    if unknown := sorted(line.keys() - known):
        return f"has an unknown field {unknown[0]}"
    contents = line.get("contents")
    if not isinstance(contents, list) or not contents:
        return "has no contents"
    if wrong := next((wrong for one in contents if (wrong := _wrong_content(one))), None):
        return wrong
    roles = [one["role"] for one in contents]
    last = "model" if method == "supervised" else "user"
    if roles[0] != "user" or roles[-1] != last:
        return f"must begin with the user and end with the {last}"
    if any(one == after for one, after in pairwise(roles)):
        return "must alternate between the user and the model"
    if method == "dpo":
        return _wrong_completions(line.get("completions"))
    references = line.get("references") or {}
    if not all(isinstance(value, str) for value in references.values()):
        return "has a reference that is no string"
    return None


def _wrong_content(content: Any) -> str | None:
    if not isinstance(content, dict) or content.get("role") not in ("user", "model"):
        return "has a content without a role"
    if not isinstance(content.get("parts"), list) or not content["parts"]:
        return "has a content without parts"
    kinds = {"text", "functionCall", "functionResponse", "inlineData", "fileData"}
    if any(len(part.keys() & kinds) != 1 for part in content["parts"]):
        return "has a part that is none"
    return None


def _wrong_completions(completions: Any) -> str | None:
    if not isinstance(completions, list) or len(completions) != 2:
        return "must have two completions"
    if sorted(one.get("score", -1) for one in completions) != [0, 1]:
        return "must have the scores 1 and 0"
    for one in completions:
        if wrong := _wrong_content(one.get("completion")):
            return wrong
        if one["completion"]["role"] != "model":
            return "has a completion that is not the model's"
    return None


def generated(asked: dict[str, Any], model: str, now: str) -> dict[str, Any]:
    """What a model that is none says; a function is called where one must be."""
    last = asked["contents"][-1].get("parts") or [{}]
    words = " ".join(part["text"] for part in last if part.get("text"))
    parts: list[dict[str, Any]] = [{"text": f"(simulated {model}) {words}".strip()}]
    chosen = (asked.get("toolConfig") or {}).get("functionCallingConfig") or {}
    if asked.get("tools") and chosen.get("mode") == "ANY":
        names = [one["name"] for one in asked["tools"][0]["functionDeclarations"]]
        name = next(iter(chosen.get("allowedFunctionNames") or names))
        parts = [{"functionCall": {"name": name, "args": {"words": words}}}]
    answer = {"role": "model", "parts": parts}
    return {
        "candidates": [{"content": answer, "finishReason": "STOP", "avgLogprobs": -0.1}],
        "usageMetadata": {
            "promptTokenCount": 8,
            "candidatesTokenCount": 8,
            "totalTokenCount": 16,
        },
        "modelVersion": model,
        "createTime": now,
        "responseId": "simulated",
    }
