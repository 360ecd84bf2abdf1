"""The embedded Postgres: made at the first start, owned by one process, used by many.

What lies in the data folder:
    postgres/            the cluster, with its socket in it; belongs to the account that runs it
    postgres.password    the superuser's; not in the cluster, so that it survives a dump and restore
    postgres.lock        who holds its flock owns the server; the kernel lets go when the owner dies
    postgres.log         what the server says; at 8 MiB it becomes postgres.log.1

As a program it lends the server to a command, which is how data moves to another major version:
    python -m app.core.postgres [--bin FOLDER] DATA_DIR COMMAND…
"""

import argparse
import asyncio
import atexit
import fcntl
import hashlib
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil

from app.core.postgres_cluster import PORT, ROLE, SOCKET, Cluster
from app.core.postgres_programs import (
    OWN_SERVER,
    Account,
    FolderInUse,
    NotPermitted,
    OtherMajor,
    PostgresError,
    ProgramsNotFound,
    ServerTooOld,
    StartFailed,
    UnknownAccount,
    find_binaries,
    runnable,
)

__all__ = [
    "EmbeddedPostgres", "FolderInUse", "NotPermitted", "OtherMajor", "PostgresError",
    "ProgramsNotFound", "ServerTooOld", "StartFailed", "UnknownAccount", "find_binaries",
]  # fmt: skip

log = logging.getLogger(__name__)

_DATABASE = "luthier"
_NO_ANSWER = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class EmbeddedPostgres:
    """The Postgres of one data directory, started by one owner process, used by many.

    `start` and `stop` block. The owner restarts a server that died. A server ends with its owner:
    on Linux at once and cleanly, elsewhere when the next owner finds it. A process that owns one
    must not `fork` without `exec`: the child would keep the lock.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        binaries: Path | None = None,
        fsync: bool = True,
        start_timeout: float = 60,
    ) -> None:
        """`binaries` is LUTHIER_PG_BIN. Without `fsync` a crash of the machine loses the data."""
        self._data_dir = data_dir.resolve()
        self._preferred = binaries
        self._fsync = fsync
        self._start_timeout = start_timeout
        self._folder = self._data_dir / "postgres"
        self._password_file = self._data_dir / "postgres.password"
        self._log_file = self._data_dir / "postgres.log"
        self._lock: int | None = None
        self._owner = 0
        self._keeper: threading.Thread | None = None
        self._failure: Exception | None = None
        self._spawned = threading.Event()
        self._served = threading.Event()
        self._stopping = threading.Event()
        self._guard = threading.RLock()

    @property
    def socket_dir(self) -> Path:
        """The cluster; or, where its path is too long for a socket's address, a folder in /tmp."""
        path = str(self._folder)
        # asyncpg takes a comma for a list of hosts.
        if len(os.fsencode(f"{path}/{SOCKET}")) <= 100 and "," not in path:
            return self._folder
        # Every process must come to the same folder, and TMPDIR may differ between them.
        common = Path("/tmp")  # noqa: S108
        base = common if os.access(common, os.W_OK) else Path(tempfile.gettempdir())
        return base / f"luthier-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"

    @property
    def url(self) -> str:
        """The superuser's, who owns the database. It holds the password; valid after a `start`."""
        password = self._password_file.read_text()
        folder = quote(str(self.socket_dir))
        return f"postgresql://{ROLE}:{password}@/{_DATABASE}?host={folder}&port={PORT}"

    def start(self) -> bool:
        """True: it runs and we own it. False: another live process owns it, and it answers us."""
        with self._guard:
            try:
                return self._start(time.monotonic() + self._start_timeout)
            except OSError as error:
                self.stop()
                kind = NotPermitted if isinstance(error, PermissionError) else StartFailed
                raise kind(
                    f"Cannot use {self._data_dir} for Postgres: {error}. Luthier must be able to "
                    "write there and, as root, to start programs as another user. Choose another "
                    f"LUTHIER_DATA_DIR, run Luthier as an ordinary user, {OWN_SERVER}."
                ) from error
            except BaseException:
                self.stop()
                raise

    def _start(self, deadline: float) -> bool:
        while self._lock is None and not self._take_lock():
            if self._password_file.exists() and self._answers():
                return False
            self._pause(0.1, deadline)
        if self._keeper is None:
            cluster = self._prepare()
            self._failure = None
            for event in (self._spawned, self._served, self._stopping):
                event.clear()
            self._keeper = threading.Thread(
                target=self._keep, args=(cluster,), name="postgres", daemon=True
            )
            self._keeper.start()
            atexit.register(self.stop)
        # Before ours is spawned, an orphan might answer that is about to end.
        while not (self._spawned.is_set() and self._answers(create=True)):
            if not self._keeper.is_alive():
                raise self._failure or StartFailed(f"Postgres did not start. {self._log_tail()}")
            self._pause(0.02, deadline)
        self._served.set()
        return True

    def stop(self) -> None:
        """Ends a server we own, fast: open transactions are rolled back. Idempotent."""
        with self._guard:
            if self._lock is None or self._owner != os.getpid():
                return
            if self._keeper is not None:
                self._stopping.set()
                self._keeper.join()
                self._keeper = None
            os.close(self._lock)
            self._lock = None
            atexit.unregister(self.stop)

    def _pause(self, seconds: float, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise StartFailed(
                f"Postgres did not answer within {self._start_timeout:g} s. {self._log_tail()}"
            )
        time.sleep(seconds)

    def _log_tail(self) -> str:
        with suppress(OSError):
            lines = self._log_file.read_text(errors="replace").splitlines()[-20:]
            return "\n".join([f"The end of {self._log_file}:", *lines])
        return f"There is no {self._log_file}."

    def _take_lock(self) -> bool:
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._data_dir / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if not isinstance(error, BlockingIOError):
                raise
            return False
        self._lock, self._owner = lock, os.getpid()
        return True

    def _answers(self, create: bool = False) -> bool:
        """Whether our database can be asked; makes it if told to."""

        async def ask(url: str) -> None:
            try:
                connection = await asyncpg.connect(url, timeout=5)
            except asyncpg.InvalidCatalogNameError:
                if not create:
                    raise
                connection = await asyncpg.connect(url, timeout=5, database="postgres")
                await connection.execute(f"CREATE DATABASE {_DATABASE}")
            await connection.execute("SELECT 1")
            await connection.close(timeout=5)

        coroutine = ask(self.url)
        with ThreadPoolExecutor(1) as thread:  # the caller's own thread may run a loop already
            try:
                thread.submit(asyncio.run, coroutine).result()
            except asyncpg.InvalidPasswordError as error:
                raise StartFailed(
                    f"Postgres refuses the password in {self._password_file}. Bring back the file "
                    f"that belongs to {self._folder}; or delete it, and the next start sets a new "
                    "password."
                ) from error
            except asyncpg.ClientConfigurationError as error:  # PGSSLMODE without its certificate
                raise StartFailed(f"Unset the PG… variables of the environment: {error}") from error
            except _NO_ANSWER:
                return False
        return True

    def _prepare(self) -> Cluster:
        with suppress(OSError):
            self._folder.rmdir()  # an empty one
        account = Account.of(self._folder)
        programs = runnable(find_binaries(self._preferred), account)
        sockets = self.socket_dir
        cluster = Cluster(self._folder, sockets, self._log_file, account, programs, self._fsync)
        is_new = not self._folder.exists()
        if not is_new:
            cluster.check_major()
        if not self._password_file.exists():
            password = secrets.token_urlsafe(32)
            if not is_new:
                cluster.reset_password(password)
            draft = self._password_file.with_suffix(".new")
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(password)
            draft.rename(self._password_file)
        if is_new:
            cluster.create(self._password_file.read_text())
        if sockets != self._folder:
            sockets.mkdir(mode=0o700, exist_ok=True)
            if sockets.lstat().st_uid not in (os.geteuid(), account.uid):
                raise FolderInUse(f"{sockets} belongs to somebody else. Have it removed.")
            account.give(sockets)
        return cluster

    def _keep(self, cluster: Cluster) -> None:
        """Runs the server, runs it again when it dies, and ends it.

        In a thread of its own, because the kernel ties a server to the thread that started it.
        """
        pause = 0.0
        while not self._stopping.wait(pause):
            started = time.monotonic()
            try:
                server = cluster.spawn()
                self._spawned.set()
            except (OSError, psutil.Error, PostgresError) as error:
                self._failure = error
                log.warning("Postgres cannot be started: %s", error)
            else:
                while server.poll() is None and not self._stopping.wait(0.5):
                    cluster.cut_log()
                if server.poll() is None:
                    postmaster = psutil.Process(server.pid)
                    cluster.end(postmaster, [postmaster])
                server.wait()
                if not self._stopping.is_set():
                    log.error("Postgres ended by itself, with status %s", server.returncode)
            if not self._served.is_set():
                return  # `start` is waiting, and says why
            pause = 0.1 if time.monotonic() - started > 60 else min(max(0.1, pause * 2), 30)


def main(arguments: list[str]) -> int:
    """Lends the server to a command, which finds it through the variables of libpq."""
    parser = argparse.ArgumentParser(prog="python -m app.core.postgres")
    parser.add_argument("--bin", type=Path, help="folder with the Postgres programs to use")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    server = EmbeddedPostgres(given.data_dir, binaries=given.bin)
    server.start()
    try:
        found = {"PGHOST": str(server.socket_dir), "PGPORT": str(PORT), "PGUSER": ROLE}
        found["PGPASSWORD"] = (given.data_dir / "postgres.password").read_text()
        found["PGDATABASE"] = "postgres"
        return subprocess.run(given.command, env=os.environ | found, check=False).returncode
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
