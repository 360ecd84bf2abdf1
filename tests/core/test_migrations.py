"""The migrations: up, down, complete, and for an owner who is no superuser."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from app.accounts import service as accounts
from app.attempts import queue
from app.core import migrations
from app.core.database import Database
from app.core.migrations import DatabaseUnusable

SUFFIX = secrets.token_hex(4)


async def admin(database_url: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(database_url)


@pytest.fixture
async def empty(database_url: str) -> AsyncIterator[str]:
    """The URL of an empty database of the owner's."""
    name = f"empty_{secrets.token_hex(4)}"
    connection = await admin(database_url)
    await connection.execute(f'CREATE DATABASE "{name}"')
    yield re.sub(r"/[^/?]+\?", f"/{name}?", database_url)
    await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await connection.close()


async def test_the_schema_goes_up_is_complete_goes_down_and_up_again(empty: str) -> None:
    await migrations.upgrade(empty)
    await migrations.run(empty, "check")
    await migrations.run(empty, "downgrade", "base")
    await migrations.upgrade(empty)
    await migrations.run(empty, "check")


async def test_processes_that_migrate_at_once_take_turns(empty: str) -> None:
    await asyncio.gather(*(migrations.upgrade(empty) for _ in range(4)))
    await migrations.run(empty, "check")


async def test_an_owner_without_superuser_can_run_it_all(database_url: str) -> None:
    """As on a managed Postgres: forced row-level security binds this owner too."""
    name, password = f"plain_{SUFFIX}", secrets.token_hex(8)
    connection = await admin(database_url)
    await connection.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD '{password}'")
    await connection.execute(
        f"GRANT luthier_app, luthier_worker, luthier_doors TO {name} WITH ADMIN OPTION"
    )
    await connection.execute(f"CREATE DATABASE {name} OWNER {name}")
    url = re.sub(r"//[^@]*@/[^/?]+\?", f"//{name}:{password}@/{name}?", database_url)
    try:
        await migrations.upgrade(url)
        app, worker = Database(url, "luthier_app", 2), Database(url, "luthier_worker", 2)
        try:
            made = await accounts.create_organization(app, b"pepper", "Plain")
            actor = await accounts.authenticate(app, b"pepper", made.secret, "")
            assert actor.role == "owner"
            async with worker.transaction(None) as session:
                assert await queue.claim(session, "w", "ftjob", [], timedelta(seconds=5)) is None
        finally:
            await app.close()
            await worker.close()
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.execute(f"DROP OWNED BY {name}")
        await connection.execute(f"DROP ROLE {name}")
        await connection.close()


async def test_an_owner_who_may_not_create_roles_is_told_the_sql(database_url: str) -> None:
    name, password = f"poor_{SUFFIX}", secrets.token_hex(8)
    connection = await admin(database_url)
    await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    await connection.execute(f"CREATE DATABASE {name} OWNER {name}")
    url = re.sub(r"//[^@]*@/[^/?]+\?", f"//{name}:{password}@/{name}?", database_url)
    try:
        with pytest.raises(DatabaseUnusable) as refused:
            await migrations.upgrade(url)
        assert "GRANT luthier_app" in str(refused.value)
        assert password not in str(refused.value)
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.execute(f"DROP ROLE {name}")
        await connection.close()
