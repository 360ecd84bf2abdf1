"""Keys that many ask about at once are looked up once; what has changed meanwhile is asked anew."""

import asyncio

import pytest

from app.accounts.errors import KeyUnknown
from app.api.key_cache import KeyCache
from app.core.actor import Actor, Role

ACTOR = Actor("org_1", "proj_1", "mem_1", "key_1", Role.OWNER, frozenset())


class Register:
    def __init__(self, *, refuses: bool = False) -> None:
        self.asked = 0
        self.open = asyncio.Event()
        self._refuses = refuses

    async def find(self) -> Actor:
        self.asked += 1
        await self.open.wait()
        if self._refuses:
            raise KeyUnknown("no such key")
        return ACTOR


async def test_a_thousand_at_once_cost_one_look() -> None:
    cache, register = KeyCache(), Register()
    asking = [asyncio.create_task(cache.ask("d", register.find)) for _ in range(1_000)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the others are not let down
    register.open.set()
    assert await asyncio.gather(*asking[1:]) == [ACTOR] * 999
    assert register.asked == 1
    assert cache.get("d") is ACTOR


async def test_a_refusal_is_everybodys_and_is_not_kept() -> None:
    cache, register = KeyCache(), Register(refuses=True)
    register.open.set()
    for round in (1, 2):
        asking = [cache.ask("d", register.find) for _ in range(9)]
        told = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(one) for one in told} == {KeyUnknown}
        assert register.asked == round
    assert cache.get("d") is None


@pytest.mark.parametrize("change", ["drop", "forget"])
async def test_an_answer_from_before_a_change_is_not_kept(change: str) -> None:
    cache, register = KeyCache(), Register()
    before = asyncio.create_task(cache.ask("d", register.find))
    await asyncio.sleep(0)
    if change == "drop":
        cache.drop("d")
    else:
        cache.forget(ACTOR.org_id)
    after = asyncio.create_task(cache.ask("d", Register(refuses=False).find))
    register.open.set()
    assert await before is ACTOR
    assert cache.get("d") is None
    after.cancel()
