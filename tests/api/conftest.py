"""Two tenants with a row in every table each, and the schema as the server describes it."""

from collections.abc import AsyncIterator

import pytest
from graphql import GraphQLSchema

from app.core.database import Database
from app.core.settings import Settings
from tests.api.documents import schema_of
from tests.populated import Populated, populated


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
