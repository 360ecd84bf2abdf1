"""What submitJob refuses besides hyperparameters: each by code and path, and without a trace."""

from typing import Any

import pytest

from tests.jobs.test_submission import refusal
from tests.support import Api, Tenant, chat_line, chat_lines


def pairs(count: int) -> list[dict[str, str]]:
    return [{"key": f"k{n}", "value": "v"} for n in range(count)]


@pytest.mark.parametrize(
    ("fields", "code", "path", "says"),
    [
        ({"suffix": ""}, "INVALID_INPUT", ["suffix"], "1 to 64"),
        ({"suffix": "x" * 65}, "INVALID_INPUT", ["suffix"], "1 to 64"),
        ({"suffix": "-lead"}, "INVALID_INPUT", ["suffix"], "letter or digit"),
        ({"suffix": "a b"}, "INVALID_INPUT", ["suffix"], "letters, digits"),
        ({"suffix": "a/b"}, "INVALID_INPUT", ["suffix"], "letters, digits"),
        ({"suffix": "ü"}, "INVALID_INPUT", ["suffix"], "letters, digits"),
        ({"suffix": "a\n"}, "INVALID_INPUT", ["suffix"], "letters, digits"),
        ({"seed": "-1"}, "INVALID_INPUT", ["seed"], "4294967295"),
        ({"seed": "4294967296"}, "INVALID_INPUT", ["seed"], "4294967295"),
        ({"seed": "9" * 30}, "INVALID_INPUT", ["seed"], "4294967295"),
        ({"name": "x" * 201}, "INVALID_INPUT", ["name"], "200"),
        ({"description": "x" * 4_001}, "INVALID_INPUT", ["description"], "4000"),
        ({"metadata": pairs(17)}, "METADATA_TOO_LARGE", ["metadata"], "16"),
        (
            {"metadata": [{"key": "k" * 65, "value": ""}]},
            "METADATA_TOO_LARGE",
            ["metadata", "k" * 64],
            "64",
        ),
        (
            {"metadata": [{"key": "", "value": "v"}]},
            "METADATA_TOO_LARGE",
            ["metadata", ""],
            "1 to 64",
        ),
        (
            {"metadata": [{"key": "k", "value": "v" * 513}]},
            "METADATA_TOO_LARGE",
            ["metadata", "k"],
            "512",
        ),
        (
            {"metadata": [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]},
            "INVALID_INPUT",
            ["metadata", "k"],
            "twice",
        ),
        ({"hardware": "h100"}, "HARDWARE_UNKNOWN", ["hardware"], "'h100'"),
        ({"idempotencyKey": ""}, "INVALID_INPUT", ["idempotencyKey"], "255"),
        ({"idempotencyKey": "k" * 256}, "INVALID_INPUT", ["idempotencyKey"], "255"),
        ({"trainingData": "dsv_nothere"}, "DATASET_VERSION_NOT_FOUND", None, "dsv_nothere"),
        ({"trainingFile": "file_nothere"}, "FILE_NOT_FOUND", None, "file_nothere"),
        ({"validationData": "dsv_nothere"}, "DATASET_VERSION_NOT_FOUND", None, "dsv_nothere"),
        (
            {"trainingData": "dsv_a", "trainingFile": "file_a"},
            "INVALID_INPUT",
            ["trainingFile"],
            "not both",
        ),
        (
            {"validationData": "dsv_a", "validationFile": "file_a"},
            "INVALID_INPUT",
            ["validationFile"],
            "not both",
        ),
        (
            {"trainingData": None},
            "INVALID_INPUT",
            ["trainingData"],
            "trainingData or trainingFile",
        ),
        ({"baseModel": ""}, "BASE_MODEL_UNKNOWN", ["baseModel"], "smollm2-135m-instruct"),
        ({"baseModel": "x" * 9_000}, "BASE_MODEL_UNKNOWN", ["baseModel"], "smollm2-135m-instruct"),
        (
            {"baseModel": "../../etc"},
            "BASE_MODEL_UNKNOWN",
            ["baseModel"],
            "smollm2-135m-instruct",
        ),
        (
            {"baseModel": "owner/model"},
            "BASE_MODEL_UNKNOWN",
            ["baseModel"],
            "smollm2-135m-instruct",
        ),
    ],
)
async def test_a_bad_field_is_refused_without_a_trace(
    api: Api,
    tenant: Tenant,
    database_url: str,
    fields: dict[str, Any],
    code: str,
    path: list[str] | None,
    says: str,
) -> None:
    found, where, message = await refusal(api, tenant, database_url, **fields)
    assert (found, where) == (code, path)
    assert says in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "fields",
    [
        {"suffix": "x" * 64},
        {"suffix": "0.a_b-C"},
        {"seed": "0"},
        {"name": "x" * 200},
        {"name": "  "},
        {"metadata": pairs(16)},
        {"metadata": [{"key": "k" * 64, "value": "v" * 512}, {"key": "empty", "value": ""}]},
        {"idempotencyKey": "k" * 255},
        {"method": None},
        {"method": {"supervised": {}}},
        {"method": {"supervised": {"hyperparameters": None}}},
        {"method": {"supervised": {"hyperparameters": {"nEpochs": "auto", "adapter": "FULL"}}}},
    ],
)
async def test_the_limits_themselves_are_allowed(api: Api, fields: dict[str, Any]) -> None:
    assert await api.job_id(**fields)


async def test_validation_equal_to_training_is_refused(
    api: Api, tenant: Tenant, database_url: str
) -> None:
    content = chat_lines(12)
    version, same = await api.dataset_version(content), await api.dataset_version(content)
    assert version != same
    for validation in (version, same):
        code, path, _ = await refusal(
            api, tenant, database_url, trainingData=version, validationData=validation
        )
        assert (code, path) == ("INVALID_INPUT", ["validationData"])


@pytest.mark.parametrize("part", ["trainingFile", "validationFile"])
async def test_a_broken_file_is_refused_with_its_line(
    api: Api, tenant: Tenant, database_url: str, part: str
) -> None:
    file = await api.upload(chat_lines(6) + "\n{")
    fields = {part: file}
    if part == "validationFile":
        fields["trainingData"] = await api.dataset_version(chat_lines(12))
    code, _, message = await refusal(api, tenant, database_url, **fields)
    assert code == "DATASET_INVALID"
    assert "Line 7" in message


async def test_data_of_another_tenant_is_not_found(
    api: Api, server: str, tenant: Tenant, other_tenant: Tenant, database_url: str
) -> None:
    async with Api(server, other_tenant.key) as other:
        version = await other.dataset_version(chat_lines(12))
        file = await other.upload(chat_line("q", "a"))
    code, _, _ = await refusal(api, tenant, database_url, trainingData=version)
    assert code == "DATASET_VERSION_NOT_FOUND"
    code, _, _ = await refusal(api, tenant, database_url, trainingFile=file)
    assert code == "FILE_NOT_FOUND"


async def test_only_one_method_can_be_given(api: Api) -> None:
    answer = await api.http.post(
        "/graphql",
        json={
            "query": "mutation ($i: SubmitJobInput!) { submitJob(input: $i) { job { id } } }",
            "variables": {"i": {"baseModel": "x", "trainingData": "y", "method": {}}},
        },
    )
    assert "exactly one" in answer.text.lower()
