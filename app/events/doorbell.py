"""The doorbell: after a commit, wake every process that has readers of the streams appended to.

Behind broadcaster's interface stand our own backends. Its Postgres backend shares one connection
between LISTEN and concurrent publishes and never notices that it was lost; ours listens on a
supervised connection, reconnects, and says "gap" so that every reader looks for itself. A ring
carries stream ids only and may be lost, late or repeated: the log is the truth.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any

import asyncpg
from broadcaster import Broadcast
from broadcaster._backends.base import BroadcastBackend
from broadcaster._base import Event as BroadcastEvent
from sqlalchemy.engine import make_url

from app.core.database import CONNECTION_ERRORS

log = logging.getLogger(__name__)

CHANNEL = "luthier"
GAP = "*"
_RING_EVERY = 0.02
_PROBE_EVERY = 5.0
_PAYLOAD = 7_000  # Postgres refuses payloads of 8,000 bytes and more


class PostgresBackend(BroadcastBackend):
    """LISTEN/NOTIFY on connections of its own, reconnecting with back-off."""

    def __init__(self, url: str) -> None:
        self._dsn = make_url(url).set(drivername="postgresql")
        self._heard: asyncio.Queue[BroadcastEvent] = asyncio.Queue(1024)
        self._listener: asyncio.Task[None] | None = None
        self._sender: asyncpg.Connection[Any] | None = None

    async def connect(self) -> None:
        self._listener = asyncio.create_task(self._listen(), name="doorbell-listener")

    async def disconnect(self) -> None:
        if self._listener:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        if self._sender:
            self._sender.terminate()

    async def subscribe(self, channel: str) -> None:
        """There is one fixed channel, listened to from the start."""

    async def unsubscribe(self, channel: str) -> None:
        """The listener stays: see subscribe."""

    async def publish(self, channel: str, message: str) -> None:
        if self._sender is None or self._sender.is_closed():
            self._sender = await self._open()
        try:
            await self._sender.execute("SELECT pg_notify($1, $2)", channel, message, timeout=5)
        except BaseException:
            self._sender.terminate()
            raise

    async def next_published(self) -> BroadcastEvent:
        return await self._heard.get()

    async def _open(self) -> "asyncpg.Connection[Any]":
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            self._dsn.render_as_string(hide_password=False),
            timeout=5,
            server_settings={"application_name": "luthier_doorbell"},
        )
        return connection

    def _hear(self, message: str) -> None:
        try:
            self._heard.put_nowait(BroadcastEvent(channel=CHANNEL, message=message))
        except asyncio.QueueFull:  # somebody is far behind: one "gap" says it all
            self._heard.get_nowait()
            self._heard.put_nowait(BroadcastEvent(channel=CHANNEL, message=GAP))

    async def _listen(self) -> None:
        delay = 0.05
        while True:
            lost = asyncio.Event()
            connection: asyncpg.Connection[Any] | None = None
            try:
                connection = await self._open()
                connection.add_termination_listener(lambda _, lost=lost: lost.set())
                await connection.add_listener(CHANNEL, lambda *ring: self._hear(str(ring[3])))
                self._hear(GAP)
                delay = 0.05
                while not lost.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_PROBE_EVERY):
                            await lost.wait()
                    if not lost.is_set():  # a half-open connection fires no termination
                        await connection.execute("SELECT 1", timeout=5)
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as trouble:
                log.warning("doorbell lost its connection: %s", trouble)
            finally:
                if connection:
                    connection.terminate()
            await asyncio.sleep(delay * (0.5 + random.random()))  # noqa: S311 - jitter
            delay = min(5.0, delay * 2)


class Doorbell:
    """Rings for this process's commits, and hears everybody's rings."""

    def __init__(self, url: str) -> None:
        """`url` is the database's, or `memory://` for a single process."""
        self._broadcast = (
            Broadcast("memory://")
            if url.startswith("memory:")
            else Broadcast(backend=PostgresBackend(url))
        )
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
                try:
                    await self._broadcast.publish(CHANNEL, message)
                except (*CONNECTION_ERRORS, asyncpg.PostgresError) as trouble:
                    # The readers' safety poll covers it: a lost ring costs latency only.
                    log.warning("a ring was lost: %s", trouble)
            await asyncio.sleep(_RING_EVERY)

    async def _receive(self) -> None:
        async with self._broadcast.subscribe(CHANNEL) as rings:
            async for ring in rings:
                streams = None if ring.message == GAP else frozenset(ring.message.split(","))
                for listener in self._listeners:
                    listener(streams)


def _packed(streams: set[str]) -> list[str]:
    messages: list[str] = []
    for stream in sorted(streams):
        if messages and len(messages[-1]) + len(stream) < _PAYLOAD:
            messages[-1] += f",{stream}"
        else:
            messages.append(stream)
    return messages
