"""Two tenants with a row in every table each, the schema as the server describes it, and a server
whose streams can be looked into."""

from collections.abc import AsyncIterator

import pytest
from graphql import GraphQLSchema

from app.core.database import Database
from app.core.settings import Settings
from app.events.doorbell import Doorbell
from tests.api.documents import schema_of
from tests.api.live import Server, Story, serving
from tests.events.tools import until
from tests.jobs.rows import Rows
from tests.populated import Populated, populated
from tests.support import Api, Tenant


@pytest.fixture(scope="module")
async def ours(
    server: str, database: Database, worker_database: Database, settings: Settings
) -> AsyncIterator[Populated]:
    async with populated(server, database, worker_database, settings) as found:
        yield found


@pytest.fixture(scope="module")
async def theirs(
    server: str, database: Database, worker_database: Database, settings: Settings
) -> AsyncIterator[Populated]:
    async with populated(server, database, worker_database, settings) as found:
        yield found


@pytest.fixture(scope="module")
async def schema(ours: Populated) -> GraphQLSchema:
    return await schema_of(ours.api)


@pytest.fixture(scope="module", params=["direct", "asgi"])
async def live(
    settings: Settings, database_url: str, request: pytest.FixtureRequest
) -> AsyncIterator[Server]:
    async with serving(settings, database_url, request.param) as found:
        yield found
        await until(lambda: found.streams.tails == 0)
        assert not found.engine.groups
        assert not found.engine.executions


@pytest.fixture(scope="module")
async def ringer(database_url: str) -> AsyncIterator[Database]:
    doorbell = Doorbell(database_url)
    found = Database(database_url, "luthier_worker", 5)
    found.after_commit = doorbell.ring
    await doorbell.start()
    yield found
    await doorbell.stop()
    await found.close()


@pytest.fixture
async def viewer(live: Server, tenant: Tenant) -> AsyncIterator[Api]:
    async with Api(live.url, tenant.key) as found:
        yield found


@pytest.fixture
async def rows(viewer: Api, database: Database, tenant: Tenant) -> Rows:
    return await Rows.of(viewer, database, tenant)


@pytest.fixture
async def story(rows: Rows, ringer: Database) -> Story:
    return await Story.begin(rows, ringer)
