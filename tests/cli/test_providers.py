"""The verbs for providers: against a stand-in of the API, and against simulators as processes."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from graphql import GraphQLInputObjectType, build_schema, get_named_type
from typer.testing import CliRunner, Result

from app.cli import provider_access, provider_matrix
from app.cli.main import app
from app.providers.registry import ADAPTERS
from app.simulators.registry import SIMULATED
from tests.cli.running import Running, environment
from tests.cli.stand_in import JOB, StandIn, serving

ROOT = Path(__file__).parents[2]
KEY = "sk-a-key-that-nobody-may-see"
OPENAI: dict[str, Any] = {
    "provider": "OPENAI", "name": "OpenAI", "configured": True, "healthy": True,
    "methods": ["supervised", "dpo"], "hyperparameters": [], "canPause": True, "canResume": True,
    "canDeploy": True, "needsDeployment": False, "hasCheckpoints": True, "messages": "events",
    "metrics": "events", "webhooks": "signed", "longestSuffix": 64, "credentialTrouble": None,
}  # fmt: skip
CREDENTIAL: dict[str, Any] = {
    "id": "cred_1", "provider": "OPENAI", "hint": "…-see", "status": "OK", "trouble": None,
    "settings": {}, "webhookPath": "/webhooks/openai/cred_1", "webhooksConfigured": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[StandIn, str]]:
    stand_in = StandIn()
    with serving(stand_in) as url:
        yield stand_in, url


@pytest.fixture
def server(running: tuple[StandIn, str], monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in, url = running
    stand_in.answers.clear()
    stand_in.asked.clear()
    monkeypatch.setenv("LUTHIER_URL", url)
    monkeypatch.setenv("LUTHIER_API_KEY", "lt_key")
    for variables in provider_access.VARIABLES.values():
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)
    stand_in.answers["providers"] = [OPENAI]
    stand_in.answers["providerCredentials"] = [CREDENTIAL]
    stand_in.answers["setProviderCredential"] = payload(credential=CREDENTIAL)
    return stand_in


def call(*words: str, input: str | None = None) -> Result:
    return CliRunner().invoke(app, words, input=input)


def payload(**fields: Any) -> dict[str, Any]:
    return {"userErrors": [], **fields}


def sent(server: StandIn) -> dict[str, Any]:
    return dict(server.asked[-1]["variables"]["input"])


def test_the_list_says_who_can_be_used_and_what_is_wrong(server: StandIn) -> None:
    denied = {"healthy": False, "credentialTrouble": "OpenAI says:\x1b[31m no."}
    server.answers["providers"] = [OPENAI | denied]
    server.answers["providerCredentials"] = [CREDENTIAL | {"status": "DENIED"}]
    shown = call("providers", "list")
    assert re.search(
        r"openai +denied +…-see +supervised, dpo +yes +yes +signed +at once", shown.stdout
    )
    assert "openai: OpenAI says: [31m no." in shown.stdout
    [told] = json.loads(call("providers", "list", "--json").stdout)
    assert told["credential"]["hint"] == "…-see"


@pytest.mark.parametrize("way", ["typed", "file", "stdin", "environment"])
def test_a_secret_comes_in_four_ways_and_is_never_shown(
    server: StandIn, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    given = {
        "typed": ["--secret", f"api_key={KEY}"],
        "file": ["--secret", f"api_key=@{tmp_path}/key"],
        "stdin": ["--secret", "api_key=-"],
        "environment": [],
    }[way]
    if way == "environment":
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
    words = [
        "providers",
        "connect",
        "openai",
        *given,
        "--setting",
        "base_url=http://x",
        "--no-check",
    ]
    done = call(*words, input=f"{KEY}\n")
    assert done.exit_code == 0, done.stderr
    assert sent(server) == {
        "credential": {"openai": {"apiKey": KEY, "baseUrl": "http://x"}}, "check": False,
    }  # fmt: skip
    assert KEY not in done.stdout + done.stderr
    assert "/webhooks/openai/cred_1 (not taken yet" in done.stdout
    assert ("OPENAI_API_KEY" in done.stdout) == (way == "environment")
    assert ("A shell keeps what is typed" in done.stderr) == (way == "typed")


def test_a_key_given_never_meets_one_of_the_environment(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["providers"] = [OPENAI | {"provider": "BEDROCK"}]
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another account")
    words = ["--secret", "access_key_id=AK", "--secret", "secret_access_key=SK"]
    assert call("providers", "connect", "bedrock", *words).exit_code == 0
    assert sent(server)["credential"]["bedrock"] == {"accessKeyId": "AK", "secretAccessKey": "SK"}


def test_google_names_a_file_and_numbers_are_numbers(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["providers"] = [OPENAI | {"provider": n} for n in ("VERTEX", "AZURE")]
    (tmp_path / "account.json").write_text('{"type": "service_account"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    assert call("providers", "connect", "vertex").exit_code == 0
    assert sent(server)["credential"]["vertex"]["serviceAccount"] == '{"type": "service_account"}'
    azure = ["--secret", "api_key=12345678", "--setting", "capacity=2"]
    assert call("providers", "connect", "azure", *azure).exit_code == 0
    assert sent(server)["credential"]["azure"] == {"apiKey": "12345678", "capacity": 2}


def test_what_a_refusal_quotes_is_not_shown(server: StandIn) -> None:
    words = f"Field unknown, found: {{'apikeyy': '{KEY}'}}."
    refusal = {"message": words, "code": "BAD", "path": [f"a {KEY}"]}
    server.answers["setProviderCredential"] = payload(credential=None, userErrors=[refusal])
    said = call("providers", "connect", "openai", "--secret", f"apikeyy={KEY}", "--json")
    assert said.exit_code == 1
    assert KEY not in said.stdout + said.stderr
    assert "Field unknown." in said.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["openai"],
        ["openai", "--secret", "api_key"],
        ["openai", "--secret", "api_key=@no-such-file"],
        ["openai", "--secret", "api_key=-", "--webhook-secret", "-"],
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(server: StandIn, words: list[str]) -> None:
    assert call("providers", "connect", *words, input="text\n").exit_code == 2
    assert server.asked == []


def test_a_provider_that_there_is_not_gets_no_secret(server: StandIn) -> None:
    said = call("providers", "connect", "openay", "--secret", f"api_key={KEY}")
    assert said.exit_code == 1
    assert "There are openai." in said.stderr
    assert KEY not in json.dumps(server.asked)


def test_disconnecting_and_importing(server: StandIn) -> None:
    server.answers |= {"removeProviderCredential": payload(removedId="cred_1")}
    assert call("providers", "disconnect", "openai").stdout == "openai is disconnected.\n"
    there = JOB | {"providerJobId": "ftjob-1", "providerStatus": "running"}
    server.answers["importJobs"] = payload(imported=[there], known=[there])
    shown = call("providers", "import", "openai", "ftjob-1", "ftjob-2")
    assert sent(server)["providerJobIds"] == ["ftjob-1", "ftjob-2"]
    assert re.search(r"ftjob_1 +ftjob-1 +succeeded +tiny +new\b", shown.stdout)
    assert "known" in shown.stdout
    call("providers", "import", "openai", "--first", "3")
    assert sent(server) == {"provider": "OPENAI", "first": 3}


def test_what_ends_the_soonest_comes_first(server: StandIn) -> None:
    def model(name: str, ends: str | None, missing: str | None = None) -> dict[str, Any]:
        return {"name": name, "provider": "OPENAI", "shutsDownOn": ends, "missingSince": missing}

    models = [model("b", "2999-01-01"), model("a", "2001-01-01"), model("stays", None)]
    models.append(model("gone", None, "2026-01-02T00:00:00Z"))
    page = {"hasNextPage": False, "endCursor": None}
    server.answers["baseModels"] = {"nodes": models, "pageInfo": page}
    rows = call("providers", "sunsets").stdout.splitlines()[1:]
    assert [row.split()[-2 if "since" not in row else -4] for row in rows] == ["gone", "a", "b"]
    assert "over" in rows[1]
    assert len(json.loads(call("providers", "sunsets", "--json").stdout)) == 3


def test_jobs_elsewhere_say_where(server: StandIn) -> None:
    server.answers["jobs"] = {"nodes": [JOB, JOB | {"provider": "OPENAI"}], "pageInfo": {
        "hasNextPage": False, "endCursor": None}}  # fmt: skip
    shown = call("jobs", "list", "--provider", "openai").stdout
    assert "PROVIDER" in shown
    assert server.asked[-1]["variables"]["filter"] == {"provider": ["OPENAI"]}
    server.answers["submitJob"] = payload(job=JOB, estimate=None, warnings=[])
    data = ["--base-model", "tiny", "--data", "dsv_1", "--provider", "openai"]
    assert call("jobs", "submit", *data).exit_code == 0
    assert sent(server)["provider"] == "OPENAI"


def test_numbers_and_names_of_credentials_are_those_of_the_schema() -> None:
    schema = build_schema((ROOT / "schema.graphql").read_text())
    whole = schema.type_map["CredentialInput"]
    assert isinstance(whole, GraphQLInputObjectType)
    numbers = set()
    for provider, given in whole.fields.items():
        kind = get_named_type(given.type)
        assert isinstance(kind, GraphQLInputObjectType)
        numbers |= {name for name, f in kind.fields.items() if get_named_type(f.type).name == "Int"}
        named = {provider_access.camel(n) for n in provider_access.VARIABLES[provider].values()}
        assert named - {"webhookSecret"} <= kind.fields.keys()
    assert numbers == {provider_access.camel(name) for name in provider_access.NUMBERS}


def test_every_provider_has_its_simulator() -> None:
    assert SIMULATED.keys() == ADAPTERS.keys()


def test_the_table_in_the_readme_is_the_one_of_the_code(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    assert f"{provider_matrix.BEGIN}\n{provider_matrix.matrix()}\n{provider_matrix.END}" in readme
    stale = tmp_path / "README.md"
    stale.write_text(f"a\n{provider_matrix.BEGIN}\nold\n{provider_matrix.END}\nb\n")
    assert call("providers", "matrix", "--readme", str(stale)).exit_code == 0
    assert provider_matrix.matrix() in stale.read_text()
    assert not provider_matrix.put_into(stale)
    stale.write_text("no markers")
    assert call("providers", "matrix", "--readme", str(stale)).exit_code == 2


@pytest.mark.parametrize("words", [["nobody"], [], ["openai", "--cheat", "luck=1"]])
def test_what_cannot_be_simulated_is_wrong_usage(words: list[str]) -> None:
    assert call("simulate", *words).exit_code == 2


@pytest.mark.timeout(180)
@pytest.mark.soak
def test_what_simulate_prints_connects(tmp_path: Path) -> None:
    names = ["vertex", "together"]
    with Running(
        "simulate", *names, "--port", "0", "--cheat", "hang=0.01", output=tmp_path / "simulate.log"
    ) as simulators:
        said = _until(simulators, "Ctrl-C")
        [origins] = re.findall(r"LUTHIER_PROVIDER_ORIGINS='(.*?)'", said)
        [url] = re.findall(r"^vertex +(\S+)$", said, re.M)
        with httpx.Client(trust_env=False) as client:
            assert client.get(f"{url}/_cheats").json()["hang"] == 0.01
        settings = {"data_dir": str(tmp_path / "data"), "worker_slots": "0"}
        settings |= {"provider_origins": origins}
        with Running("up", output=tmp_path / "up.log", **settings) as up:
            up.ready()
            own = environment({"data_dir": settings["data_dir"], "port": str(up.port)})
            for command in re.findall(r"^  luthier (providers connect .*)$", said, re.M):
                _luthier(shlex.split(command), own)
            listed = json.loads(_luthier(["providers", "list", "--json"], own))
        assert {p["provider"].lower() for p in listed if p["healthy"]} == {*names}
        simulators.process.send_signal(signal.SIGINT)
        assert simulators.process.wait(20) == 0


@pytest.mark.timeout(180)
@pytest.mark.soak
def test_the_demonstration_ends_by_itself_with_everything_as_it_should_be() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli.main", "demo-providers"],
        env=environment({}), capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    for name in SIMULATED:
        assert re.search(rf"^{name} .* succeeded +24 ", done.stdout, re.M)
    for trouble in ("got lost", "found by its marker", "down", "429", "three times"):
        assert trouble in done.stdout
    assert "\x1b" not in done.stdout


def _luthier(words: list[str], env: dict[str, str]) -> str:
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", *words],
        env=env, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip


def _until(running: Running, words: str) -> str:
    deadline = time.monotonic() + 60
    while words not in running.said():
        assert time.monotonic() < deadline, running.said()
        time.sleep(0.1)
    return running.said()
