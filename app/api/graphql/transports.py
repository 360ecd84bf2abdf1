"""The two ways to stream results over plain HTTP: server-sent events (graphql-sse, distinct
connections) and multipart parts (Apollo's subscriptionSpec=1.0).

A stream ends at once when its client leaves. It ends without a last word, so that clients connect
again and resume, when this server stops; and with a typed error when its key loses its rights.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import orjson
from starlette.types import Receive, Send

from app.api.graphql.negotiation import Stream
from app.core.errors import AppError

Payload = dict[str, Any]
Headers = list[tuple[bytes, bytes]]

_STALLED = 20.0  # a client that takes nothing for so long is given up


def encode(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


class Transport(ABC):
    """The framing of one kind of stream."""

    headers: Headers
    opening: bytes
    heartbeat: bytes
    heartbeat_every: float

    @abstractmethod
    def next(self, payload: Payload, cursor: str | None) -> bytes: ...

    @abstractmethod
    def complete(self) -> bytes: ...

    @abstractmethod
    def refused(self, errors: list[Payload]) -> bytes:
        """The last words to one who may no longer listen."""


class Events(Transport):
    """Lines end in LF: of the clients in use, urql splits on nothing else. The last event has an
    empty `data`, for browsers drop an event without one."""

    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
    ]
    opening = b":\n\n"
    heartbeat = b":\n\n"
    heartbeat_every = 15.0

    def next(self, payload: Payload, cursor: str | None) -> bytes:
        id = b"id: " + cursor.encode() + b"\n" if cursor else b""
        return b"event: next\n" + id + b"data: " + encode(payload) + b"\n\n"

    def complete(self) -> bytes:
        return b"event: complete\ndata: \n\n"

    def refused(self, errors: list[Payload]) -> bytes:
        return self.next({"errors": errors}, None) + self.complete()


class Parts(Transport):
    """Each part is followed by its boundary at once, or the client would have to wait for the next
    part before it can read this one."""

    headers = [
        (b"content-type", b'multipart/mixed; boundary="graphql"; subscriptionSpec="1.0"'),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
    ]
    heartbeat = b"\r\ncontent-type: application/json\r\n\r\n{}\r\n--graphql"
    opening = b"--graphql" + heartbeat
    heartbeat_every = 5.0

    def next(self, payload: Payload, cursor: str | None) -> bytes:
        return self._part({"payload": payload})

    def complete(self) -> bytes:
        return b"--\r\n"

    def refused(self, errors: list[Payload]) -> bytes:
        return self._part({"payload": None, "errors": errors}) + self.complete()

    def _part(self, value: Payload) -> bytes:
        return b"\r\ncontent-type: application/json\r\n\r\n" + encode(value) + b"\r\n--graphql"


TRANSPORTS: dict[Stream, Transport] = {Stream.EVENTS: Events(), Stream.PARTS: Parts()}

Results = AsyncGenerator[tuple[Payload, str | None], None]


class Streaming:
    """One open stream."""

    def __init__(self, transport: Transport, receive: Receive, send: Send) -> None:
        self._transport, self._receive, self._send = transport, receive, send
        loop = asyncio.get_running_loop()
        self._end: asyncio.Future[AppError | None] = loop.create_future()
        self._clock = loop.time
        self._put_at = loop.time()

    def end(self, refusal: AppError | None = None) -> None:
        """Without a refusal: this server stops, and the client should look for another."""
        if not self._end.done():
            self._end.set_result(refusal)

    async def run(
        self, results: Results, headers: Headers, present: Callable[[AppError], Payload]
    ) -> None:
        await self._send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [*self._transport.headers, *headers],
            }
        )
        work = asyncio.create_task(self._write(results), name="http-stream")
        gone = asyncio.create_task(self._until_gone(), name="http-stream-gone")
        try:
            await self._wait(work, gone)
            if work.done():
                if not work.cancelled():
                    work.result()
            elif gone.done():
                return
            else:
                await _cancelled(work)
                refusal = self._end.result()
                await self._put(self._transport.refused([present(refusal)]) if refusal else b"")
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return  # stalled: the server closes the connection of an answer left unfinished
        finally:
            self._end.cancel()
            await _cancelled(work)
            await _cancelled(gone)

    async def _wait(self, work: "asyncio.Task[None]", gone: "asyncio.Task[None]") -> None:
        """Until one of the three ends, with a sign of life whenever there was none."""
        every = self._transport.heartbeat_every
        ends: set[asyncio.Future[Any]] = {work, gone, self._end}
        while True:
            left = self._put_at + every - self._clock()
            if left <= 0:
                await self._put(self._transport.heartbeat)
                left = every
            done, _ = await asyncio.wait(ends, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return

    async def _write(self, results: Results) -> None:
        await self._put(self._transport.opening)
        async with aclosing(results):
            async for payload, cursor in results:
                await self._put(self._transport.next(payload, cursor))
        await self._put(self._transport.complete())

    async def _put(self, chunk: bytes) -> None:
        self._put_at = self._clock()
        async with asyncio.timeout(_STALLED):
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
