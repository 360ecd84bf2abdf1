"""What the README says is true: its examples run, its settings and verbs exist."""

import re
from pathlib import Path

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


def test_every_setting_is_described() -> None:
    named = set(re.findall(r"`LUTHIER_(\w+)`", README))
    assert {name.upper() for name in Settings.model_fields} <= named


def test_every_verb_of_the_command_line_is_named() -> None:
    root = typer.main.get_group(app)
    for name, command in root.commands.items():
        assert f"luthier {name}" in " ".join(README.split()), name
        for verb in getattr(command, "commands", {}):
            assert f"`{verb}`" in README, f"{name} {verb}"


def test_every_path_it_names_exists() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)|`((?:app|migrations|tests)/[\w./-]+)`", README):
        name = path[0] or path[1]
        assert (ROOT / name).exists(), name
