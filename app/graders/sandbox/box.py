"""One box: a locked-down interpreter with one customer's grader in it, asked case by case."""

import asyncio
import base64
import contextlib
import json
import os
import signal
from dataclasses import dataclass
from typing import Any, Protocol

import psutil

from app.graders.sandbox import paths

_LONGEST_REPLY = 64 * 1024
_LOAD_SECONDS = 5.0  # at least, for a grader with large libraries on a busy machine
_END_SECONDS = 2.0


@dataclass(frozen=True)
class Limits:
    """Of one box. The processor time is that of its whole life; boxes are renewed at half of it."""

    memory: int = 1 << 30  # bytes of address space
    processor: int = 240  # seconds
    seconds: float = 30.0  # of waiting for one case
    threads: int = 64


class BoxBroken(Exception):
    """The box gave no proper answer and is gone. `kind`: timeout, exited or protocol."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class GraderRaised(Exception):
    """The grader's own code failed, or returned no finite number: the end of its traceback."""


class Box(Protocol):
    """What holds one grader, asked one case at a time."""

    async def grade(self, sample: Any, item: Any, seconds: float) -> float:
        """Raises GraderRaised; or BoxBroken, and then the box is not to be used again."""

    @property
    def worn(self) -> bool:
        """Whether it is to be replaced after this case."""

    async def close(self) -> None:
        """End it with everything in it."""


@dataclass(frozen=True)
class Launch:
    """How an engine starts the runner, and the rights that the runner is to give up itself."""

    arguments: list[str]
    landlock: int  # version of its interface, 0 for none
    readable: list[str]
    packages: list[str]
    uid: int
    stay_effective: bool
    direct: bool  # whether the runner is this process's own child


class ProcessBox:
    """A runner process, frozen whenever it has no case, whatever threads a grader left behind.

    Killing it ends all that it could have started: in bubblewrap its whole namespace, and elsewhere
    the filter lets it start nothing.
    """

    def __init__(self, process: asyncio.subprocess.Process, limits: Limits) -> None:
        self._process, self._limits = process, limits
        self._runner = -1  # a pidfd, once it runs
        self._case = 0
        self._processor = 0.0

    @staticmethod
    async def open(launch: Launch, source: str, limits: Limits, filter: bytes) -> "ProcessBox":
        """Start it and load the grader. Raises BoxBroken."""
        process = await asyncio.create_subprocess_exec(
            *launch.arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=paths.ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            limit=_LONGEST_REPLY,
        )
        box = ProcessBox(process, limits)
        try:
            config = {
                "source": source,
                "filter": base64.b64encode(filter).decode(),
                "limits": _resource_limits(limits),
                "landlock": launch.landlock,
                "readable": launch.readable,
                "packages": launch.packages,
                "uid": launch.uid,
                "stay_effective": launch.stay_effective,
                "parent": os.getpid() if launch.direct else 0,
            }
            await box._ask(config, max(_LOAD_SECONDS, limits.seconds))
            box._runner = os.pidfd_open(_innermost(process.pid))
            box._signal(signal.SIGSTOP)
        except BaseException:
            await box.close()
            raise
        return box

    @property
    def worn(self) -> bool:
        return self._processor > self._limits.processor / 2

    async def grade(self, sample: Any, item: Any, seconds: float) -> float:
        self._case += 1
        case = {"case": self._case, "sample": sample, "item": item}
        self._signal(signal.SIGCONT)
        reply = await self._ask(case, seconds)
        self._signal(signal.SIGSTOP)
        self._processor = float(reply.get("cpu", 0.0))
        if isinstance(error := reply.get("error"), str):
            raise GraderRaised(error)
        value = reply.get("value")
        if not isinstance(value, float):
            raise BoxBroken("protocol", "The grader's process answered with something else.")
        return value

    async def close(self) -> None:
        if self._runner >= 0:
            # From the inside out, so that bubblewrap's processes collect each other.
            with contextlib.suppress(BoxBroken):
                self._signal(signal.SIGKILL)
            os.close(self._runner)
            self._runner = -1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self._runner, number)
        except ProcessLookupError:
            raise BoxBroken("exited", "The grader's process has ended.") from None

    async def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 - both are pipes, see open()
        assert self._process.stdout is not None  # noqa: S101
        try:
            async with asyncio.timeout(seconds):
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                await self._process.stdin.drain()
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BoxBroken("timeout", f"The grader took longer than {seconds:g} s.") from None
        except (OSError, ValueError) as broken:
            raise BoxBroken("exited", "The grader's process ended, or said too much.") from broken
        if not line:
            raise BoxBroken("exited", "The grader's process ended before it answered.")
        return _understood(line, message.get("case", 0))


def _innermost(pid: int) -> int:
    """The runner, seen from outside: bubblewrap starts it as the child of a child."""
    try:
        inside = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        inside = []
    return inside[-1].pid if inside else pid


def _understood(line: bytes, case: int) -> dict[str, Any]:
    """The grader's code can write here too: whatever is not the answer ends the box."""
    try:
        reply = json.loads(line, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict) or reply.get("case") != case:
        raise BoxBroken("protocol", "The grader's process answered with something else.")
    return reply


def _resource_limits(limits: Limits) -> dict[str, int]:
    return {
        "RLIMIT_AS": limits.memory,
        "RLIMIT_CPU": limits.processor,
        "RLIMIT_NPROC": limits.threads,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
