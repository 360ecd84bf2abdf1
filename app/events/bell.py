"""What every bell shares: a connection that listens and comes back, and rings that may be lost.

A bell is a backend of broadcaster for our one channel. Broadcaster's own use one connection for
listening and for concurrent publishes, and never notice that it was lost; a bell listens on a
connection of its own, joins again with back-off, and says "gap" each time it has joined, so that
every reader looks for itself.
"""

import asyncio
import contextlib
import logging
import random
from abc import abstractmethod
from typing import ClassVar

from broadcaster._backends.base import BroadcastBackend
from broadcaster._base import Event

log = logging.getLogger(__name__)

CHANNEL = "luthier"
GAP = "*"
PROBE_EVERY = 5.0
ANSWER_WITHIN = 5.0
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 5.0


class _Link:
    """Tells the log when something breaks and when it works again, not each time in between."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._broken = False

    def broke(self, trouble: BaseException) -> None:
        if not self._broken:
            reason = str(trouble) or type(trouble).__name__
            log.warning("%s: trouble, trying again until it works: %s", self._name, reason)
        self._broken = True

    def works(self) -> None:
        if self._broken:
            log.info("%s: works again", self._name)
        self._broken = False


class Bell(BroadcastBackend):
    """One per process. `troubles` are what a lost or refusing server raises."""

    server: ClassVar[str]
    troubles: ClassVar[tuple[type[Exception], ...]]

    def __init__(self) -> None:
        self._heard: asyncio.Queue[Event] = asyncio.Queue(1024)
        self._listener: asyncio.Task[None] | None = None
        self._hearing = _Link(f"hearing rings through {self.server}")
        self._ringing = _Link(f"ringing through {self.server}")
        self._delay = _FIRST_DELAY

    @abstractmethod
    async def _listen(self) -> None:
        """Join the channel, say so by `_joined`, `_hear` what comes; raise when it is lost."""

    @abstractmethod
    async def _ring(self, message: str) -> None:
        """Send one message to all who have joined."""

    @abstractmethod
    async def _hang_up(self) -> None:
        """Close what `_ring` rings by."""

    async def connect(self) -> None:
        self._listener = asyncio.create_task(self._keep_listening(), name="doorbell-listener")

    async def disconnect(self) -> None:
        if self._listener:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        await self._hang_up()

    async def subscribe(self, channel: str) -> None:
        """There is one fixed channel, listened to from the start."""

    async def unsubscribe(self, channel: str) -> None:
        """The listener stays: see subscribe."""

    async def publish(self, channel: str, message: str) -> None:
        """A ring that cannot be sent is given up: the readers' safety poll covers it."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._ring(message)
        except self.troubles as trouble:
            self._ringing.broke(trouble)
        except Exception:
            log.exception("a ring broke")  # a bug, but the next ring may work
        else:
            self._ringing.works()

    async def next_published(self) -> Event:
        return await self._heard.get()

    def _joined(self) -> None:
        self._delay = _FIRST_DELAY
        self._hearing.works()
        self._hear(GAP)

    def _hear(self, message: str) -> None:
        try:
            self._heard.put_nowait(Event(channel=CHANNEL, message=message))
        except asyncio.QueueFull:  # somebody is far behind: one "gap" says it all
            self._heard.get_nowait()
            self._heard.put_nowait(Event(channel=CHANNEL, message=GAP))

    async def _keep_listening(self) -> None:
        while True:
            try:
                await self._listen()
            except self.troubles as trouble:
                self._hearing.broke(trouble)
            except Exception:
                log.exception("listening broke")  # a bug, but a deaf process helps nobody
            await asyncio.sleep(self._delay * (0.5 + random.random()))  # noqa: S311 - jitter
            self._delay = min(_LONGEST_DELAY, 2 * self._delay)
