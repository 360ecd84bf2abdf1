"""Graders as the rewards of Vertex AI's reinforcement tuning. Google clips a reward to [-1, 1].

Wire format: google-genai 3.4.0's types. `{{ item.x }}` becomes `{{references.x}}`.
"""

import re
from collections.abc import Mapping
from typing import Any

from app.graders import templates
from app.graders.templates import Reference, TemplateInvalid
from app.providers.cases import CannotConvert
from app.providers.vertex.gemini import ITEM

_OPERATIONS = {
    # Ours → theirs, and the rewards of a match and of none.
    "eq": ("EXACT_MATCH", 1.0, 0.0),
    "ne": ("EXACT_MATCH", 0.0, 1.0),
    "like": ("PARTIAL_MATCH", 1.0, 0.0),
}
_EVALUATE = re.compile(r"^(?:async\s+)?def\s+evaluate\b|^evaluate\s*=", re.M)

# Called by Google with a training line and the answer; an error is no reward, as with our graders.
_WRAPPER = f'''

def evaluate(example, response):
    import json

    parts = response.get("parts") or []
    text = "".join(part.get("text") or "" for part in parts if not part.get("thought"))
    item = dict(example.get("references") or {{}})
    item.update(json.loads(item.pop("{ITEM}", "{{}}")))
    message = {{"role": "assistant", "content": text}}
    choice = {{"index": 0, "message": message, "finish_reason": "stop"}}
    sample = {{"output_text": text, "output_tools": [], "choices": [choice]}}
    try:
        sample["output_json"] = json.loads(text)
    except ValueError:
        pass
    try:
        return float(grade(sample, item))
    except Exception:
        return 0.0
'''


def reward_config(grader: Mapping[str, Any]) -> dict[str, Any]:
    """A `singleRewardConfig`. Raises CannotConvert."""
    kind = grader.get("type")
    if kind == "string_check":
        scorer = {"stringMatchRewardScorer": _string_match(grader)}
    elif kind == "python":
        source = str(grader.get("source", ""))
        if _EVALUATE.search(source):
            raise CannotConvert("the source defines evaluate, which is the name that Google calls")
        scorer = {"codeExecutionRewardScorer": {"pythonCodeSnippet": source.rstrip() + _WRAPPER}}
    else:
        raise CannotConvert(f"there is no reward for graders of the type {kind!r}")
    return {
        "rewardName": str(grader.get("name", "reward")),
        "parseResponseConfig": {"parseType": "IDENTITY"},
        **scorer,
    }


def _string_match(grader: Mapping[str, Any]) -> dict[str, Any]:
    operation = str(grader.get("operation"))
    if operation not in _OPERATIONS:
        raise CannotConvert(f"the operation {operation} has no counterpart")
    target, expression = str(grader.get("input", "")), str(grader.get("reference", ""))
    if operation != "like" and not _is_answer(target):
        target, expression = expression, target
    if not _is_answer(target):
        raise CannotConvert("only {{ sample.output_text }} alone can be compared")
    match, right, wrong = _OPERATIONS[operation]
    return {
        "stringMatchExpression": {"matchOperation": match, "expression": _expression(expression)},
        "correctAnswerReward": right,
        "wrongAnswerReward": wrong,
    }


def _pieces(template: str) -> tuple[str | Reference, ...]:
    try:
        return templates.parse(template)
    except TemplateInvalid as trouble:
        raise CannotConvert(str(trouble)) from None


def _is_answer(template: str) -> bool:
    return _pieces(template) == (Reference("sample", ("output_text",)),)


def _expression(template: str) -> str:
    told = []
    for piece in _pieces(template):
        if isinstance(piece, str):
            told.append(piece)
        elif piece.namespace == "item" and len(piece.steps) == 1:
            told.append(f"{{{{references.{piece.steps[0]}}}}}")
        else:
            raise CannotConvert(f"{{{{ {piece} }}}} is not a field of the case itself")
    return "".join(told)
