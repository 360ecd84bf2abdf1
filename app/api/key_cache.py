"""Keys that were verified a moment ago are not looked up again.

A revoked key works for at most that moment in other processes, and not at all in the one that
revoked it. Raw keys are not held: an entry is found by the key's keyed hash.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from app.core import clock
from app.core.actor import Actor
from app.core.errors import Unauthenticated

_WHILE = timedelta(seconds=2)
_MOST = 10_000


class KeyCache:
    def __init__(self) -> None:
        self._actors: OrderedDict[str, tuple[datetime, Actor]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Actor]] = {}

    def get(self, digest: str) -> Actor | None:
        found = self._actors.get(digest)
        now = clock.now()
        # Also a clock that was set back must not let a key live on.
        if found is None or not timedelta() <= now - found[0] <= _WHILE:
            return None
        expires_at = found[1].expires_at
        return None if expires_at is not None and expires_at <= now else found[1]

    async def ask(self, digest: str, find: Callable[[], Coroutine[Any, Any, Actor]]) -> Actor:
        """What `find` says, remembered for a moment. Who asks meanwhile gets the same answer: a
        thousand viewers who come back at once cost one query."""
        asking = self._asking.get(digest)
        if asking is None:
            asking = self._asking[digest] = asyncio.create_task(find(), name="key-lookup")
            asking.add_done_callback(partial(self._answered, digest))
        return await asyncio.shield(asking)

    def _answered(self, digest: str, asked: "asyncio.Task[Actor]") -> None:
        trouble = None if asked.cancelled() else asked.exception()
        if self._asking.get(digest) is not asked:
            return  # something has changed since the question
        del self._asking[digest]
        if isinstance(trouble, Unauthenticated):
            self.drop(digest)
        elif trouble is None and not asked.cancelled():
            self._put(digest, asked.result())

    def _put(self, digest: str, actor: Actor) -> None:
        self._actors[digest] = (clock.now(), actor)
        self._actors.move_to_end(digest)
        if len(self._actors) > _MOST:
            self._actors.popitem(last=False)

    def drop(self, digest: str) -> None:
        self._actors.pop(digest, None)
        self._asking.pop(digest, None)

    def forget(self, org_id: str) -> None:
        """Something about the organization's keys or members has changed here."""
        for digest in [d for d, (_, actor) in self._actors.items() if actor.org_id == org_id]:
            del self._actors[digest]
        self._asking.clear()
