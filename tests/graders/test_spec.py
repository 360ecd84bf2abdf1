"""Graders as they are written on the wire, and what is said about those that cannot be used."""

from typing import Any

import pytest

from app.graders import spec
from app.graders.errors import GraderInvalid

CHECK = {
    "type": "string_check",
    "name": "exact",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "operation": "eq",
}
SIMILAR = {
    "type": "text_similarity",
    "name": "alike",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "evaluation_metric": "bleu",
    "pass_threshold": 0.5,
}
PYTHON = {
    "type": "python",
    "name": "code",
    "source": "def grade(sample, item):\n    return 1.0",
    "image_tag": "2025-05-08",
}
SCORE = {
    "type": "score_model",
    "name": "judge",
    "model": "gpt-4.1-mini",
    "input": [
        {"type": "message", "role": "developer", "content": "Be fair."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "{{ item.question }}"},
                {"type": "input_image", "image_url": "{{ item.picture }}", "detail": "low"},
                {"type": "input_audio", "input_audio": {"data": "{{ item.a }}", "format": "wav"}},
                "a bare text",
            ],
        },
        {"role": "assistant", "content": {"type": "output_text", "text": "{{ item.b[0] }}"}},
    ],
    "range": [1, 5],
    "sampling_params": {"seed": 1, "temperature": 0, "top_p": 1, "max_completions_tokens": 9},
}
LABEL = {
    "type": "label_model",
    "name": "mood",
    "model": "m",
    "input": [{"role": "user", "content": "x"}],
    "labels": ["good", "bad"],
    "passing_labels": ["good"],
}
MULTI = {
    "type": "multi",
    "name": "all",
    "graders": {"exact": CHECK, "judge": SCORE, "mood": LABEL, "code": PYTHON, "alike": SIMILAR},
    "calculate_output": "0.5*exact + max(judge, mood) - code^2",
}


def problems(grader: Any) -> dict[str, str]:
    with pytest.raises(GraderInvalid) as invalid:
        spec.read(grader)
    assert invalid.value.code == "INVALID_INPUT"
    assert invalid.value.path == invalid.value.problems[0].path
    return {".".join(problem.path): problem.message for problem in invalid.value.problems}


@pytest.mark.parametrize("grader", [CHECK, SIMILAR, PYTHON, SCORE, LABEL, MULTI])
def test_each_kind_is_read(grader: dict[str, Any]) -> None:
    assert spec.read(grader).type == grader["type"]


def test_what_a_grader_needs_is_known() -> None:
    grader = spec.read(MULTI)
    assert spec.models(grader) == {"gpt-4.1-mini", "m"}
    assert {str(reference) for reference in spec.references(grader)} == {
        "sample.output_text", "item.answer", "item.question", "item.picture", "item.a", "item.b[0]"
    }  # fmt: skip


def test_one_grader_in_place_of_the_map_goes_by_its_name() -> None:
    grader = spec.read(MULTI | {"graders": CHECK, "calculate_output": "2 * exact"})
    assert isinstance(grader, spec.Multi)
    assert list(grader.graders) == ["exact"]


@pytest.mark.parametrize(
    ("grader", "path", "says"),
    [
        (3, "", "dictionary"),
        ({"type": "rubric"}, "", "'rubric'"),
        (CHECK | {"operation": "neq"}, "operation", "'ne'"),
        (CHECK | {"reference": "{{ foo.x }}"}, "reference", "foo.x"),
        (CHECK | {"input": "{{ sample.output }}"}, "input", "output_text"),
        (CHECK | {"pass": 1}, "pass", "not permitted"),
        (CHECK | {"name": 3}, "name", "string"),
        ({"type": "string_check", "name": "x"}, "input", "required"),
        (SIMILAR | {"evaluation_metric": "bert"}, "evaluation_metric", "rouge_l"),
        (SIMILAR | {"pass_threshold": float("nan")}, "pass_threshold", "finite"),
        (PYTHON | {"source": "print(1)"}, "source", "def grade(sample, item)"),
        (PYTHON | {"source": "def grade(sample): return 1"}, "source", "def grade"),
        (PYTHON | {"source": "# \ndef grade(a, b): 1\n" + "#" * 256_000}, "source", "256,000"),
        (SCORE | {"range": [5, 1]}, "range", "below"),
        (SCORE | {"range": [1]}, "range", "at least 2"),
        (SCORE | {"input": []}, "input", "at least 1"),
        (SCORE | {"input": [{"role": "tool", "content": "x"}]}, "input.0.role", "'user'"),
        (
            SCORE | {"input": [{"role": "user", "content": [{"type": "input_video"}]}]},
            "input.0.content.0",
            "input_audio",
        ),
        (
            SCORE | {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input.0.content.0.text",
            "required",
        ),
        (SCORE | {"sampling_params": {"temperature": 3}}, "sampling_params.temperature", "2"),
        (LABEL | {"passing_labels": ["fine"]}, "passing_labels", "'fine'"),
        (LABEL | {"labels": ["a", "a"]}, "labels", "once"),
        (MULTI | {"calculate_output": "exact + other"}, "calculate_output", "other"),
        (MULTI | {"calculate_output": "exact +"}, "calculate_output", "ends"),
        (MULTI | {"graders": {}}, "graders", "at least 1"),
        (MULTI | {"graders": {"m": MULTI}, "calculate_output": "m"}, "graders.m", "'multi'"),
        (
            MULTI | {"graders": {"exact": CHECK | {"operation": "x"}}},
            "graders.exact.operation",
            "'eq'",
        ),
        (
            MULTI | {"graders": {"string_check": CHECK | {"operation": "x"}}},
            "graders.string_check.operation",
            "'eq'",
        ),
    ],
)
def test_faults_are_named_with_their_path(grader: Any, path: str, says: str) -> None:
    found = problems(grader)
    assert path in found, found
    assert says in found[path]


def test_every_fault_is_told_at_once() -> None:
    assert set(problems(CHECK | {"operation": "x", "input": "{{ y }}", "more": 1})) == {
        "operation", "input", "more"
    }  # fmt: skip


@pytest.mark.parametrize(
    "source",
    ["(" * 100_000, "-" * 100_000 + "1", "lambda: " * 20_000 + "1", "a" + ".b" * 100_000],
)
def test_hostile_source_is_not_parsed_here(source: str) -> None:
    spec.read(PYTHON | {"source": f"{source[:200_000]}\ndef grade(sample, item): return 1"})
