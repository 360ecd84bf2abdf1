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

ROLES = ("luthier_app", "luthier_worker", "luthier_doors")


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
    """Create the service's roles and let the owner take them, as far as that is not done."""
    known = set(
        connection.scalars(
            text("SELECT rolname FROM pg_roles WHERE rolname = ANY(CAST(:roles AS text[]))"),
            {"roles": list(ROLES)},
        )
    )
    taken = known and connection.scalar(
        text(
            "SELECT bool_and(pg_has_role(current_user, role, 'MEMBER'))"
            " FROM unnest(CAST(:roles AS text[])) role"
        ),
        {"roles": list(known)},
    )
    if len(known) == len(ROLES) and taken:
        return
    needed = [f"CREATE ROLE {role} NOLOGIN" for role in ROLES if role not in known]
    needed.append(f"GRANT {', '.join(ROLES)} TO CURRENT_USER")
    may = connection.scalar(
        text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    )
    if not may:
        me = connection.scalar(text("SELECT quote_ident(current_user)"))
        statements = ";\n".join(needed).replace("CURRENT_USER", str(me))
        raise DatabaseUnusable(
            "This database user lacks roles that only an administrator can give. Ask one to run, "
            f"once:\n\n{statements};\n"
        )
    for statement in needed:
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
