"""The first start makes one organization with its owner's key, whoever comes first."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from app.accounts import keys, service
from app.core import migrations
from app.core.actor import Role, Scope
from app.core.database import Database
from app.core.secrets import api_key_pepper, write_secret
from app.core.settings import Settings
from tests.populated import Owner

START = """
import asyncio, sys
from pathlib import Path
from app.cli.processes import prepare
from app.core.settings import Settings
settings = Settings(data_dir=Path(sys.argv[1]), _env_file=None)
print(asyncio.run(prepare(settings, sys.stdin.read().strip())))
"""


@pytest.fixture
async def empty_url(database_url: str, owner: Owner) -> AsyncIterator[str]:
    """The owner's URL of a database without tables."""
    await owner.execute("CREATE DATABASE first_start")
    url = make_url(database_url).set(database="first_start")
    yield url.render_as_string(hide_password=False)
    await owner.execute("DROP DATABASE first_start WITH (FORCE)")


async def organizations(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM organizations"))
    finally:
        await connection.close()


async def test_the_first_start_happens_once_per_database(empty_url: str, tmp_path: Path) -> None:
    await migrations.upgrade(empty_url)
    settings = Settings(data_dir=tmp_path, _env_file=None)
    pepper, key_file = api_key_pepper(settings), tmp_path / "owner-key"
    database = Database(empty_url, "luthier_app", 8)
    try:
        starts = [service.first_start(database, pepper, key_file) for _ in range(8)]
        assert sorted(await asyncio.gather(*starts)) == [False] * 7 + [True]
        key = key_file.read_text().strip()
        assert not await service.first_start(database, pepper, key_file)
        assert key_file.read_text().strip() == key
        actor = await service.authenticate(database, pepper, key, "test")
    finally:
        await database.close()
    assert await organizations(empty_url) == 1
    assert actor.role is Role.OWNER
    assert actor.scopes == frozenset(Scope)
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "api-key-pepper").stat().st_mode & 0o777 == 0o600


async def test_processes_that_start_together_leave_one_organization_and_a_key_that_works(
    empty_url: str, tmp_path: Path
) -> None:
    """Migrations, pepper, key file and rows: all of it at once, in three processes."""

    def start() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", START, str(tmp_path)]
        return subprocess.run(command, input=empty_url, capture_output=True, text=True, check=False)

    runs = await asyncio.gather(*(asyncio.to_thread(start) for _ in range(3)))
    assert [run.returncode for run in runs] == [0] * 3, [run.stderr for run in runs]
    assert sorted(run.stdout.strip() for run in runs) == ["False", "False", "True"]
    assert await organizations(empty_url) == 1
    settings = Settings(data_dir=tmp_path, _env_file=None)
    database = Database(empty_url, "luthier_app", 2)
    try:
        key = (tmp_path / "owner-key").read_text().strip()
        actor = await service.authenticate(database, api_key_pepper(settings), key, "test")
    finally:
        await database.close()
    assert actor.role is Role.OWNER


async def test_writers_of_one_secret_at_the_same_time_agree_on_it(tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / "secrets" / str(number)

        def write(path: Path = path) -> str:
            write_secret(path, keys.generate())
            return path.read_text()

        read = await asyncio.gather(*(asyncio.to_thread(write) for _ in range(8)))
        assert len({*read, path.read_text()}) == 1
        assert keys.plausible(read[0].strip())
        assert path.stat().st_mode & 0o777 == 0o600
