"""The product's verbs, against a stand-in of the API."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from app.cli.datasets import datasets_app
from app.cli.jobs import jobs_app
from app.cli.keys import keys_app
from app.cli.models import models_app
from tests.cli.stand_in import EVENTS, JOB, StandIn, serving
from tests.support import ROOT

LAST_PAGE = {"hasNextPage": False, "endCursor": None}

luthier = typer.Typer(pretty_exceptions_enable=False)
for name, app in (
    ("jobs", jobs_app),
    ("datasets", datasets_app),
    ("models", models_app),
    ("keys", keys_app),
):
    luthier.add_typer(app, name=name)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[StandIn, str]]:
    stand_in = StandIn()
    with serving(stand_in) as url:
        yield stand_in, url


@pytest.fixture
def server(running: tuple[StandIn, str], monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in, url = running
    for kept in (stand_in.answers, stand_in.asked, stand_in.uploads, stand_in.deleted):
        kept.clear()
    monkeypatch.setenv("LUTHIER_URL", url)
    monkeypatch.setenv("LUTHIER_API_KEY", "lt_key")
    return stand_in


def call(*words: str, input: str | None = None) -> Result:
    return CliRunner().invoke(luthier, words, input=input)


def test_jobs_are_a_table_for_people_and_json_for_programs(server: StandIn) -> None:
    server.answers["jobs"] = {"nodes": [JOB], "pageInfo": LAST_PAGE}
    shown = call("jobs", "list", "--status", "succeeded", "--search", "support")
    assert shown.exit_code == 0
    assert "ftjob_1  support [bold] [31m  succeeded  100 %  0.250" in shown.stdout
    assert "\x1b" not in shown.stdout
    asked = server.asked[-1]["variables"]
    assert asked["filter"] == {"status": ["SUCCEEDED"], "search": "support"}
    assert json.loads(call("jobs", "list", "--json").stdout) == [JOB]


def test_long_lists_are_read_page_by_page(server: StandIn) -> None:
    page = {"nodes": [JOB] * 200, "pageInfo": {"hasNextPage": True, "endCursor": "next"}}
    server.answers["jobs"] = page
    call("jobs", "list", "--limit", "450")
    assert [asked["variables"]["first"] for asked in server.asked] == [200, 200, 50]
    assert server.asked[-1]["variables"]["after"] == "next"


def test_watching_resumes_and_ends_by_the_outcome(server: StandIn) -> None:
    server.answers["job"] = JOB
    told = call("jobs", "watch", "ftjob_1", "--json")
    assert told.exit_code == 0
    assert [json.loads(line) for line in told.stdout.splitlines()] == EVENTS
    plain = call("jobs", "watch", "ftjob_1")
    assert "Step 10" in plain.stdout
    assert "luthier models deploy ft:tiny::1" in plain.stdout
    assert "connection lost" in plain.stderr
    assert "\x1b" not in plain.stdout


@pytest.mark.parametrize(("status", "exit_code"), [("FAILED", 1), ("CANCELLED", 3)])
def test_each_outcome_has_its_exit_status(server: StandIn, status: str, exit_code: int) -> None:
    server.answers["job"] = JOB | {"status": status, "model": None}
    assert call("jobs", "watch", "ftjob_1", "--json").exit_code == exit_code


def test_submitting_sends_files_numbers_and_pairs(server: StandIn, tmp_path: Path) -> None:
    data = tmp_path / "cases.jsonl"
    data.write_bytes(b"{}\n" * 100_000)
    server.answers["submitJob"] = payload(job=JOB, estimate=None, warnings=["Few cases."])
    done = call(
        "jobs", "submit", "--base-model", "tiny", "--data", str(data), "--validation", "dsv_9",
        "--epochs", "3", "--learning-rate", "auto", "--set", "lora_rank=8", "--set", "adapter=full",
        "--metadata", "team=a=b", "--seed", "7",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "! Few cases." in done.stdout
    assert server.uploads == [data.read_bytes()]
    assert server.deleted == []
    input = server.asked[-1]["variables"]["input"]
    assert (input["trainingFile"], input["validationData"]) == ("file_1", "dsv_9")
    assert input["method"]["supervised"]["hyperparameters"] == {
        "nEpochs": 3, "learningRate": "auto", "loraRank": 8, "adapter": "FULL",
    }  # fmt: skip
    assert input["metadata"] == [{"key": "team", "value": "a=b"}]
    assert input["seed"] == "7"


def test_a_dry_run_leaves_no_upload_behind(server: StandIn, tmp_path: Path) -> None:
    data = tmp_path / "cases.jsonl"
    data.write_text("{}\n")
    server.answers["submitJob"] = payload(job=None, estimate=None, warnings=[])
    done = call("jobs", "submit", "--base-model", "tiny", "--data", str(data), "--dry-run")
    assert done.exit_code == 0
    assert server.deleted == ["file_1"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--data", "no-such-file"),
        ("--data", "dsv_1", "--set", "rank"),
        ("--data", "dsv_1", "--metadata", "=x"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(server: StandIn, wrong: list[str]) -> None:
    assert call("jobs", "submit", "--base-model", "tiny", *wrong).exit_code == 2
    assert not server.asked
    assert not server.uploads


def test_a_refusal_is_one_line_and_json_keeps_its_details(server: StandIn) -> None:
    refusal = {"message": "The job is over.", "code": "CONFLICT", "path": ["id"]}
    server.answers["pauseJob"] = payload(job=None, userErrors=[refusal])
    said = call("jobs", "pause", "ftjob_1")
    assert (said.exit_code, said.stdout) == (1, "")
    assert said.stderr == "luthier: The job is over.\n"
    told = json.loads(call("jobs", "pause", "ftjob_1", "--json").stdout)
    assert told["error"]["errors"] == [refusal]


def test_invalid_data_is_listed_line_by_line(server: StandIn, tmp_path: Path) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_text("{\n")
    problem = {"line": 1, "field": "messages", "reason": "It is missing."}
    refusal = {
        "message": "Two problems.", "code": "DATASET_INVALID", "problemCount": 2,
        "problems": [problem],
    }  # fmt: skip
    server.answers["createDataset"] = payload(dataset=None, version=None, userErrors=[refusal])
    said = call("datasets", "add", str(data))
    assert said.exit_code == 1
    assert "messages  It is missing." in said.stdout
    assert "1 more" in said.stdout


def test_a_model_answers_in_pieces_or_at_once(server: StandIn) -> None:
    streamed = call("models", "chat", "ft:tiny::1", "Hello?", "--system", "Be kind.")
    assert streamed.stdout == "Hello  [0mthere\n"
    assert [message["role"] for message in server.asked[-1]["messages"]] == ["system", "user"]
    whole = call("models", "chat", "ft:tiny::1", "--json", "--temperature", "0", input="Hello?")
    assert json.loads(whole.stdout)["answer"] == "Hello \x1b[0mthere"
    assert server.asked[-1]["messages"][0]["content"] == "Hello?"
    refused = call("models", "chat", "nobody", "Hello?")
    assert (refused.exit_code, refused.stderr) == (1, "luthier: No such model.\n")


def test_a_model_is_found_by_its_exact_name(server: StandIn) -> None:
    others = [{"id": f"model_{n}", "name": f"ft:tiny::1{n}", "deployments": []} for n in range(3)]
    server.answers["models"] = {"nodes": others, "pageInfo": LAST_PAGE}
    said = call("models", "undeploy", "ft:tiny::1")
    assert said.exit_code == 1
    assert "no model ft:tiny::1" in said.stderr


def test_a_new_key_alone_is_on_stdout(server: StandIn) -> None:
    server.answers["createApiKey"] = payload(apiKey={"id": "key_1"}, secret="lt_new")
    made = call("keys", "create", "ci", "--scope", "read", "--scope", "admin")
    assert made.stdout == "lt_new\n"
    assert server.asked[-1]["variables"]["input"]["scopes"] == ["FINE_TUNING_READ", "ADMIN"]


def test_without_a_server_or_a_key_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LUTHIER_URL", "LUTHIER_API_KEY", "LUTHIER_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert "luthier up" in call("jobs", "list").stderr
    monkeypatch.setenv("LUTHIER_URL", "https://elsewhere.example.com")
    assert "not sent elsewhere" in call("jobs", "list").stderr
    monkeypatch.setenv("LUTHIER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LUTHIER_API_KEY", "lt_key")
    gone = call("jobs", "list")
    assert gone.exit_code == 1
    assert "No answer" in gone.stderr


def test_a_key_that_is_not_accepted_is_named(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_API_KEY", "lt_other")
    assert "Check LUTHIER_API_KEY" in call("jobs", "list").stderr


def payload(**fields: Any) -> dict[str, Any]:
    return {"userErrors": [], **fields}


def test_a_verb_loads_nothing_of_the_service() -> None:
    """That takes a second, for which nobody wants to wait before a list of jobs."""
    program = "import sys, app.cli.main; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"sqlalchemy", "strawberry", "starlette", "torch"}.intersection(loaded)
