"""The preference format: one pair of answers a line, as OpenAI's DPO takes it.

`{"input": {"messages": […], "tools": […]}, "preferred_output": [{"role": "assistant", …}],
"non_preferred_output": […]}`. An answer is a list of messages that ends with the assistant's.
"""

from typing import Any

from app.datasets.problem import Problem, check_messages, kind, system_signature, texts_of

OUTPUTS = ("preferred_output", "non_preferred_output")
_FIELDS = {"input", *OUTPUTS}
_INPUT_FIELDS = {"messages", "tools", "parallel_tool_calls"}


def check_case(line: int, case: Any) -> list[Problem]:
    """Everything that keeps a parsed line from being a pair."""
    if not isinstance(case, dict):
        return [Problem(line, "", f"Must be a JSON object, not {kind(case)}.")]
    if unknown := sorted(set(case) - _FIELDS):
        reason = f"Unknown field. A pair has input, {' and '.join(OUTPUTS)}."
        return [Problem(line, unknown[0][:60], reason)]
    problems = _check_input(line, case.get("input"))
    for name in OUTPUTS:
        problems += _check_output(line, name, case.get(name))
    if not problems and case[OUTPUTS[0]] == case[OUTPUTS[1]]:
        return [Problem(line, OUTPUTS[1], "Both answers are the same: nothing to prefer.")]
    return problems


def texts(case: dict[str, Any]) -> list[str]:
    """What the model reads of a pair: the conversation twice, each time with another answer."""
    asked = case["input"]
    return [
        text
        for name in OUTPUTS
        for text in texts_of([*asked["messages"], *case[name]], asked.get("tools"))
    ]


def signature(case: dict[str, Any]) -> str:
    return system_signature(case["input"]["messages"])


def _check_input(line: int, asked: Any) -> list[Problem]:
    if not isinstance(asked, dict):
        return [Problem(line, "input", f"Must be an object with messages, not {kind(asked)}.")]
    if unknown := sorted(set(asked) - _INPUT_FIELDS):
        reason = "Unknown field. The input has messages and, maybe, tools."
        return [Problem(line, f"input.{unknown[0][:60]}", reason)]
    messages = asked.get("messages")
    if problems := check_messages(line, "input.messages", messages):
        return problems
    assert isinstance(messages, list)  # noqa: S101 - checked above
    if messages[-1]["role"] == "assistant":
        where = f"input.messages[{len(messages) - 1}].role"
        return [Problem(line, where, "The input ends before the assistant answers.")]
    return []


def _check_output(line: int, name: str, output: Any) -> list[Problem]:
    if problems := check_messages(line, name, output):
        return problems
    for index, message in enumerate(output):
        if message["role"] not in ("assistant", "tool"):
            reason = "An answer holds messages of the assistant, and of its tools."
            return [Problem(line, f"{name}[{index}].role", reason)]
    if output[-1]["role"] != "assistant":
        where = f"{name}[{len(output) - 1}].role"
        return [Problem(line, where, "The last must be the assistant's.")]
    return []
