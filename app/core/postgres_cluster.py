"""One cluster on disk, and the processes that work on it. Its callers hold the owner's lock."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.core.postgres_programs import (
    Account,
    FolderInUse,
    OtherMajor,
    StartFailed,
    candidates,
    die_with_parent,
    server_major,
)

ROLE = "luthier"
PORT = 5432  # only a part of the socket's name: nothing listens on TCP
LOG_LIMIT = 8 * 1024 * 1024
SOCKET = f".s.PGSQL.{PORT}"
_MARK = "cluster_name=luthier"  # by which we know a server that Luthier started
_SETTINGS = (
    _MARK,
    "listen_addresses=",
    f"port={PORT}",
    "unix_socket_permissions=0700",
    "max_connections=200",
    "shared_buffers=64MB",
    "huge_pages=off",
    "min_wal_size=32MB",
    "max_wal_size=512MB",
    "max_logical_replication_workers=0",
    "jit=off",
    # Parallel plans need shared memory that containers limit to 64 MB, and fail beyond that.
    "max_parallel_workers_per_gather=0",
    "max_parallel_maintenance_workers=0",
    "synchronous_commit=on",
    "autovacuum=on",
    "password_encryption=scram-sha-256",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_checkpoints=off",
    # Statements and the details of their errors hold customers' values, which belong in no log.
    "log_min_error_statement=panic",
    "log_error_verbosity=terse",
)


@dataclass(frozen=True)
class Cluster:
    folder: Path
    socket_dir: Path
    log_file: Path
    account: Account
    programs: Path
    fsync: bool

    def create(self, password: str) -> None:
        """Makes all of it or nothing: the folder gets its name when it is written and synced."""
        for left in self.folder.parent.glob(f"{self.folder.name}.init-*"):  # by a killed owner
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}.init-", dir=self.folder.parent))
        options = ["--username", ROLE, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        if server_major(self.programs, **self.account.popen) >= 17:
            # Older ones have only C, which knows the upper and lower case of ASCII alone.
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self.fsync:
            options.append("--no-sync")
        try:
            (draft / "password").write_text(password)
            self.account.give(draft / "password")
            self.account.give(draft)
            with self.account.reach(draft) as (name, descriptors):
                made = subprocess.run(
                    [
                        *(self.programs / "initdb", "-D", f"{name}/data"),
                        *(f"--pwfile={name}/password", *options),
                    ],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                    pass_fds=descriptors,
                    preexec_fn=die_with_parent(signal.SIGTERM),
                    **self.account.popen,
                )
            if made.returncode != 0:
                raise StartFailed(f"initdb failed: {(made.stderr or made.stdout).strip()}")
            (draft / "data").rename(self.folder)
            parent = os.open(self.folder.parent, os.O_RDONLY)
            os.fsync(parent)  # the new name itself
            os.close(parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def check_major(self) -> None:
        """Refuses data of another major version, with the commands that move it."""
        try:
            old = int((self.folder / "PG_VERSION").read_text())
        except (FileNotFoundError, ValueError) as error:
            raise FolderInUse(f"{self.folder} is no Postgres cluster. Move it away.") from error
        new = server_major(self.programs, **self.account.popen)
        if old == new:
            return
        theirs = Path(f"/path/to/postgresql-{old}/bin")
        ours = self.programs
        for found in candidates():
            with suppress(OSError, StartFailed):
                major = server_major(found)
                theirs = found if major == old else theirs
                ours = found if major == new and (found / "psql").exists() else ours
        lend = f"{sys.executable} -m app.core.postgres"
        data_dir, kept = self.folder.parent, f"{self.folder}-{old}"
        raise OtherMajor(
            f"{self.folder} was written by Postgres {old}, and {ours} holds {new}. Stay with "
            f"LUTHIER_PG_BIN={theirs}; or stop Luthier and move the data:\n"
            f"  {lend} --bin '{theirs}' '{data_dir}' '{ours}/pg_dumpall' -f '{kept}.sql'\n"
            f"  mv '{self.folder}' '{kept}'\n"
            f"  {lend} --bin '{ours}' '{data_dir}' '{ours}/psql' -q -f '{kept}.sql'\n"
            "Two complaints are expected: the role and the database luthier exist already. "
            f"Keep {kept} until you have seen your jobs."
        )

    def reset_password(self, password: str) -> None:
        """Sets the superuser's password without knowing the old one; no server may be running."""
        self.end_leftovers()
        with self.account.reach(self.folder) as (name, descriptors):
            done = subprocess.run(
                [self.programs / "postgres", "--single", "-D", name, "postgres"],
                input=f"ALTER ROLE {ROLE} PASSWORD '{password}'\n",
                capture_output=True,
                text=True,
                check=False,
                pass_fds=descriptors,
                **self.account.popen,
            )
        if done.returncode != 0 or "ERROR" in done.stderr:
            raise StartFailed(f"No new password could be set: {done.stderr.strip()}")

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Starts the server. It ends, cleanly, with the thread that calls this (Linux)."""
        stale = self.end_leftovers()
        # Relative to the cluster, so that no length or mode of the folders above matters.
        sockets = "." if self.socket_dir == self.folder else self.socket_dir
        settings = [*_SETTINGS, f"unix_socket_directories={sockets}"]
        settings.append(f"fsync={'on' if self.fsync else 'off'}")
        options = self.account.popen
        if stale is not None:
            # Another process may have been given the number in the pid file since, and Postgres
            # would refuse to start beside it for ever. This is the one number that it disregards.
            options["env"]["PG_GRANDPARENT_PID"] = str(stale)
        output = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            with self.account.reach(self.folder) as (name, descriptors):
                return subprocess.Popen(
                    [
                        *(str(self.programs / "postgres"), "-D", name),
                        *(part for setting in settings for part in ("-c", setting)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=descriptors,
                    start_new_session=True,  # Ctrl-C in a terminal is for us; we end it in our time
                    preexec_fn=die_with_parent(signal.SIGINT),
                    **options,
                )
        finally:
            os.close(output)

    def end_leftovers(self) -> int | None:
        """Ends what a killed owner or postmaster left here; the number in the stale pid file."""
        try:
            stale = int((self.folder / "postmaster.pid").read_text().split("\n")[0])
        except (FileNotFoundError, ValueError):
            return None
        left = [process for process in psutil.process_iter() if self._works_here(process)]
        postmaster = next((process for process in left if process.pid == stale), None)
        with suppress(psutil.Error):  # it has just ended
            if postmaster is not None and _MARK not in postmaster.cmdline():
                raise FolderInUse(
                    f"A Postgres that Luthier did not start works on {self.folder} (pid {stale}). "
                    f"Stop it: pg_ctl -D '{self.folder}' stop"
                )
        self.end(postmaster, left)
        for name in (SOCKET, f"{SOCKET}.lock"):
            (self.socket_dir / name).unlink(missing_ok=True)
        return stale

    def end(self, postmaster: psutil.Process | None, processes: list[psutil.Process]) -> None:
        """Fast stop, then harder. Backends that lost their postmaster are given time to leave."""
        steps: list[tuple[int, list[psutil.Process], int]] = [(signal.SIGKILL, processes, 5)]
        if postmaster is None:
            steps.insert(0, (0, [], 5))
        else:
            steps[:0] = [(signal.SIGINT, [postmaster], 30), (signal.SIGQUIT, [postmaster], 5)]
        for signal_number, targets, patience in steps:
            for process in targets:
                with suppress(psutil.Error):
                    process.send_signal(signal_number)
            deadline = time.monotonic() + patience
            while any(self._works_here(process) for process in processes):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            else:
                return

    def cut_log(self) -> None:
        """Keeps the log and its predecessor below twice the limit."""
        with suppress(OSError):
            if self.log_file.stat().st_size > LOG_LIMIT:
                shutil.copy(self.log_file, self.log_file.with_suffix(".log.1"))
                os.truncate(self.log_file, 0)  # the server appends, so it goes on at the start

    def _works_here(self, process: psutil.Process) -> bool:
        # A server's working folder is its cluster: proof that a number was not given to another.
        try:
            return process.name() in ("postgres", "postmaster") and os.path.samefile(
                process.cwd(), self.folder
            )
        except (psutil.Error, OSError):  # it ended, or waits as a zombie, or is somebody else's
            return False
