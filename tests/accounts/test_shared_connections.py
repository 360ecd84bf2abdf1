"""Tenants share the pool's connections, and nothing of one is left on them for the next."""

import asyncio
import random
from contextlib import suppress

from sqlalchemy import text

from app.core import ids
from app.core.database import Database


async def test_many_tenants_on_a_small_pool_never_see_each_other(database_url: str) -> None:
    """50 tasks of 10 tenants on three connections, many cancelled or failing in the middle."""
    small = Database(database_url, "luthier_app", 3)
    orgs = [ids.new(ids.ORGANIZATION) for _ in range(10)]
    names = "INSERT INTO organizations (id, name, slug, created_at) VALUES (:o, 'x', :o, now())"
    members = "INSERT INTO members VALUES (:o, 'm', 'x', 'member', now())"
    for org in orgs:
        async with small.transaction(org) as session:
            for statement in (names, members):
                await (await session.connection()).execute(text(statement), {"o": org})
    seen = text("SELECT array_agg(DISTINCT org_id) FROM members")
    setting = text("SELECT coalesce(current_setting('app.org_id', true), '')")
    chance = random.Random(11)
    reads = 0

    async def one(org: str | None) -> None:
        nonlocal reads
        if chance.random() < 0.2:
            async with small.engine.connect() as connection:
                assert await connection.scalar(setting) == ""
        async with small.transaction(org) as session:
            for _ in range(chance.randrange(1, 4)):
                found = await (await session.connection()).scalar(seen)
                assert found == (None if org is None else [org])
                reads += 1
                await asyncio.sleep(chance.random() / 200)
            if chance.random() < 0.2:
                raise KeyError

    async def repeat(number: int) -> None:
        while True:
            with suppress(KeyError):
                await one([*orgs, None][number % 11])

    tasks = [asyncio.create_task(repeat(n)) for n in range(50)]
    loop = asyncio.get_running_loop()
    end = loop.time() + 4
    while loop.time() < end:
        await asyncio.sleep(0.02)
        number = chance.randrange(50)
        tasks[number].cancel()
        with suppress(asyncio.CancelledError):
            await tasks[number]
        tasks[number] = asyncio.create_task(repeat(number))
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes
    assert reads > 50  # a busy machine does fewer, never none
    pooled = [await small.engine.connect() for _ in range(3)]
    assert [await connection.scalar(setting) for connection in pooled] == [""] * 3
    for connection in pooled:
        await connection.close()
    await small.close()
