"""graphql-transport-ws where Strawberry's handler trusts the client too much: what is not a message
closes the connection with a code, whatever it is, and every refusal carries one too."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import starlette.websockets
from graphql import GraphQLError
from starlette.websockets import WebSocketDisconnect
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws import types as messages
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
)

from app.api.graphql.context import Context
from app.core.errors import AppError

if TYPE_CHECKING:
    from app.api.graphql.view import GraphQLDoor

FORBIDDEN = 4403
_REASON = 120  # a close frame holds 123 bytes of it


class TextSocket(ASGIWebSocketAdapter):
    async def send_json(self, message: Mapping[str, object]) -> None:
        """As text: clients in browsers parse nothing else."""
        encoded = self.view.encode_json(message)
        try:
            await self.ws.send_text(encoded if isinstance(encoded, str) else encoded.decode())
        except (WebSocketDisconnect, starlette.websockets.WebSocketDisconnected) as gone:
            raise WebSocketDisconnected from gone

    refusal: AppError | None = None

    async def close(self, code: int, reason: str) -> None:
        if code == FORBIDDEN and self.refusal is not None:
            reason = self.refusal.code  # instead of the handler's bare "Forbidden"
        await super().close(code, reason.encode()[:_REASON].decode(errors="ignore"))


class CheckedHandler(BaseGraphQLTransportWSHandler[Context, None]):
    view: "GraphQLDoor"
    websocket: TextSocket

    async def handle_connection_init(self, message: messages.ConnectionInitMessage) -> None:
        """Afterwards the key is watched: the connection ends within seconds of its rights."""
        self.context.expel = self._expel
        await super().handle_connection_init(message)

    async def shutdown(self) -> None:
        self.view.forget(self.context)
        await super().shutdown()

    def _expel(self, refusal: AppError) -> None:
        self.websocket.refusal = refusal
        if self.connection_acknowledged:
            self._closing = asyncio.create_task(
                self.websocket.close(FORBIDDEN, refusal.code), name="expel"
            )

    async def handle_task_exception(self, error: Exception) -> None:
        """A viewer that vanished is no error of ours."""
        if not isinstance(error, WebSocketDisconnected):
            await super().handle_task_exception(error)

    async def handle_message(self, message: messages.Message) -> None:
        if wrong := _wrong_with(message):
            await self.handle_invalid_message(wrong)
        else:
            await super().handle_message(message)

    async def handle_subscribe(self, message: messages.SubscribeMessage) -> None:
        most = self.max_subscriptions_per_connection
        known = not self.connection_acknowledged or message["id"] in self.operations
        if known or most is None or len(self.operations) < most:
            await super().handle_subscribe(message)
            return
        refusal = GraphQLError(
            f"One connection runs at most {most} operations at once.",
            extensions={
                "code": "LIMIT_EXCEEDED",
                "limit": most,
                "requestId": self.context.request_id,
            },
        )
        await self.send_message(
            {"id": message["id"], "type": "error", "payload": [refusal.formatted]}
        )


def _wrong_with(message: Any) -> str | None:
    """Why this cannot be a message of the protocol, if it cannot."""
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return "A message is an object with a type"
    if message["type"] not in ("subscribe", "complete"):
        return None
    if not isinstance(message.get("id"), str):
        return "The id must be a string"
    if message["type"] == "complete":
        return None
    payload = message.get("payload")
    if not isinstance(payload, dict) or not isinstance(payload.get("query"), str):
        return "The payload must be an object with a query"
    if not isinstance(payload.get("variables"), dict | None):
        return "The variables must be an object"
    if not isinstance(payload.get("operationName"), str | None):
        return "The operationName must be a string"
    return None
