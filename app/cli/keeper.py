"""Processes that keep others: started again when they die, drained in order at the end."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 15.0
_SETTLED = 30.0  # one that lived so long is started again without delay
_LOOK_EVERY = 0.2
_KEEPER_PID = "LUTHIER_KEEPER_PID"
_LISTENER = "LUTHIER_LISTENER"


@dataclass(frozen=True)
class Part:
    """A verb of `luthier` as a process of its own; one that serves gets the shared `listener`."""

    verb: str
    listener: socket.socket | None = None


class Keeper:
    """Runs parts until a signal. What dies is started again, after pauses that double."""

    def __init__(self, parts: Sequence[Part], grace: float) -> None:
        """`grace`: seconds that a part may take to drain before it is killed."""
        self._parts, self._grace = parts, grace
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until a signal or `stop`; then the parts are told to drain, and waited for."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await asyncio.gather(*(self._keep(part) for part in self._parts))

    def stop(self) -> None:
        self._stopping.set()
        for part in self._parts:
            if part.listener:  # or clients would wait in a queue that nobody empties
                part.listener.close()

    async def _keep(self, part: Part) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            process = await _start(part)
            ended = asyncio.create_task(process.wait())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if self._stopping.is_set():
                await self._end(process, ended)
                return
            if time.monotonic() - began > _SETTLED:
                pause = _FIRST_PAUSE
            status = ended.result()
            log.error(
                "%s ended with status %s; starting it again in %g s", part.verb, status, pause
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(_LONGEST_PAUSE, 2 * pause)

    async def _end(self, process: asyncio.subprocess.Process, ended: "asyncio.Task[int]") -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        done, _ = await asyncio.wait({ended}, timeout=self._grace)
        if not done:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await ended


async def _start(part: Part) -> asyncio.subprocess.Process:
    environment = os.environ | {_KEEPER_PID: str(os.getpid())}
    descriptors = []
    if part.listener:
        descriptors.append(part.listener.fileno())
        environment[_LISTENER] = str(part.listener.fileno())
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli.main", part.verb),
        env=environment,
        pass_fds=descriptors,
        # Ctrl-C in a terminal is for us: a server would take it for a second signal and hurry.
        start_new_session=True,
    )


def inherited_listener() -> socket.socket | None:
    """The socket that this process shares with its siblings, when it is kept by another."""
    descriptor = os.environ.get(_LISTENER)
    return socket.socket(fileno=int(descriptor)) if descriptor else None


def follow_keeper(grace: float) -> None:
    """End when the keeper does, however it ends: drained, or after `grace` seconds by force.

    Polls, which works everywhere.
    """
    keeper = os.environ.get(_KEEPER_PID)
    if keeper is None:
        return

    def watch() -> None:
        while os.getppid() == int(keeper):
            time.sleep(_LOOK_EVERY)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="keeper-watch").start()
