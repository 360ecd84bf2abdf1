"""One client: its key, the wire to it, and what it watches, whatever protocol it speaks."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from app.api.graphql.live import wire as limits
from app.api.graphql.live.plans import Request
from app.core.actor import Actor
from app.core.errors import AppError

if TYPE_CHECKING:
    from app.api.graphql.live.engine import Live
    from app.api.graphql.live.execution import Execution


class Viewer:
    """A subscription of one connection: a member of an execution, or, while the connection takes
    nothing, the position after which it goes on."""

    __slots__ = ("connection", "execution", "id", "key", "position", "prefix", "request", "wire")

    def __init__(
        self, connection: "Connection", request: Request, id: str = "", prefix: bytes = b""
    ) -> None:
        self.connection, self.request, self.id, self.prefix = connection, request, id, prefix
        self.wire = connection.wire
        self.key: Hashable | None = None
        self.position: int | None = None
        self.execution: Execution | None = None

    def cancel(self) -> None:
        self.connection.stalled.discard(self)
        if self.execution:
            self.execution.leave(self)

    def stall(self, position: int | None) -> None:
        """The connection is full: go on after this position when it has drained."""
        self.position, self.execution = position, None
        self.connection.stalled.add(self)

    def complete(self) -> None:
        self.execution = None
        self.connection.completed(self)

    def refuse(self, errors: list[Any]) -> None:
        self.execution = None
        self.connection.refused(self, errors)


class Connection(ABC):
    __slots__ = ("_key", "_stalling", "actor", "closed", "live", "stalled", "wire")

    def __init__(self, live: "Live", wire: limits.Wire) -> None:
        self.live, self.wire = live, wire
        self.actor: Actor
        self.closed = False
        self.stalled: set[Viewer] = set()
        self._key: str | None = None
        self._stalling: asyncio.TimerHandle | None = None
        live.connections.add(self)

    def admit(self, key: str, actor: Actor) -> None:
        """From now on it acts for this key's actor, until the key ends. Raises Limited when the
        key has as many connections as it may."""
        self.live.limits.connections.take(actor.key_id)
        self._key, self.actor = key, actor
        self.live.key_watch.add(key, actor, self.expel)

    # What the wire says

    def filled(self) -> None:
        """The wire is full: it has some time to change that."""
        self._stop_stalling()
        self._stalling = asyncio.get_running_loop().call_later(limits.STALLED, self.wire.abort)

    def drained(self) -> None:
        """The wire is no longer full."""
        self._stop_stalling()
        stalled, self.stalled = self.stalled, set()
        for viewer in stalled:
            self.live.begin(viewer, viewer.position)

    def lost(self) -> None:
        """It is over, whoever ended it."""
        self.closed = True
        self._stop_stalling()
        self.live.connections.discard(self)
        key, self._key = self._key, None
        if key:
            self.live.key_watch.remove(key, self.expel)
            self.live.limits.connections.leave(self.actor.key_id)

    def _stop_stalling(self) -> None:
        if self._stalling:
            self._stalling.cancel()
            self._stalling = None

    # What viewers and the key say

    @abstractmethod
    def tell(self, viewer: Viewer, payload: bytes) -> None:
        """The one result of what is no subscription."""

    @abstractmethod
    def completed(self, viewer: Viewer) -> None: ...

    @abstractmethod
    def refused(self, viewer: Viewer, errors: list[Any]) -> None: ...

    @abstractmethod
    def expel(self, refusal: AppError) -> None:
        """The key is no longer good."""

    @abstractmethod
    def drain(self) -> None:
        """The server stops, and the client should look for another."""
