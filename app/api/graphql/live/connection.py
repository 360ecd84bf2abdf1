"""graphql-transport-ws: one client, its key, and its operations, whatever it is wired to."""

import asyncio
from collections.abc import Hashable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson
from graphql import GraphQLError
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from app.api import authentication
from app.api.graphql.answers import payload_of
from app.api.graphql.context import Context
from app.api.graphql.errors import present
from app.api.graphql.live.engine import Live
from app.api.graphql.live.execution import Execution
from app.api.graphql.live.messages import Malformed, Subscribe, parse
from app.api.graphql.live.plans import Request
from app.api.graphql.live.wire import STALLED, Wire
from app.core.actor import Actor
from app.core.errors import AppError

_ACK = b'{"type":"connection_ack"}'
_PONG = b'{"type":"pong"}'
_MOST_EARLY = 32  # messages sent before the key was checked


class Viewer:
    """A subscription of one connection: a member of an execution, or, while the connection takes
    nothing, the position after which it goes on."""

    __slots__ = ("connection", "execution", "id", "key", "position", "prefix", "request", "wire")

    def __init__(self, connection: "Connection", id: str, request: Request) -> None:
        self.connection, self.id, self.request = connection, id, request
        self.wire = connection.wire
        self.prefix = b'{"id":%b,"type":"next","payload":' % orjson.dumps(id)
        self.key: Hashable | None = None
        self.position: int | None = None
        self.execution: Execution | None = None

    def cancel(self) -> None:
        self.connection.stalled.discard(self)
        if self.execution:
            self.execution.leave(self)

    def stall(self, position: int | None) -> None:
        """The connection is full: go on after this position when it has drained."""
        self.position, self.execution = position, None
        self.connection.stall(self)

    def complete(self) -> None:
        self.execution = None
        self.connection.finish(self.id, b'{"id":%b,"type":"complete"}' % orjson.dumps(self.id))

    def refuse(self, errors: list[Any]) -> None:
        self.execution = None
        self.connection.fail(self.id, errors)


class Connection:
    __slots__ = (
        "_admission",
        "_closed",
        "_early",
        "_key",
        "_timer",
        "acknowledged",
        "actor",
        "live",
        "operations",
        "stalled",
        "wire",
    )  # fmt: skip

    def __init__(self, live: Live, wire: Wire) -> None:
        self.live, self.wire = live, wire
        self.actor: Actor
        self.acknowledged = self._closed = False
        self.operations: dict[str, Viewer | asyncio.Task[None]] = {}
        self.stalled: set[Viewer] = set()
        self._key: str | None = None
        self._early: list[bytes | str] | None = None
        self._admission: asyncio.Task[None] | None = None
        live.connections.add(self)
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(
            live.settings.connection_init_seconds,
            self.close,
            4408,
            "Connection initialisation timeout",
        )

    # What the wire says

    def receive(self, text: bytes | str) -> None:
        if self._closed:
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

    def drained(self) -> None:
        """The wire is no longer full."""
        if not self.acknowledged:
            self.close(4408, "Connection initialisation timeout")
            return
        self._stop_timer()
        stalled, self.stalled = self.stalled, set()
        for viewer in stalled:
            self.live.begin(viewer, viewer.position)

    def filled(self) -> None:
        """The wire is full: it has some time to change that."""
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(STALLED, self.wire.abort)

    def lost(self) -> None:
        """The connection is over, whoever ended it."""
        self._closed = True
        self._stop_timer()
        self.live.connections.discard(self)
        if self._admission:
            self._admission.cancel()
        if self._key:
            self.live.key_watch.remove(self._key, self.expel)
        operations, self.operations = self.operations, {}
        for operation in operations.values():
            operation.cancel()

    def close(self, code: int, reason: str = "") -> None:
        if not self._closed:
            self.lost()
            self.wire.close(code, reason)

    # What viewers say

    def stall(self, viewer: Viewer) -> None:
        self.stalled.add(viewer)

    def finish(self, id: str, last_words: bytes) -> None:
        if self.operations.pop(id, None) is not None:
            self.wire.send(last_words)

    def fail(self, id: str, errors: list[Any]) -> None:
        self.finish(id, orjson.dumps({"id": id, "type": "error", "payload": errors}))

    # The protocol

    def expel(self, refusal: AppError) -> None:
        """The key is no longer good."""
        self.close(4403, refusal.code)

    def _handle(self, message: Subscribe | str | dict[str, Any]) -> None:
        match message:
            case Subscribe():
                self._subscribe(message)
            case str() as ended:
                if operation := self.operations.pop(ended, None):
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
        self._stop_timer()
        key = authentication.key_of_params(payload)
        actor = self.live.known(key) if key else None
        if key and actor:
            self._admit(key, actor)
        else:
            self._early = []
            self._admission = asyncio.create_task(self._check(key), name="live-admission")

    async def _check(self, key: str | None) -> None:
        try:
            actor = await authentication.actor_of_key(
                self.live.services, key, authentication.new_request_id()
            )
        except AppError as refused:
            self.close(4403, refused.code)
            return
        except Exception as trouble:  # noqa: BLE001 - mostly a database out of reach
            present(GraphQLError("connection_init", original_error=trouble), "")
            self.close(1011, "The key could not be checked. Try again.")
            return
        finally:
            self._admission = None
        self._admit(key or "", actor)
        early, self._early = self._early or [], None
        for text in early:
            self.receive(text)

    def _admit(self, key: str, actor: Actor) -> None:
        self._key, self.actor, self.acknowledged = key, actor, True
        self.live.key_watch.add(key, actor, self.expel)
        self.wire.send(_ACK)

    def _subscribe(self, asked: Subscribe) -> None:
        if not self.acknowledged:
            self.close(4401, "Unauthorized")
            return
        id = asked.id
        if id in self.operations:
            self.close(4409, f"Subscriber for {id} already exists")
            return
        most = self.live.settings.max_subscriptions_per_connection
        if len(self.operations) >= most:
            refusal = GraphQLError(
                f"One connection runs at most {most} operations at once.",
                extensions={
                    "code": "LIMIT_EXCEEDED",
                    "limit": most,
                    "requestId": authentication.new_request_id(),
                },
            )
            self.wire.send(
                orjson.dumps({"id": id, "type": "error", "payload": [refusal.formatted]})
            )
            return
        viewer = Viewer(self, id, asked.request)
        self.operations[id] = viewer
        if not self.live.watch(viewer):
            self.operations[id] = asyncio.create_task(self._answer(id, asked.request), name="op")

    async def _answer(self, id: str, request: Request) -> None:
        """A query or a mutation, or what is no operation at all."""
        request_id = authentication.new_request_id()
        actor = replace(self.actor, request_id=request_id)
        try:
            results = await self.live.schema.stream(
                request.query,
                variable_values=request.variables,
                context_value=Context(self.live.services, request_id, actor),
                operation_name=request.operation_name,
            )
            async with aclosing(results):
                async for result in results:
                    if isinstance(result, PreExecutionError):
                        self.fail(id, [error.formatted for error in result.errors or ()])
                        return
                    assert isinstance(result, ExecutionResult)  # noqa: S101 - @defer is off
                    payload = orjson.dumps(payload_of(result), option=orjson.OPT_NON_STR_KEYS)
                    self.wire.send(
                        b'{"id":%b,"type":"next","payload":%b}' % (orjson.dumps(id), payload)
                    )
            self.finish(id, b'{"id":%b,"type":"complete"}' % orjson.dumps(id))
        except Exception as bug:  # noqa: BLE001 - whatever it is, the client is told
            shown = present(GraphQLError(str(bug), original_error=bug), request_id)
            self.fail(id, [shown.formatted])

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
