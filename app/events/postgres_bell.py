"""Rings by LISTEN and NOTIFY, on two connections of the process's own."""

import asyncio
import contextlib
from typing import Any

import asyncpg
from sqlalchemy.engine import make_url

from app.core.database import CONNECTION_ERRORS
from app.events.bell import ANSWER_WITHIN, CHANNEL, PROBE_EVERY, Bell


class PostgresBell(Bell):
    server = "Postgres"
    troubles = (*CONNECTION_ERRORS, asyncpg.PostgresError)

    def __init__(self, url: str) -> None:
        super().__init__()
        self._dsn = make_url(url).set(drivername="postgresql")
        self._sender: asyncpg.Connection[Any] | None = None

    async def _listen(self) -> None:
        connection = await self._open()
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, lambda *ring: self._hear(str(ring[3])))
            self._joined()
            while not lost.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_EVERY):
                        await lost.wait()
                if not lost.is_set():  # a half-open connection fires no termination
                    await connection.execute("SELECT 1", timeout=ANSWER_WITHIN)
            raise ConnectionResetError("the server closed the connection")
        finally:
            connection.terminate()

    async def _ring(self, message: str) -> None:
        if self._sender is None or self._sender.is_closed():
            self._sender = await self._open()
        try:
            await self._sender.execute("SELECT pg_notify($1, $2)", CHANNEL, message)
        except BaseException:
            self._sender.terminate()
            raise

    async def _hang_up(self) -> None:
        if self._sender:
            self._sender.terminate()

    async def _open(self) -> "asyncpg.Connection[Any]":
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            self._dsn.render_as_string(hide_password=False),
            timeout=ANSWER_WITHIN,
            server_settings={"application_name": "luthier_doorbell"},
        )
        return connection
