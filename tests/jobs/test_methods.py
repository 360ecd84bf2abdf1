"""Submitting jobs of every method: what is recorded, and what does not fit together."""

from typing import Any

import pytest

from tests.support import Api, chat_lines, item_lines, pair_lines


async def refusal(api: Api, **fields: Any) -> tuple[str, list[str], str]:
    payload = await api.submit(**fields)
    assert payload["job"] is None
    [error] = payload["userErrors"]
    return error["code"], error["path"], error["message"]


async def test_a_preference_job_is_recorded_with_its_settings(api: Api) -> None:
    payload = await api.submit(
        trainingData=await api.dataset_version(pair_lines(60)),
        validationData=await api.dataset_version(pair_lines(8, "item")),
        method={
            "dpo": {
                "hyperparameters": {
                    "beta": 0.3,
                    "adapter": "FULL",
                    "earlyStopping": {"patience": 2, "minDelta": 0.01},
                }
            }
        },
    )
    assert payload["userErrors"] == []
    assert payload["warnings"] == []
    data = await api.execute(
        "query ($j: ID!) { job(id: $j) { method hyperparameters trainingData { format } } }",
        j=payload["job"]["id"],
    )
    assert data["job"]["method"] == "dpo"
    assert data["job"]["trainingData"] == {"format": "PREFERENCE"}
    given = data["job"]["hyperparameters"]
    assert (given["beta"], given["adapter"], given["n_epochs"]) == (0.3, "full", "auto")
    assert given["early_stopping"] == {"patience": 2, "min_delta": 0.01}


async def test_data_of_another_format_is_refused(api: Api) -> None:
    chats, pairs = chat_lines(60), pair_lines(60)
    code, path, message = await refusal(
        api, trainingData=await api.dataset_version(chats), method={"dpo": {}}
    )
    assert (code, path) == ("INVALID_INPUT", ["trainingData"])
    assert "takes the format preference" in message
    code, path, _ = await refusal(
        api,
        trainingData=await api.dataset_version(chats),
        validationData=await api.dataset_version(pairs),
    )
    assert (code, path) == ("INVALID_INPUT", ["validationData"])
    code, _, message = await refusal(api, trainingFile=await api.upload(chats), method={"dpo": {}})
    assert code == "DATASET_INVALID"
    assert "Line 1, field messages" in message


@pytest.mark.parametrize(
    ("given", "path", "allowed"),
    [
        ({"beta": 0}, ["beta"], "from 0 to 2"),
        ({"beta": 2.1}, ["beta"], "from 0 to 2"),
        ({"earlyStopping": {"patience": 0}}, ["earlyStopping", "patience"], "from 1 to 1000"),
        (
            {"earlyStopping": {"patience": 1, "minDelta": -1}},
            ["earlyStopping", "minDelta"],
            "from 0 to 1000",
        ),
    ],
)
async def test_a_bad_setting_is_refused_by_name_with_its_range(
    api: Api, given: dict[str, Any], path: list[str], allowed: str
) -> None:
    code, found, message = await refusal(
        api,
        trainingData=await api.dataset_version(pair_lines(12)),
        method={"dpo": {"hyperparameters": given}},
    )
    assert (code, found) == (
        "HYPERPARAMETER_INVALID",
        ["method", "dpo", "hyperparameters", *path],
    )
    assert message.startswith(".".join(path))
    assert allowed in message


async def test_early_stopping_without_validation_data_is_refused(api: Api) -> None:
    code, path, _ = await refusal(
        api, method={"supervised": {"hyperparameters": {"earlyStopping": {"patience": 1}}}}
    )
    assert (code, path) == ("INVALID_INPUT", ["validationData"])


CHECK = {
    "stringCheck": {
        "name": "check",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.word }}",
        "operation": "LIKE",
    }
}
# The same as it is kept and shown: in OpenAI's format.
CHECK_KEPT = {"type": "string_check", **CHECK["stringCheck"], "operation": "like"}
JUDGE = {
    "scoreModel": {
        "name": "judge",
        "model": "big",
        "input": [{"role": "USER", "content": [{"text": "{{ sample.output_text }}"}]}],
    }
}


def changed(**fields: Any) -> dict[str, Any]:
    return {"stringCheck": {**CHECK["stringCheck"], **fields}}


async def test_a_reinforcement_job_is_recorded_with_its_grader(api: Api) -> None:
    hyperparameters = {"computeMultiplier": 0.5, "reasoningEffort": "LOW", "evalSamples": 2}
    payload = await api.submit(
        trainingData=await api.dataset_version(item_lines(60)),
        method={"reinforcement": {"grader": CHECK, "hyperparameters": hyperparameters}},
    )
    assert payload["userErrors"] == []
    data = await api.execute(
        "query ($j: ID!) { job(id: $j) { method grader hyperparameters } }", j=payload["job"]["id"]
    )
    job = data["job"]
    assert (job["method"], job["grader"]) == ("reinforcement", CHECK_KEPT)
    given = job["hyperparameters"]
    assert (given["compute_multiplier"], given["eval_samples"], given["reasoning_effort"]) == (
        0.5,
        2,
        "low",
    )


@pytest.mark.parametrize(
    ("grader", "code", "path", "why"),
    [
        (
            changed(input="{{ sample.output_text"),
            "INVALID_INPUT",
            ["stringCheck", "input"],
            "closed",
        ),
        (changed(name=""), "INVALID_INPUT", ["stringCheck", "name"], "at least 1"),
        (JUDGE, "MODEL_NOT_FOUND", [], "'big'"),
    ],
)
async def test_a_bad_grader_is_refused_with_its_place(
    api: Api, grader: Any, code: str, path: list[str], why: str
) -> None:
    version = await api.dataset_version(item_lines(12))
    found, place, message = await refusal(
        api, trainingData=version, method={"reinforcement": {"grader": grader}}
    )
    assert (found, place) == (code, ["method", "reinforcement", "grader", *path])
    assert why in message
