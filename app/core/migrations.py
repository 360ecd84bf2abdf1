"""Bringing the schema up to date, once, whoever starts first."""

from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app.core.errors import StartRefused

OLDEST_SERVER = 15
_LOCK = 7_361_902_744  # any constant: replicas that start together take turns on it

ROLES_SQL = """\
CREATE ROLE luthier_app NOLOGIN;
CREATE ROLE luthier_worker NOLOGIN;
CREATE ROLE luthier_doors NOLOGIN;
GRANT luthier_app, luthier_worker, luthier_doors TO CURRENT_USER;
"""


class DatabaseUnusable(StartRefused):
    """The server is too old, or a right is missing; the message says what to do."""


def _config() -> Config:
    root = Path(__file__).resolve().parents[2]
    config = Config()
    folder = root / "migrations"
    if not folder.exists():  # an installed wheel carries them inside the package
        folder = root / "app" / "migrations"
    config.set_main_option("script_location", str(folder))
    return config


async def _on_owner(url: str, work: Any) -> Any:
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            version = await connection.scalar(text("SHOW server_version_num"))
            if int(version) // 10_000 < OLDEST_SERVER:
                raise DatabaseUnusable(
                    f"Postgres {int(version) // 10_000} is too old; Luthier needs "
                    f"{OLDEST_SERVER} or newer."
                )
            await connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": _LOCK})
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def _ensure_roles(connection: Connection) -> None:
    have = connection.scalar(text("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'luthier\\_%'"))
    if have >= 3:
        return
    may = connection.scalar(
        text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    )
    if not may:
        raise DatabaseUnusable(
            "This database user may not create roles. Ask an administrator to run, "
            f"connected as a superuser, once:\n\n{ROLES_SQL}"
            f"\n(with the user's name in place of CURRENT_USER)"
        )
    for statement in filter(str.strip, ROLES_SQL.split(";")):
        connection.execute(text(statement))


async def upgrade(url: str) -> None:
    """Create what is missing. Safe to call from many processes at once."""

    def work(connection: Connection) -> None:
        _ensure_roles(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    try:
        await _on_owner(url, work)
    except asyncpg.InsufficientPrivilegeError as refusal:
        raise DatabaseUnusable(f"Postgres refused: {refusal}") from refusal


async def run(url: str, name: str, *arguments: Any, **options: Any) -> None:
    """Any Alembic command (`check`, `downgrade`, `revision`) on the owner's connection."""

    def work(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        getattr(command, name)(config, *arguments, **options)

    await _on_owner(url, work)
