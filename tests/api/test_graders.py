"""validateGrader: graders as typed input, in OpenAI's format, and what is said of bad ones."""

from typing import Any

import pytest

from tests.support import Api, Refusal

VALIDATE = """mutation ($i: ValidateGraderInput!) { validateGrader(input: $i) {
    grader references models userErrors { __typename code path message } } }"""
CHECK = {
    "stringCheck": {
        "name": "exact",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.answer }}",
        "operation": "EQ",
    }
}
PARTS = [
    {"text": "Judge {{ item.question }}"},
    {"image": {"url": "{{ item.picture }}", "detail": "low"}},
    {"audio": {"data": "{{ item.sound }}", "format": "wav"}},
]
JUDGE = {
    "scoreModel": {
        "name": "judge",
        "model": "ft:judge",
        "input": [{"role": "USER", "content": PARTS}],
        "range": [1, 5],
        "samplingParams": {"temperature": 0, "maxCompletionsTokens": 50},
    }
}


async def validate(api: Api, grader: dict[str, Any]) -> dict[str, Any]:
    answer = await api.execute(VALIDATE, i={"grader": grader})
    found: dict[str, Any] = answer["validateGrader"]
    return found


async def test_a_grader_comes_back_in_openai_s_format(api: Api) -> None:
    multi = {"name": "all", "graders": [CHECK, JUDGE], "calculateOutput": "exact + judge / 5"}
    said = await validate(api, {"multi": multi})
    assert said["userErrors"] == []
    assert said["models"] == ["ft:judge"]
    assert said["references"] == [
        "item.answer", "item.picture", "item.question", "item.sound", "sample.output_text"
    ]  # fmt: skip
    assert said["grader"] == {
        "type": "multi",
        "name": "all",
        "calculate_output": "exact + judge / 5",
        "graders": {
            "exact": {
                "type": "string_check",
                "name": "exact",
                "input": "{{ sample.output_text }}",
                "reference": "{{ item.answer }}",
                "operation": "eq",
            },
            "judge": {
                "type": "score_model",
                "name": "judge",
                "model": "ft:judge",
                "range": [1, 5],
                "sampling_params": {"temperature": 0, "max_completions_tokens": 50},
                "input": [
                    {
                        "type": "message",
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "Judge {{ item.question }}"},
                            {
                                "type": "input_image",
                                "image_url": "{{ item.picture }}",
                                "detail": "low",
                            },
                            {
                                "type": "input_audio",
                                "input_audio": {"data": "{{ item.sound }}", "format": "wav"},
                            },
                        ],
                    }
                ],
            },
        },
    }


@pytest.mark.parametrize(
    "grader",
    [
        CHECK,
        JUDGE,
        {"python": {"name": "p", "source": "def grade(sample, item):\n    return 1"}},
        {
            "textSimilarity": {
                "name": "t", "input": "a", "reference": "b",
                "evaluationMetric": "ROUGE_L", "passThreshold": 0.5,
            }
        },
        {
            "labelModel": {
                "name": "l", "model": "m", "labels": ["a", "b"], "passingLabels": ["a"],
                "input": [{"role": "USER", "content": [{"text": "x"}]}],
            }
        },
    ],
)  # fmt: skip
async def test_each_kind_is_taken(api: Api, grader: dict[str, Any]) -> None:
    assert (await validate(api, grader))["userErrors"] == []


def changed(grader: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {kind: {**given, **fields} for kind, given in grader.items()}


@pytest.mark.parametrize(
    ("grader", "path"),
    [
        (changed(CHECK, reference="{{ foo.x }}"), "stringCheck.reference"),
        (changed(JUDGE, range=[5, 1]), "scoreModel.range"),
        (
            changed(JUDGE, samplingParams={"temperature": 3}),
            "scoreModel.samplingParams.temperature",
        ),
        (
            changed(JUDGE, input=[{"role": "USER", "content": [{"text": "{{ x }}"}]}]),
            "scoreModel.input.0.content.0.text",
        ),
        (
            changed(JUDGE, input=[{"role": "USER", "content": [{"image": {"url": "{{ x }}"}}]}]),
            "scoreModel.input.0.content.0.image.url",
        ),
        ({"python": {"name": "p", "source": "print(1)"}}, "python.source"),
        (
            {"multi": {"name": "m", "graders": [CHECK], "calculateOutput": "exact + other"}},
            "multi.calculateOutput",
        ),
        (
            {"multi": {"name": "m", "graders": [CHECK, CHECK], "calculateOutput": "exact"}},
            "multi.graders.1",
        ),
        (
            {
                "multi": {
                    "name": "m",
                    "graders": [CHECK, changed(JUDGE, range=[1])],
                    "calculateOutput": "exact",
                }
            },
            "multi.graders.1.scoreModel.range",
        ),
    ],
)
async def test_a_fault_is_named_with_its_path(api: Api, grader: dict[str, Any], path: str) -> None:
    said = await validate(api, grader)
    [error] = said["userErrors"]
    assert said["grader"] is None
    assert error["__typename"] == "InvalidInputError"
    assert error["code"] == "INVALID_INPUT"
    assert error["path"] == ["grader", *path.split(".")]


@pytest.mark.parametrize("grader", [{}, {**CHECK, **JUDGE}, {"stringCheck": None}])
async def test_exactly_one_kind(api: Api, grader: dict[str, Any]) -> None:
    with pytest.raises(Refusal):
        await validate(api, grader)
