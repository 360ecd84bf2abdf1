"""The one way to Postgres: a transaction of one tenant, and what happens after its commit.

Row-level security separates the tenants: every transaction names its organization in
`app.org_id` with SET LOCAL (which cannot leak into the pool's next user), and runs under a role
that owns nothing and cannot bypass the policies.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import asyncpg
import orjson
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

ServiceRole = Literal["luthier_app", "luthier_worker"]

_TENANT = text("SELECT set_config('app.org_id', :org_id, true)")
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


def outage(error: BaseException) -> bool:
    """Whether the database could not be reached, rather than refusing what it was asked."""
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


class Database:
    def __init__(self, url: str, role: ServiceRole, pool_size: int = 10) -> None:
        """`url` is the owner's; every connection takes `role` from its first moment."""
        self.engine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=10,
            pool_pre_ping=True,
            hide_parameters=True,  # customers' data and hashes have no place in logs
            json_serializer=json_text,
            json_deserializer=orjson.loads,
            connect_args={
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
                if org_id is not None:
                    await connection.execute(_TENANT, {"org_id": org_id})
                yield session
            if rings := session.info.get("rings"):
                self.after_commit(frozenset(rings))

    async def close(self) -> None:
        await self.engine.dispose()
