"""One operation over plain HTTP, as server-sent events or in parts.

A stream ends at once when its client leaves. It ends without a last word, so that clients connect
again and resume, when this server stops; and with a typed error when its key loses its rights.
"""

import asyncio
from typing import Any

import orjson
from starlette.types import Message, Receive, Send

from app.api.graphql.live.connection import Connection, Viewer
from app.api.graphql.live.engine import Live
from app.api.graphql.live.once import answer
from app.api.graphql.live.outbox import Outbox
from app.api.graphql.live.plans import Request
from app.api.graphql.live.wire import Result
from app.api.graphql.transports import Headers, Transport
from app.core.actor import Actor
from app.core.errors import AppError, Invalid, Limited
from app.events import cursors


class HttpWire(Outbox):
    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._transport = transport
        self.used = False  # since the last heartbeat

    def publish(self, prefix: bytes, result: Result) -> bool:
        if self.full:
            return False
        words = result.forms.get(self._transport)
        if words is None:
            words = self._transport.next(result.payload, result.position)
            result.forms[self._transport] = words
        self.send(words)
        return True

    def send(self, message: bytes) -> None:
        self.used = True
        self.put(_body(message, more=True), len(message))

    def close(self, code: int = 0, reason: str = "") -> None:
        self.finish(_body(b"", more=False))


class Streaming(Connection):
    def __init__(
        self, live: Live, transport: Transport, request_id: str, key: str, actor: Actor
    ) -> None:
        """For one who has shown a key. Raises Limited when that has too many connections."""
        self._out = HttpWire(transport)
        super().__init__(live, self._out)
        self._out.connection = self
        self._transport, self._request_id = transport, request_id
        self._operation: Viewer | asyncio.Task[None] | None = None
        self._beating: asyncio.TimerHandle | None = None
        try:
            self.admit(key, actor)
        except Limited:
            self.lost()
            raise

    def begin(self, request: Request, last_seen: str | None, headers: Headers) -> None:
        """Watch, after the cursor that the client has seen last, if it names one."""
        headers = [*self._transport.headers, *headers]
        self._out.put({"type": "http.response.start", "status": 200, "headers": headers}, 0)
        self._out.send(self._transport.opening)
        self._beat()
        self._operation = viewer = Viewer(self, request)
        try:
            seen = cursors.decode(last_seen) if last_seen else None
        except Invalid as refusal:
            self.refused(viewer, [self._shown(refusal)])
            return
        if not self.live.watch(viewer, seen):
            self._operation = asyncio.create_task(answer(viewer), name="live-once")

    async def run(self, receive: Receive, send: Send) -> None:
        """Until the operation ends, or the client's interest, or its key."""
        await self._out.run(send, _until_gone(receive))

    def lost(self) -> None:
        super().lost()
        if self._beating:
            self._beating.cancel()
        operation, self._operation = self._operation, None
        if operation and operation is not asyncio.current_task():
            operation.cancel()

    def tell(self, viewer: Viewer, payload: bytes) -> None:
        self._out.send(self._transport.next(payload, None))

    def completed(self, viewer: Viewer) -> None:
        self._end(self._transport.complete())

    def refused(self, viewer: Viewer, errors: list[Any]) -> None:
        words = self._transport.next(orjson.dumps({"errors": errors}), None)
        self._end(words + self._transport.complete())

    def expel(self, refusal: AppError) -> None:
        self._end(self._transport.refused([self._shown(refusal)]))

    def drain(self) -> None:
        self._end(b"")

    def _shown(self, refusal: AppError) -> dict[str, Any]:
        extensions = {**refusal.extensions, "requestId": self._request_id}
        return {"message": refusal.message, "extensions": extensions}

    def _end(self, last_words: bytes) -> None:
        if not self.closed:
            self.lost()
            if last_words:
                self._out.send(last_words)
            self._out.close()

    def _beat(self) -> None:
        """A sign of life whenever there was none."""
        if not self._out.used and not self._out.full:
            self._out.send(self._transport.heartbeat)
        self._out.used = False
        self._beating = asyncio.get_running_loop().call_later(
            self._transport.heartbeat_every, self._beat
        )


def _body(chunk: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
