"""graphql-transport-ws, message by message."""

import asyncio
from typing import Any

import orjson
from graphql import GraphQLError

from app.api import authentication
from app.api.graphql.errors import present
from app.api.graphql.live.connection import Connection, Viewer
from app.api.graphql.live.engine import Live
from app.api.graphql.live.messages import Malformed, Subscribe, parse
from app.api.graphql.live.once import answer
from app.api.graphql.live.plans import Request
from app.api.graphql.live.wire import Wire
from app.api.graphql.persisted import resolve_persisted
from app.api.limits import BURST, EACH, Bucket
from app.core.actor import Actor
from app.core.errors import AppError, Limited, Unavailable

_ACK = b'{"type":"connection_ack"}'
_PONG = b'{"type":"pong"}'
_MOST_EARLY = 32  # messages sent before the key was checked
_TRY_AGAIN_LATER = 1013  # after 1011 clients give up


class Socket(Connection):
    __slots__ = ("_admission", "_early", "_messages", "_patience", "acknowledged", "operations")

    def __init__(self, live: Live, wire: Wire) -> None:
        super().__init__(live, wire)
        self.acknowledged = False
        self.operations: dict[str, Viewer | asyncio.Task[None]] = {}
        self._early: list[bytes | str] | None = None
        self._messages = Bucket(BURST * live.settings.max_messages_per_second)
        self._admission: asyncio.Task[None] | None = None
        self._patience: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(
            live.settings.connection_init_seconds,
            self.close,
            4408,
            "Connection initialisation timeout",
        )
        live.strangers += 1

    # What the wire says

    def opened(self) -> None:
        if self.live.strangers > self.live.settings.max_unacknowledged_connections:
            self.close(_TRY_AGAIN_LATER, "Too many connections without a key")

    def receive(self, text: bytes | str) -> None:
        """A message. Raises UnicodeDecodeError for bytes that are no text."""
        if self.closed or not self.hears():
            return
        if self._early is not None:
            self._early.append(text)
            if len(self._early) > _MOST_EARLY:
                self.close(4401, "Unauthorized")
            return
        try:
            self._handle(parse(text))
        except Malformed as wrong:
            self.close(4400, str(wrong))

    def hears(self) -> bool:
        """Count something that the client sent; False when that closed the connection."""
        pace = self.live.settings.max_messages_per_second
        if self._messages.missing(1, BURST * pace, pace):
            self.close(4429, f"Too many messages: {pace} a second are taken")
            return False
        return True

    def lost(self) -> None:
        if self.closed:
            return
        super().lost()
        self._stop_patience()
        if not self.acknowledged:
            self.live.strangers -= 1
        if self._admission:
            self._admission.cancel()
        operations, self.operations = self.operations, {}
        for operation in operations.values():
            self.live.limits.subscriptions.leave(self.actor.key_id)
            operation.cancel()

    def close(self, code: int, reason: str = "") -> None:
        if not self.closed:
            self.lost()
            self.wire.close(code, reason)

    # What viewers and the key say

    def tell(self, viewer: Viewer, payload: bytes) -> None:
        self.wire.send(b"%b%b}" % (viewer.prefix, payload))

    def completed(self, viewer: Viewer) -> None:
        if self._ended(viewer.id):
            self.wire.send(b'{"id":%b,"type":"complete"}' % orjson.dumps(viewer.id))

    def refused(self, viewer: Viewer, errors: list[Any]) -> None:
        if self._ended(viewer.id):
            self._refuse(viewer.id, errors)

    def expel(self, refusal: AppError) -> None:
        self.close(4403, refusal.code)

    def drain(self) -> None:
        self.close(1012, "Service Restart")

    # The protocol

    def _handle(self, message: Subscribe | str | dict[str, Any]) -> None:
        match message:
            case Subscribe():
                self._subscribe(message)
            case str() as ended:
                if operation := self._ended(ended):
                    operation.cancel()
            case {"type": "ping"}:
                self.wire.send(_PONG)
            case {"type": "connection_init", "payload": payload}:
                self._introduce(payload)
            case _:
                return

    def _introduce(self, payload: dict[str, Any]) -> None:
        if self.acknowledged:
            self.close(4429, "Too many initialisation requests")
            return
        self._stop_patience()
        key = authentication.key_of_params(payload)
        actor = self.live.known(key) if key else None
        if key and actor:
            self._acknowledge(key, actor)
        else:
            self._early = []
            self._admission = asyncio.create_task(self._check(key), name="live-admission")

    async def _check(self, key: str | None) -> None:
        try:
            actor = await authentication.actor_of_key(
                self.live.services, key, authentication.new_request_id()
            )
        except Unavailable as refused:
            self.close(_TRY_AGAIN_LATER, refused.code)
            return
        except AppError as refused:
            self.close(4403, refused.code)
            return
        except Exception as trouble:  # noqa: BLE001 - mostly a database out of reach
            present(GraphQLError("connection_init", original_error=trouble), "")
            self.close(_TRY_AGAIN_LATER, "The key cannot be checked now. Try again in a moment.")
            return
        finally:
            self._admission = None
        self._acknowledge(key or "", actor)
        early, self._early = self._early or [], None
        for text in early:
            self.receive(text)

    def _acknowledge(self, key: str, actor: Actor) -> None:
        try:
            self.admit(key, actor)
        except Limited as refused:
            self.close(_TRY_AGAIN_LATER, refused.message)
            return
        self.acknowledged = True
        self.live.strangers -= 1
        self.wire.send(_ACK)

    def _subscribe(self, asked: Subscribe) -> None:
        if not self.acknowledged:
            self.close(4401, "Unauthorized")
            return
        id = asked.id
        if id in self.operations:
            self.close(4409, f"Subscriber for {id} already exists")
            return
        try:
            request = self._request(asked)
            self.live.limits.rates.spend(self.actor.key_id, EACH)
            self.live.limits.subscriptions.take(self.actor.key_id)
        except AppError as refusal:
            request_id = authentication.new_request_id()
            shown = present(GraphQLError(refusal.message, original_error=refusal), request_id)
            self._refuse(id, [shown.formatted])
            return
        viewer = Viewer(self, request, id, b'{"id":%b,"type":"next","payload":' % orjson.dumps(id))
        self.operations[id] = viewer
        if not self.live.watch(viewer):
            self.operations[id] = asyncio.create_task(answer(viewer), name="live-once")

    def _request(self, asked: Subscribe) -> Request:
        """Raises Limited, or what is wrong with a persisted query."""
        most = self.live.settings.max_subscriptions_per_connection
        if len(self.operations) >= most:
            raise Limited(f"One connection runs at most {most} operations at once.", limit=most)
        payload = asked.payload
        query = resolve_persisted(payload) or ""
        return Request(query, payload.get("variables"), payload.get("operationName") or None)

    def _ended(self, id: str) -> "Viewer | asyncio.Task[None] | None":
        """The operation, which runs no more; None if none ran by this id."""
        operation = self.operations.pop(id, None)
        if operation is not None:
            self.live.limits.subscriptions.leave(self.actor.key_id)
        return operation

    def _refuse(self, id: str, errors: list[Any]) -> None:
        self.wire.send(orjson.dumps({"id": id, "type": "error", "payload": errors}))

    def _stop_patience(self) -> None:
        if self._patience:
            self._patience.cancel()
            self._patience = None
