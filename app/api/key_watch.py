"""A key's rights end with the key, also on open connections: looked at again on a timer."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from app.api import authentication
from app.api.graphql.context import Services
from app.core.actor import Actor
from app.core.database import outage
from app.core.errors import Unauthenticated

log = logging.getLogger(__name__)

_EVERY = 3.0

Told = Callable[[Unauthenticated], None]


@dataclass
class _Watched:
    actor: Actor
    told: set[Told] = field(default_factory=set)


class KeyWatch:
    """One look per key and interval, however many connections it has."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._keys: dict[str, _Watched] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, key: str, actor: Actor, told: Told) -> None:
        """Call `told`, once, when the key is revoked, has expired, or has lost rights."""
        self._keys.setdefault(key, _Watched(actor)).told.add(told)
        if self._task is None:
            self._task = asyncio.create_task(self._look(), name="key-watch")

    def remove(self, key: str, told: Told) -> None:
        watched = self._keys.get(key)
        if watched is None:
            return
        watched.told.discard(told)
        if not watched.told:
            del self._keys[key]

    def stop(self) -> None:
        if self._task:
            self._task.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            for key, watched in list(self._keys.items()):
                try:
                    await self._check(key, watched)
                except Unauthenticated as refused:
                    for told in list(watched.told):
                        told(refused)
                    self._keys.pop(key, None)
                except Exception as trouble:
                    if outage(trouble):
                        log.warning("keys cannot be looked at now: %s", trouble)
                        break
                    log.error("a key cannot be looked at", exc_info=trouble)

    async def _check(self, key: str, watched: _Watched) -> None:
        now = await authentication.verified(self._services, key, "")
        if now.role != watched.actor.role:
            raise Unauthenticated("The member's role has changed. Connect again.")
