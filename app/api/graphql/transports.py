"""How results are framed over plain HTTP: server-sent events (graphql-sse, distinct connections)
and multipart parts (Apollo's subscriptionSpec=1.0)."""

from abc import ABC, abstractmethod
from typing import Any

import orjson

from app.api.graphql.negotiation import Stream
from app.events import cursors

Headers = list[tuple[bytes, bytes]]
Errors = list[dict[str, Any]]


class Transport(ABC):
    """The framing of one kind of stream."""

    headers: Headers
    opening: bytes
    heartbeat: bytes
    heartbeat_every: float

    @abstractmethod
    def next(self, payload: bytes, position: int | None) -> bytes:
        """A result in JSON; `position` is where it ends in its stream, if it has a place there."""

    @abstractmethod
    def complete(self) -> bytes: ...

    @abstractmethod
    def refused(self, errors: Errors) -> bytes:
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

    def next(self, payload: bytes, position: int | None) -> bytes:
        """A browser that reconnects names the last id in `Last-Event-ID`: it is a cursor."""
        if position is None:
            return b"event: next\ndata: %b\n\n" % payload
        return b"event: next\nid: %b\ndata: %b\n\n" % (cursors.encode(position).encode(), payload)

    def complete(self) -> bytes:
        return b"event: complete\ndata: \n\n"

    def refused(self, errors: Errors) -> bytes:
        return self.next(orjson.dumps({"errors": errors}), None) + self.complete()


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

    def next(self, payload: bytes, position: int | None) -> bytes:
        return self._part(b'{"payload":%b}' % payload)

    def complete(self) -> bytes:
        return b"--\r\n"

    def refused(self, errors: Errors) -> bytes:
        return self._part(orjson.dumps({"payload": None, "errors": errors})) + self.complete()

    def _part(self, value: bytes) -> bytes:
        return b"\r\ncontent-type: application/json\r\n\r\n%b\r\n--graphql" % value


TRANSPORTS: dict[Stream, Transport] = {Stream.EVENTS: Events(), Stream.PARTS: Parts()}
