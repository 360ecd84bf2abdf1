"""The one way to Postgres: a transaction of one tenant, and what happens after its commit.

Row-level security separates the tenants: every transaction names its organization in
`app.org_id` with SET LOCAL (which cannot leak into the pool's next user), and runs under a role
that owns nothing and cannot bypass the policies.
"""

import errno
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import asyncpg
import orjson
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel.ext.asyncio.session import AsyncSession

ServiceRole = Literal["luthier_app", "luthier_worker"]

_ID = re.compile(r"[A-Za-z0-9_-]{0,64}")
_RESTED = 1.0
_NO_TEXT = "22021"  # character_not_in_repertoire

# asyncpg reports a server that died in mid-query as InternalClientError, which is no PostgresError.
CONNECTION_ERRORS = (
    asyncpg.InternalClientError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    OSError,
    TimeoutError,
)

_OF_FILES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def outage(error: BaseException) -> bool:
    """Whether the database could not be reached, rather than refusing what it was asked."""
    if isinstance(error, OSError) and (error.filename or error.errno in _OF_FILES):
        return False  # a file's: an OSError too
    if isinstance(error, DBAPIError):
        cause = error.orig.__cause__ if error.orig else None
        return error.connection_invalidated or isinstance(cause, CONNECTION_ERRORS)
    return isinstance(error, (*CONNECTION_ERRORS, PoolTimeout))


_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def refuses_text(error: BaseException) -> bool:
    """Whether Postgres refused a text for the one character that it cannot hold, U+0000."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _NO_TEXT


def json_text(value: object) -> str:
    """JSON for a jsonb column. NaN and infinity become null; NUL, which it refuses, U+FFFD."""
    encoded = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    return _NUL.sub(r"\1\\ufffd", encoded) if "\\u0000" in encoded else encoded


class TenantConnection(asyncpg.Connection):
    """Begins a transaction and names its organization in one round trip instead of two."""

    __slots__ = ("_naming",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._naming = ""

    def name(self, org_id: str | None) -> None:
        """For the next BEGIN alone. Without an organization no tenant's row is visible."""
        # A simple query holds several statements but no parameters.
        if org_id is not None and not _ID.fullmatch(org_id):
            raise ValueError("this is no organization's id")
        self._naming = (
            "" if org_id is None else f" SELECT set_config('app.org_id', '{org_id}', true);"
        )

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        if self._naming and query.startswith("BEGIN"):
            query, self._naming = query + self._naming, ""
        return await super().execute(query, *args, timeout=timeout)


def _check_idle(engine: AsyncEngine) -> None:
    """Ask a pooled connection whether it lives when it has rested for a while.

    SQLAlchemy's own pre-ping asks each time, with two round trips that cost more than a small
    query. One that died in between is known to be closed without asking.
    """

    @event.listens_for(engine.sync_engine, "checkin")
    def rest(_: object, record: ConnectionPoolEntry) -> None:
        record.info["rested_at"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def wake(connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        rested_at = record.info.get("rested_at")
        connection.driver_connection.name(None)
        if connection.driver_connection.is_closed():
            raise DisconnectionError("the server closed this connection")
        if rested_at is not None and time.monotonic() - rested_at > _RESTED:
            try:
                connection.ping()
            except Exception as dead:
                raise DisconnectionError("this connection does not answer") from dead


class Database:
    def __init__(self, url: str, role: ServiceRole, pool_size: int = 10) -> None:
        """`url` is the owner's; every connection takes `role` from its first moment."""
        self.engine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=10,
            hide_parameters=True,  # customers' data and hashes have no place in logs
            json_serializer=json_text,
            json_deserializer=orjson.loads,
            connect_args={
                "connection_class": TenantConnection,
                "timeout": 5,
                "command_timeout": 30,
                "server_settings": {
                    "role": role,
                    "application_name": role,
                    "statement_timeout": "30000",
                    "idle_in_transaction_session_timeout": "60000",
                },
            },
        )
        _check_idle(self.engine)
        self._sessions = async_sessionmaker(
            self.engine, class_=AsyncSession, expire_on_commit=False
        )
        self.after_commit: Callable[[frozenset[str]], None] = lambda streams: None

    @asynccontextmanager
    async def transaction(
        self, org_id: str | None, *, snapshot: bool = False
    ) -> AsyncIterator[AsyncSession]:
        """Commit on a clean exit, else roll back; after the commit ring for the streams written.

        Without an organization no tenant's row is visible. With `snapshot` every statement sees
        the same moment: for reads that must agree, such as rows and a position in their stream.
        """
        isolation = {"isolation_level": "REPEATABLE READ"} if snapshot else None
        async with self._sessions() as session:
            async with session.begin():
                connection = await session.connection(execution_options=isolation)
                raw = await connection.get_raw_connection()
                driver: Any = raw.driver_connection
                driver.name(org_id)  # sent with the BEGIN, before the first statement
                yield session
            if rings := session.info.get("rings"):
                self.after_commit(frozenset(rings))

    async def close(self) -> None:
        await self.engine.dispose()
