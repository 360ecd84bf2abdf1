"""A tenant's organization, and a writer in another process."""

from collections.abc import AsyncIterator

import pytest

from app.core.database import Database
from app.events.doorbell import Doorbell
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
