"""What the README says is true: its examples run, its settings and verbs exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import typer
from graphql import build_schema, parse, validate

from app.cli.main import app
from app.core.settings import Settings
from tests.support import Api

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def examples() -> list[str]:
    return re.findall(r"```graphql\n(.*?)```", README, re.S)


async def test_the_first_example_runs_as_it_is(api: Api) -> None:
    made = (await api.execute(examples()[0]))["createDataset"]
    assert made["userErrors"] == []
    assert made["version"]["report"]["caseCount"] == 2


def test_every_example_fits_the_schema() -> None:
    schema = build_schema((ROOT / "schema.graphql").read_text())
    for example in examples():
        for operation in re.split(r"\n(?=mutation|subscription|query)", example):
            assert validate(schema, parse(operation)) == []


def test_every_setting_stands_there_with_its_default_and_meaning() -> None:
    rows = set(re.findall(r"^\| `LUTHIER_.*\|$", README, re.M))
    for name, field in Settings.model_fields.items():
        default = field.default
        text = str(default).lower() if isinstance(default, bool) else str(default)
        shown = "" if default is None else f"`{text}`"
        assert f"| `LUTHIER_{name.upper()}` | {shown} | {field.description} |" in rows


def test_every_limit_says_what_happens_past_it() -> None:
    [table] = re.findall(r"^\| limit \|.*?\n\n", README, re.M | re.S)
    short = {
        f"…_{name.removeprefix('graphql_max_')}".upper(): name for name in Settings.model_fields
    }
    names = {
        short.get(n, n.removeprefix("LUTHIER_").lower()) for n in re.findall(r"`([…A-Z_]+)`", table)
    }
    limits = {
        name for name in Settings.model_fields if re.search(r"max_|_per_|graphql_s|init_", name)
    } - {"processes_per_job"}
    assert limits <= names


def test_every_verb_of_the_command_line_is_named() -> None:
    root = typer.main.get_group(app)
    for name, command in root.commands.items():
        assert f"luthier {name}" in " ".join(README.split()), name
        for verb in getattr(command, "commands", {}):
            assert f"`{verb}`" in README, f"{name} {verb}"


def test_every_command_line_fits() -> None:
    lines = re.findall(r"^(?:\.venv/bin/)?luthier (.*)$", README, re.M)
    assert len(lines) >= 4
    for line in lines:
        for part in line.split("&&"):
            words = shlex.split(part.removeprefix(" luthier "))
            command: Any = typer.main.get_group(app)
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts}
            used = {word for word in words if word.startswith("--")}
            assert used <= known, line
            for word in words:
                assert "/" not in word or (ROOT / word).exists(), word


def test_every_path_it_names_exists() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)|`((?:app|docs|migrations|tests)/[\w./-]+)`", README):
        name = path[0] or path[1]
        assert (ROOT / name).exists(), name
