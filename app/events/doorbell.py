"""The doorbell: after a commit, wake every process that has readers of the streams appended to.

Behind broadcaster's interface stand our own bells (bell.py says why). A ring carries stream ids
only and may be lost, late or repeated: the log is the truth.
"""

import asyncio
from collections.abc import Callable

from broadcaster import Broadcast
from broadcaster._backends.base import BroadcastBackend
from broadcaster._backends.memory import MemoryBackend

from app.core.errors import StartRefused
from app.events.bell import CHANNEL, GAP
from app.events.postgres_bell import PostgresBell

_RING_EVERY = 0.02
_PAYLOAD = 7_000  # Postgres refuses payloads of 8,000 bytes and more


class BroadcastRefused(StartRefused):
    """`LUTHIER_BROADCAST_URL` names what cannot carry rings here."""


class Doorbell:
    """Rings for this process's commits, and hears everybody's rings."""

    def __init__(self, url: str) -> None:
        """`url` is Postgres' or Redis', or `memory://` for a single process.

        Raises BroadcastRefused.
        """
        self._broadcast = Broadcast(backend=_bell(url))
        self._waiting: set[str] = set()
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[Callable[[frozenset[str] | None], None]] = []

    def on_ring(self, listener: Callable[[frozenset[str] | None], None]) -> None:
        """Call `listener` with the streams rung for, or None for "look at everything"."""
        self._listeners.append(listener)

    def ring(self, streams: frozenset[str]) -> None:
        """Wake the readers of these streams, at once and then at most every 20 ms."""
        self._waiting |= streams
        self._due.set()

    async def start(self) -> None:
        await self._broadcast.connect()
        self._tasks = [
            asyncio.create_task(self._send(), name="doorbell-send"),
            asyncio.create_task(self._receive(), name="doorbell-receive"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._broadcast.disconnect()

    async def _send(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            streams, self._waiting = self._waiting, set()
            for message in _packed(streams):
                await self._broadcast.publish(CHANNEL, message)
            await asyncio.sleep(_RING_EVERY)

    async def _receive(self) -> None:
        async with self._broadcast.subscribe(CHANNEL) as rings:
            async for ring in rings:
                streams = None if ring.message == GAP else frozenset(ring.message.split(","))
                for listener in self._listeners:
                    listener(streams)


def is_memory(url: str) -> bool:
    """Whether rings would stay within one process."""
    return url.startswith("memory:")


def _bell(url: str) -> BroadcastBackend:
    """No refusal quotes the URL, which may hold a password."""
    scheme = url.partition("://")[0].lower()
    if is_memory(url):
        return MemoryBackend(url)
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        return PostgresBell(url)
    if scheme not in ("redis", "rediss", "unix"):
        raise BroadcastRefused(
            "LUTHIER_BROADCAST_URL must begin with redis://, rediss://, unix://, postgresql:// or "
            "memory://. Leave it unset to use the database."
        )
    try:
        from app.events.redis_bell import RedisBell  # noqa: PLC0415 - an extra
    except ImportError as missing:
        raise BroadcastRefused(
            "LUTHIER_BROADCAST_URL names Redis, whose client is not installed: "
            "pip install 'redis>=8.1,<9'"
        ) from missing
    try:
        return RedisBell(url)
    except (ValueError, TypeError):
        raise BroadcastRefused(
            "LUTHIER_BROADCAST_URL cannot be read. It looks like redis://user:password@host:6379/0 "
            "and has / # ? @ : in the password percent-encoded."
        ) from None


def _packed(streams: set[str]) -> list[str]:
    messages: list[str] = []
    for stream in sorted(streams):
        if messages and len(messages[-1]) + len(stream) < _PAYLOAD:
            messages[-1] += f",{stream}"
        else:
            messages.append(stream)
    return messages
