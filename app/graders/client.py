"""Asking the graders' process, from the worker or from a training process.

Imports nothing of what that process loads.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.graders import protocol
from app.graders.errors import GraderInvalid, GradersUnavailable, Problem
from app.graders.protocol import (
    Cancel,
    Done,
    Grade,
    GradeCase,
    ModelEndpoint,
    Ready,
    Refused,
    Reply,
    Scored,
)
from app.graders.result import GraderResult

log = logging.getLogger(__name__)

_STARTS_WITHIN = 60.0
_GRACE = 10.0  # seconds beyond a request's own before its process is held for stuck
_STARTS = 2  # tries of one request, each with a process of its own
# Nothing else of the environment goes along: what is secret in it stays out of reach.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")
_ALWAYS = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",  # a GPU belongs to the training next to it
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Options:
    """`model_urls` are the base URLs that graders' models may be called at. None: the default."""

    sandbox: str = "auto"
    boxes: int | None = None
    memory: int | None = None
    seconds: float | None = None
    wordnet: Path | None = None
    model_urls: Sequence[str] = ()

    def arguments(self) -> list[str]:
        given = ["--sandbox", self.sandbox]
        for name in ("boxes", "memory", "seconds", "wordnet"):
            if (value := getattr(self, name)) is not None:
                given += [f"--{name}", str(value)]
        for url in self.model_urls:
            given += ["--model-url", url]
        return given


@dataclass
class _Asked:
    results: list[GraderResult | None]
    done: asyncio.Future[None]


@dataclass
class _Running:
    process: asyncio.subprocess.Process
    ready: Ready
    listener: "asyncio.Task[None] | None" = None
    asked: dict[int, _Asked] = field(default_factory=dict)


class Graders:
    """One graders' process, started when it is first needed and again when it died."""

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self._running: _Running | None = None
        self._starting = asyncio.Lock()
        self._ids = itertools.count(1)
        self._closed = False

    async def start(self) -> Ready:
        """What it can do, once it runs. Raises GradersUnavailable."""
        return (await self._process()).ready

    @property
    def pid(self) -> int | None:
        return self._running.process.pid if self._running else None

    async def grade(
        self,
        grader: Mapping[str, Any],
        cases: Sequence[GradeCase],
        *,
        tenant: str,
        seconds: float,
        endpoint: ModelEndpoint | None = None,
    ) -> list[GraderResult]:
        """The results, in the order of the cases; a case that took too long has its error in its
        result. Raises GraderInvalid, and GradersUnavailable when the process died twice."""
        request = Grade(
            id=next(self._ids),
            tenant=tenant,
            grader=dict(grader),
            cases=list(cases),
            seconds=seconds,
            endpoint=endpoint,
        )
        for _ in range(_STARTS):
            running = await self._process()
            with contextlib.suppress(_Died):
                return await self._ask(running, request)
        raise GradersUnavailable("The graders' process ended, twice, before it had graded.")

    async def close(self) -> None:
        """End the process and whatever it runs; who still waits gets GradersUnavailable."""
        self._closed = True
        if (running := self._running) is None:
            return
        self._running = None
        assert running.process.stdin is not None  # noqa: S101 - a pipe, see _start()
        running.process.stdin.close()  # its sign to leave
        try:
            await asyncio.wait_for(running.process.wait(), _GRACE)
        except TimeoutError:
            _kill(running.process)
            await running.process.wait()
        if running.listener is not None:
            await running.listener

    async def _ask(self, running: _Running, request: Grade) -> list[GraderResult]:
        asked = _Asked([None] * len(request.cases), asyncio.get_running_loop().create_future())
        running.asked[request.id] = asked
        try:
            await _send(running.process, request)
            async with asyncio.timeout(request.seconds + _GRACE):
                await asked.done
        except TimeoutError:
            log.error("the graders' process is stuck; it is ended")
            _kill(running.process)
            raise _Died from None
        except asyncio.CancelledError:
            with contextlib.suppress(_Died):
                await _send(running.process, Cancel(id=request.id))
            raise
        finally:
            running.asked.pop(request.id, None)
        return [result for result in asked.results if result is not None]

    async def _process(self) -> _Running:
        async with self._starting:
            if self._closed:
                raise GradersUnavailable("The graders' process was ended.")
            running = self._running
            if running is None or running.listener is None or running.listener.done():
                running = self._running = await self._start()
            return running

    async def _start(self) -> _Running:
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.graders",
            *self._options.arguments(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=kept | _ALWAYS,
            limit=protocol.LONGEST_LINE,
        )
        assert process.stdout is not None  # noqa: S101 - a pipe
        try:
            async with asyncio.timeout(_STARTS_WITHIN):
                ready = protocol.read_reply(await process.stdout.readline())
        except (TimeoutError, ValidationError, ValueError) as trouble:
            _kill(process)
            await process.wait()
            raise GradersUnavailable("The graders' process does not start.") from trouble
        except BaseException:
            _kill(process)
            raise
        if not isinstance(ready, Ready):
            _kill(process)
            raise GradersUnavailable("The graders' process does not start.")
        running = _Running(process, ready)
        running.listener = asyncio.create_task(_listen(running))
        return running


class _Died(Exception):
    """The process ended while it was asked."""


async def _send(process: asyncio.subprocess.Process, request: Grade | Cancel) -> None:
    assert process.stdin is not None  # noqa: S101 - a pipe
    try:
        process.stdin.write(protocol.write(request))
        await process.stdin.drain()
    except OSError as gone:
        raise _Died from gone


async def _listen(running: _Running) -> None:
    """Hand the replies to who asked, until the process has ended."""
    assert running.process.stdout is not None  # noqa: S101 - a pipe
    try:
        while line := await running.process.stdout.readline():
            _hand_over(running, protocol.read_reply(line))
    except (ValidationError, ValueError) as strange:
        log.error("the graders' process answers strangely; it is ended: %.300s", strange)
    finally:
        _kill(running.process)
        await running.process.wait()
        for asked in running.asked.values():
            if not asked.done.done():
                asked.done.set_exception(_Died())


def _hand_over(running: _Running, reply: Reply) -> None:
    if isinstance(reply, Ready) or (asked := running.asked.get(reply.id)) is None:
        return  # cancelled meanwhile
    match reply:
        case Scored():
            asked.results[reply.case] = reply.result
        case Refused():
            problems = [Problem(tuple(path), message) for path, message in reply.problems]
            if not asked.done.done():
                asked.done.set_exception(GraderInvalid(problems))
        case Done():
            if not asked.done.done():
                asked.done.set_result(None)


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
