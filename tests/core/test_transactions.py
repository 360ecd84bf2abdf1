"""A transaction names its tenant with its first statement, in one round trip."""

import pytest
from sqlalchemy import text

from app.core.database import Database
from tests.events.tools import driver
from tests.support import Tenant

_SETTING = text("SELECT coalesce(current_setting('app.org_id', true), '')")


async def test_the_tenant_costs_no_round_trip_of_its_own(
    database: Database, tenant: Tenant
) -> None:
    org = tenant.actor.org_id
    sent: list[str] = []
    async with database.transaction(org) as session:
        found = await driver(session)
        with found.query_logger(lambda said: sent.append(said.query)):
            assert await (await session.connection()).scalar(_SETTING) == org
    [began] = sent  # the logger leaves out the prepared statement itself
    assert began.startswith("BEGIN; SELECT set_config(")


async def test_without_a_statement_nothing_is_sent_and_nothing_stays_behind(
    database_url: str, tenant: Tenant
) -> None:
    single = Database(database_url, "luthier_app", 1)
    try:
        async with single.transaction(tenant.actor.org_id) as session:
            before = await driver(session)
        async with single.engine.connect() as connection:
            raw = await connection.get_raw_connection()
            assert raw.driver_connection is before
            assert await connection.scalar(_SETTING) == ""
    finally:
        await single.close()


@pytest.mark.parametrize("org", ["o'); SELECT 1; --", "o' OR '1'='1", "ö", "a b", "x" * 65, "\0"])
async def test_what_is_no_id_is_never_sent(database: Database, org: str) -> None:
    with pytest.raises(ValueError, match="organization"):
        async with database.transaction(org) as session:
            await (await session.connection()).scalar(_SETTING)
    async with database.transaction(None) as session:
        assert await (await session.connection()).scalar(_SETTING) == ""


async def test_a_savepoint_keeps_the_tenant(database: Database, tenant: Tenant) -> None:
    org = tenant.actor.org_id
    async with database.transaction(org) as session:
        async with session.begin_nested():
            assert await (await session.connection()).scalar(_SETTING) == org
        assert await (await session.connection()).scalar(_SETTING) == org
