"""What waits to be sent through ASGI: `send` has to be awaited, so a task does that."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from starlette.types import Message, Send

from app.api.graphql.live.connection import Connection
from app.api.graphql.live.wire import FEW_WAITING, MOST_WAITING, STALLED


class Outbox:
    """A bounded queue of messages, and the task that empties it: the one it was made in."""

    def __init__(self) -> None:
        self.full = False
        self.room = asyncio.Event()
        self.room.set()
        self.connection: Connection
        self._task = asyncio.current_task()
        self._waiting: deque[tuple[Message, int]] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._closing: asyncio.TimerHandle | None = None

    def put(self, message: Message, size: int) -> None:
        if self._closing:
            return
        self._waiting.append((message, size))
        self._bytes += size
        self._news.set()
        if self._bytes > MOST_WAITING and not self.full:
            self.full = True
            self.room.clear()
            self.connection.filled()

    def finish(self, message: Message) -> None:
        """Send what is waiting, then this last message."""
        self.put(message, 0)
        self._closing = asyncio.get_running_loop().call_later(STALLED, self.abort)

    def abort(self) -> None:
        if self._task:
            self._task.cancel()

    async def run(self, send: Send, listening: Coroutine[Any, Any, None]) -> None:
        """Send until the last message was sent, the client is gone or the connection aborted."""
        listener = asyncio.create_task(listening, name="live-listener")
        listener.add_done_callback(lambda _: self.abort())
        try:
            await self._pump(send)
        except asyncio.CancelledError:
            pass  # gone or aborted: the server drops what is left
        finally:
            self._task = None
            if self._closing:
                self._closing.cancel()
            self.connection.lost()
            listener.cancel()
            [ended] = await asyncio.gather(listener, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended

    async def _pump(self, send: Send) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                message, size = self._waiting.popleft()
                await send(message)
                self._bytes -= size
                if self.full and self._bytes < FEW_WAITING:
                    self.full = False
                    self.room.set()
                    if not self._closing:
                        self.connection.drained()
            if self._closing:
                return
