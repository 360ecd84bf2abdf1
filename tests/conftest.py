"""A real Postgres, a real server on a real socket, and tenants to try it with."""

import asyncio
import gc
import os
import socket
import tracemalloc  # noqa: F401 - pytest would begin to within a garbage collection, and fail
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

import asyncpg
import pytest
import uvicorn
from filelock import FileLock
from xdist.scheduler import LoadFileScheduling

from app.api.graphql.live.direct import LiveProtocol
from app.api.protocol import HttpProtocol
from app.core import migrations
from app.core.database import Database
from app.core.postgres import EmbeddedPostgres
from app.core.settings import Settings
from app.main import create_app
from tests.support import Api, Tenant, new_tenant, run_module

HERE = Path(__file__).parent
# What begins first, so that nothing long is left for the end.
LONG = ("flows", "training", "serving", "chaos", "cli")
# Their files share something that takes long to begin: so many processes run them all.
TOGETHER = {"training": 1, "serving": 1, "flows": 2}
ON_CI = os.environ.get("CI") == "true"


class Sharing(LoadFileScheduling):  # type: ignore[misc]  # the library is untyped here
    """Who runs which tests when several processes share them: a file, or a folder, stays whole."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        folder = file.split("/")[1]
        if processes := TOGETHER.get(folder):
            return f"{folder} {crc32(file.encode()) % processes}"
        return file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    return Sharing(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path.relative_to(HERE).parts[0], len(LONG)))


def pytest_collection_finish() -> None:
    """What is loaded by now stays: it need not be gone through for garbage again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("luthier")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that trains in seconds, made once for all processes that share the tests."""
    if find_spec("torch") is None:
        assert not ON_CI, "the training stack must be installed on CI"
        pytest.skip("needs the training stack: pip install luthier[train]")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "tiny"
    with FileLock(shared / "tiny.lock"):
        if not folder.exists():
            done = run_module("app.training.tiny", "--to", folder)
            assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def database_url(data_dir: Path) -> Iterator[str]:
    """The owner's URL of a migrated database: the embedded one, or LUTHIER_TEST_DATABASE_URL."""
    if given := os.environ.get("LUTHIER_TEST_DATABASE_URL"):
        asyncio.run(migrations.upgrade(given))
        yield given
        return
    embedded = EmbeddedPostgres(data_dir, fsync=False)
    embedded.start()
    try:
        asyncio.run(migrations.upgrade(embedded.url))
        yield embedded.url
    finally:
        embedded.stop()


@pytest.fixture(scope="session")
def settings(data_dir: Path) -> Settings:
    """Short leases, a small upload limit, and a folder for models and server-side datasets."""
    for name in ("models", "datasets"):
        (data_dir / name).mkdir(exist_ok=True)
    return Settings(
        data_dir=data_dir,
        max_upload_bytes=1_000_000,
        model_roots=[data_dir / "models"],
        dataset_roots=[data_dir / "datasets"],
        lease_seconds=3,
        connection_init_seconds=2,
        _env_file=None,
    )


@pytest.fixture(scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    """As the API sees it. Commits ring no doorbell: readers fall back on their poll."""
    found = Database(database_url, "luthier_app", 20)
    yield found
    await found.close()


@pytest.fixture(scope="session")
async def worker_database(database_url: str) -> AsyncIterator[Database]:
    """As the worker sees it."""
    found = Database(database_url, "luthier_worker", 20)
    yield found
    await found.close()


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection as the superuser, whom no policy binds."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def server(settings: Settings, database_url: str) -> AsyncIterator[str]:
    """The API on a free loopback port; its base URL."""
    # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms longer.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(settings, database_url),
        http=HttpProtocol,
        ws=LiveProtocol,
        ws_max_size=settings.max_body_bytes,
        log_config=None,
        lifespan="on",
    )
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    while not running.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
        await asyncio.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    running.should_exit = True
    await task


@pytest.fixture
async def tenant(database: Database, settings: Settings) -> Tenant:
    """A new organization with its owner's key: no test sees another's rows."""
    return await new_tenant(database, settings)


@pytest.fixture
async def other_tenant(database: Database, settings: Settings) -> Tenant:
    return await new_tenant(database, settings)


@pytest.fixture
async def api(server: str, tenant: Tenant) -> AsyncIterator[Api]:
    """The API as the tenant's owner."""
    async with Api(server, tenant.key) as client:
        yield client
