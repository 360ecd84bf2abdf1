"""Reading a model's judgement: structured output, or the JSON among the words of one without."""

import json
import math
from collections.abc import Iterator
from typing import Any

from app.graders.chat import Answer, AnswerUnreadable
from app.graders.spec import LabelModel

_LOOKS = 50  # at opening braces, before giving up


def number(answer: Answer) -> float:
    """Raises AnswerUnreadable."""
    for value in _candidates(answer.text):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                found = float(value)
            except (ValueError, OverflowError):
                continue
            if math.isfinite(found):
                return found
    raise AnswerUnreadable("The model's answer holds no number.", answer)


def label(answer: Answer, grader: LabelModel) -> str:
    """The label it names, whatever the case. Raises AnswerUnreadable."""
    labels = {label.strip().casefold(): label for label in grader.labels}
    for value in _candidates(answer.text):
        if isinstance(value, str):
            if value in grader.labels:
                return value
            if (found := labels.get(value.strip(" .\"'\n").casefold())) is not None:
                return found
    raise AnswerUnreadable("The model's answer names none of the labels.", answer)


def _candidates(text: str) -> Iterator[Any]:
    """The `result` of each JSON object in the text; then the text itself."""
    decoder = json.JSONDecoder()
    start = -1
    for _ in range(_LOOKS):
        start = text.find("{", start + 1)
        if start < 0:
            break
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if "result" in found:
            yield found["result"]
    yield text.strip()
