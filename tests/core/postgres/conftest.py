"""Folders with a Postgres in them."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.core.postgres import (
    EmbeddedPostgres,
)
from tests.core.postgres.support import ask, scratch


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A folder that was started and stopped once: initdb takes seconds, a copy of its work none."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        template = Path(folder, "template")
        server = EmbeddedPostgres(template, fsync=False)
        assert server.start()
        ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        server.stop()
        yield template


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that everybody can enter, and whose servers are gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=scratch()))
    folder.chmod(0o755)
    yield folder
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and process.cwd().startswith(f"{folder}/"):
                process.kill()
        except psutil.Error:
            continue
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def data_dir(made: Path, home: Path) -> Path:
    subprocess.run(["cp", "-a", made, home / "data"], check=True)
    return home / "data"


@pytest.fixture
def server(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres(data_dir, fsync=False)
    yield embedded
    embedded.stop()
