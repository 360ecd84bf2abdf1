"""The embedded Postgres, really started, attached to, and killed."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import asyncpg
import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app.core.postgres import (
    EmbeddedPostgres,
)
from app.core.postgres_programs import Account
from tests.core.postgres.support import (
    Owner,
    ask,
    postmaster,
    servers,
    until,
)


def test_a_first_start_makes_everything(home: Path) -> None:
    data_dir = home / "new"
    server = EmbeddedPostgres(data_dir)
    try:
        assert server.start() is True
        assert server.start() is True  # it runs already
        assert ask(server, "SELECT current_database() || ' ' || current_user") == "luthier luthier"
        assert ask(server, "SHOW server_encoding") == "UTF8"
        assert ask(server, "SELECT upper('ä')") == "Ä"
        assert ask(server, "SHOW listen_addresses") == ""
        assert ask(server, "SHOW synchronous_commit") == "on"
        assert ask(server, "SHOW fsync") == "on"
        assert ask(server, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method LIKE 'scram%'")
        assert not ask(
            server, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method NOT LIKE 'scram%'"
        )
        for private in ("postgres.password", "postgres.lock", "postgres.log"):
            assert stat.S_IMODE((data_dir / private).stat().st_mode) == 0o600
        assert stat.S_IMODE((data_dir / "postgres").stat().st_mode) == 0o700
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        password = (data_dir / "postgres.password").read_text()
        assert len(password) > 30
        assert password not in (data_dir / "postgres.log").read_text()
        assert not list(data_dir.glob("postgres.init-*"))
        started = postmaster(data_dir)
        assert not psutil.Process(started).net_connections("tcp")
        assert password not in str(psutil.Process(started).environ())
        assert "LUTHIER" not in str(psutil.Process(started).environ())
        with pytest.raises(asyncpg.InvalidPasswordError):
            asyncio.run(asyncpg.connect(server.url.replace(password, "guess")))
    finally:
        server.stop()
    server.stop()
    assert not psutil.pid_exists(started)


async def test_the_url_serves_sqlalchemy_and_start_works_beside_a_loop(
    server: EmbeddedPostgres,
) -> None:
    assert server.start() is True
    engine = create_async_engine(make_url(server.url).set(drivername="postgresql+asyncpg"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT answer FROM kept")) == 42
    await engine.dispose()


def test_a_second_process_attaches_and_leaves_without_harm(
    server: EmbeddedPostgres, data_dir: Path
) -> None:
    assert server.start() is True
    other = Owner(data_dir)
    assert other.answer() == "False"
    other.leave()
    assert ask(server, "SELECT answer FROM kept") == 42


def test_of_two_first_starts_at_once_one_owns_and_both_are_served(home: Path) -> None:
    first, second = Owner(home / "new"), Owner(home / "new")
    assert sorted([first.answer(), second.answer()]) == ["False", "True"]
    first.leave()
    second.leave()
    assert not servers(home / "new")


def test_a_killed_owner_takes_the_server_down_cleanly_and_the_next_one_serves(
    server: EmbeddedPostgres, data_dir: Path
) -> None:
    owner = Owner(data_dir)
    assert owner.answer() == "True"
    ask(server, "CREATE TABLE later AS SELECT 7 AS answer")
    owner.kill()
    if sys.platform == "linux":
        until(lambda: not servers(data_dir), 5)
        assert "database system is shut down" in (data_dir / "postgres.log").read_text()
    assert server.start() is True
    assert ask(server, "SELECT answer FROM later") == 7


def test_an_owner_that_follows_at_once_waits_for_the_orphan(
    server: EmbeddedPostgres, data_dir: Path
) -> None:
    owner = Owner(data_dir)
    assert owner.answer() == "True"
    orphan = postmaster(data_dir)
    os.kill(orphan, signal.SIGSTOP)  # it outlives its owner, as where the kernel sends no signal
    owner.kill()
    threading.Timer(1, os.kill, (orphan, signal.SIGCONT)).start()
    assert server.start() is True
    assert postmaster(data_dir) != orphan
    assert ask(server, "SELECT answer FROM kept") == 42


def test_a_killed_postmaster_is_started_again_by_the_owner(
    server: EmbeddedPostgres, data_dir: Path
) -> None:
    server.start()
    ask(server, "CREATE TABLE later AS SELECT 7 AS answer")
    before = postmaster(data_dir)
    os.kill(before, signal.SIGKILL)
    time.sleep(0.1)
    assert server.start() is True  # waits until it answers again
    assert ask(server, "SELECT answer FROM later") == 7
    assert postmaster(data_dir) != before


def test_a_recycled_number_in_the_pid_file_does_not_block(
    server: EmbeddedPostgres, data_dir: Path
) -> None:
    owner = Owner(data_dir)
    assert owner.answer() == "True"
    os.kill(postmaster(data_dir), signal.SIGKILL)
    owner.kill()
    account = Account.of(data_dir / "postgres")  # the same uid: else Postgres would not care
    stranger = subprocess.Popen(["sleep", "60"], **account.popen)
    try:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            stale = data_dir / "postgres" / name
            lines = stale.read_text().split("\n")
            stale.write_text("\n".join([str(stranger.pid), *lines[1:]]))
        assert server.start() is True
        assert ask(server, "SELECT answer FROM kept") == 42
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_first_start_killed_in_the_middle_is_done_again(home: Path) -> None:
    data_dir = home / "new"
    owner = Owner(data_dir)
    until(lambda: any(data_dir.glob("postgres.init-*/data/pg_wal")))
    helpers = psutil.Process(owner.process.pid).children(recursive=True)
    owner.kill()
    assert not (data_dir / "postgres").exists()
    if sys.platform == "linux":
        assert not psutil.wait_procs(helpers, 5)[1]  # initdb does not go on without its owner
    server = EmbeddedPostgres(data_dir, fsync=False)
    try:
        assert server.start() is True
        assert ask(server, "SELECT 1") == 1
        assert not list(data_dir.glob("postgres.init-*"))
    finally:
        server.stop()
