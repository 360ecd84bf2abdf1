"""What training data and conversations must be at the simulated Bedrock."""

from typing import Any


def check_lines(lines: list[dict[str, Any]], base_model: str, fewest: int) -> str | None:
    """What is wrong with training data in the form of the model's family."""
    if len(lines) < fewest:
        return f"The file has {len(lines)} examples; at least {fewest} are needed."
    claude = base_model.startswith("anthropic.")
    known = {"system", "messages"} if claude else {"schemaVersion", "system", "messages"}
    for number, line in enumerate(lines, 1):
        if unknown := sorted(line.keys() - known):
            return f"Line {number} has the unknown field {unknown[0]}."
        if not claude and line.get("schemaVersion") != "bedrock-conversation-2024":
            return f"Line {number} has another schemaVersion than bedrock-conversation-2024."
        if "system" in line and isinstance(line["system"], str) != claude:
            return f"Line {number} has a malformed system."
        if wrong := check_turns(line.get("messages"), parts=not claude, last="assistant"):
            return f"Line {number}: {wrong}."
    return None


def check_turns(messages: Any, *, parts: bool, last: str) -> str | None:
    if not isinstance(messages, list) or not messages:
        return "there are no messages"
    for number, message in enumerate(messages):
        if message.get("role") != ("user", "assistant")[number % 2]:
            return "roles must alternate between user and assistant, and begin with user"
        content = message.get("content")
        if parts:
            shaped = isinstance(content, list) and all("text" in part for part in content)
            content = shaped and "".join(part["text"] for part in content)
        if not isinstance(content, str) or not content.strip():
            return f"message {number} has no text"
    return None if messages[-1]["role"] == last else f"the last message must be the {last}'s"
