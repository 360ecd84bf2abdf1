"""Rules of the house that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

from app.core.settings import Settings

ROOT = Path(__file__).parents[1]
LONGEST = 400


def sources(*folders: str) -> list[Path]:
    return [
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "static" not in path.parts and "generated" not in path.parts
    ]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def mentions(pattern: str, *folders: str) -> set[str]:
    """Files with a line of code like this; comments do not count."""
    look = re.compile(pattern)
    return {
        named(path)
        for path in sources(*folders)
        if any(look.search(line.split("#")[0]) for line in path.read_text().splitlines())
    }


def test_only_the_core_commits() -> None:
    found = mentions(r"\.commit\(", "app")
    # A savepoint that a dry run rolls back.
    assert {path for path in found if not path.startswith("app/core/")} <= {
        "app/api/graphql/job_mutations.py"
    }


def test_only_the_clock_knows_the_time() -> None:
    found = mentions(r"datetime\.(now|utcnow|today)\(", "app")
    assert found <= {"app/core/clock.py"}


def test_no_file_is_too_long() -> None:
    long = {
        named(path): count
        for path in sources("app", "tests")
        if (count := len(path.read_text().splitlines())) > LONGEST
    }
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    bare = [
        named(path)
        for path in sources("app", "tests", "migrations")
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert bare == []


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_every_setting_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    if "LUTHIER_" not in readme:
        pytest.skip("the README has no settings yet")
    missing = [name for name in Settings.model_fields if f"LUTHIER_{name.upper()}" not in readme]
    assert missing == []
