"""A tenant's organization, a writer in another process, and a Redis to ring through."""

from collections.abc import AsyncIterator, Iterator

import pytest

from app.core.database import Database
from app.events.doorbell import Doorbell
from tests.events.redis_server import RedisServer
from tests.support import Tenant


@pytest.fixture
def org(tenant: Tenant) -> str:
    return tenant.actor.org_id


@pytest.fixture
async def ringer(database_url: str) -> AsyncIterator[Database]:
    """A database whose commits ring, as a writer in another process has it."""
    doorbell = Doorbell(database_url)
    database = Database(database_url, "luthier_worker", 5)
    database.after_commit = doorbell.ring
    await doorbell.start()
    yield database
    await doorbell.stop()
    await database.close()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()
