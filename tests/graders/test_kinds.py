"""Grading through the process: the kinds that ask no model, and what their results say."""

from typing import Any

import pytest

from app.graders.client import Graders
from app.graders.errors import GraderInvalid
from app.graders.protocol import GradeCase
from app.graders.result import GraderResult, Sample


def check(operation: str, reference: str = "{{ item.answer }}") -> dict[str, Any]:
    return {
        "type": "string_check",
        "name": "check",
        "input": "{{ sample.output_text }}",
        "reference": reference,
        "operation": operation,
    }


def python(source: str) -> dict[str, Any]:
    return {"type": "python", "name": "code", "source": source}


async def grade(
    graders: Graders, grader: dict[str, Any], sample: str | Sample = "Paris", **item: Any
) -> GraderResult:
    case = GradeCase(item=item, sample=sample)
    (result,) = await graders.grade(grader, [case], tenant="org", seconds=60)
    return result


@pytest.mark.parametrize(
    ("operation", "answer", "reward"),
    [
        ("eq", "Paris", 1),
        ("eq", "paris", 0),
        ("ne", "Rome", 1),
        ("ne", "Paris", 0),
        ("like", "ari", 1),
        ("like", "ARI", 0),
        ("ilike", "ARI", 1),
        ("ilike", "Rome", 0),
    ],
)
async def test_string_check(graders: Graders, operation: str, answer: str, reward: float) -> None:
    result = await grade(graders, check(operation), answer=answer)
    assert (result.reward, result.failed) == (reward, False)
    assert result.metadata.scores == {"check": reward}


async def test_text_similarity_and_its_threshold(graders: Graders) -> None:
    grader = {
        "type": "text_similarity",
        "name": "alike",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.answer }}",
        "evaluation_metric": "rouge_1",
        "pass_threshold": 0.6,
    }
    result = await grade(graders, grader, "the big cat", answer="the cat")
    assert result.reward == pytest.approx(0.8)
    assert result.metadata.passed is True
    assert (await grade(graders, grader, "a dog", answer="the cat")).metadata.passed is False


async def test_missing_values_are_told_apart(graders: Graders) -> None:
    missing = (await grade(graders, check("eq"))).metadata.errors
    assert missing.invalid_variable_error
    assert missing.details == "There is no value for {{ item.answer }}."
    no_json = await grade(graders, check("eq", "{{ sample.output_json.city }}"))
    assert no_json.metadata.errors.sample_parse_error
    assert no_json.reward == 0
    json = await grade(graders, check("like", "{{ sample.output_json.city }}"), '{"city": "Paris"}')
    assert json.reward == 1


REALISTIC = """
import ast, collections, datetime, decimal, difflib, json, math, re, statistics, string
import numpy as np
from rapidfuzz import fuzz, utils

class Rubric:
    weights = {"similar": 0.5, "tool": 0.3, "short": 0.2}

    @property
    def total(self):
        return sum(self.weights.values())

def grade(sample, item):
    rubric = Rubric()
    similar = fuzz.WRatio(
        sample["output_text"], item["answer"], processor=utils.default_process
    ) / 100.0
    tool = sample["output_tools"][0]["function"]["name"] == item["tool"]
    short = np.clip(10 / len(sample["output_text"].split()), 0, 1)
    scores = {"similar": similar, "tool": tool, "short": short}
    return sum(rubric.weights[k] * scores[k] for k in scores) / rubric.total
"""


async def test_a_realistic_python_grader(graders: Graders) -> None:
    if (await graders.start()).sandbox not in ("bubblewrap", "landlock"):
        pytest.skip("no sandbox here that holds a whole Python")
    tool = {"id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
    sample = Sample(output_text="The answer is Paris!", output_tools=[tool])
    result = await grade(
        graders, python(REALISTIC), sample, answer="the answer is paris", tool="search"
    )
    assert result.reward == pytest.approx(1.0)
    assert result.metadata.execution_time > 0


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def grade(sample, item):\n    return 1 / 0", "line 2, in grade"),
        ("def grade(sample, item):\n    return item['x']", "KeyError: 'x'"),
        ("def grade(sample, item)\n    return 1", "SyntaxError"),
        ("import nothing_like_it\ndef grade(sample, item): return 1", "ModuleNotFoundError"),
        ("def grade(sample, item, more):\n    return 1", "TypeError"),
    ],
)
async def test_a_python_grader_that_fails(graders: Graders, source: str, says: str) -> None:
    if (await graders.start()).sandbox not in ("bubblewrap", "landlock"):
        pytest.skip("no sandbox here that holds a whole Python")
    result = await grade(graders, python(source))
    assert result.reward == 0
    assert result.metadata.errors.python_grader_runtime_error
    assert says in (result.metadata.errors.python_grader_runtime_error_details or "")


def multi(formula: str, **graders: dict[str, Any]) -> dict[str, Any]:
    return {"type": "multi", "name": "all", "graders": graders, "calculate_output": formula}


async def test_a_multi_grader(graders: Graders) -> None:
    parts = {"same": check("eq"), "part": check("ilike")}
    result = await grade(graders, multi("0.5*same + part^2", **parts), answer="PARIS")
    assert result.reward == 1.0
    assert result.sub_rewards == {"same": 0.0, "part": 1.0}
    assert result.metadata.scores == result.sub_rewards
    assert result.metadata.type == "multi"


async def test_a_part_that_failed_fails_the_whole(graders: Graders) -> None:
    parts = {"good": check("eq"), "bad": check("eq", "{{ item.missing }}")}
    result = await grade(graders, multi("1 + good - bad", **parts), answer="Paris")
    assert result.reward == 0
    assert result.sub_rewards == {"good": 1, "bad": 0}
    assert result.metadata.errors.invalid_variable_error


async def test_half_a_character_harms_nobody(graders: Graders) -> None:
    halved = '"\\ud800"'
    equal = check("eq", "{{ sample.output_json }}")
    assert (await grade(graders, equal, halved)).reward == 0
    missing = check("eq", "{{ item.x }}")
    assert (await grade(graders, missing, halved)).failed
    assert (await grade(graders, check("eq"), "x", answer="x")).reward == 1


async def test_a_formula_without_a_value_is_an_error(graders: Graders) -> None:
    result = await grade(graders, multi("1 / a", a=check("ne")), answer="Paris")
    assert result.reward == 0
    assert result.metadata.errors.other_error
    assert "division by zero" in (result.metadata.errors.details or "")


async def test_an_unusable_grader_is_refused_with_its_path(graders: Graders) -> None:
    with pytest.raises(GraderInvalid) as invalid:
        await grade(graders, multi("a", a=check("is")))
    assert invalid.value.path == ("graders", "a", "operation")
    with pytest.raises(GraderInvalid) as invalid:
        await grade(graders, multi("a + b", a=check("eq")))
    assert invalid.value.path == ("calculate_output",)
