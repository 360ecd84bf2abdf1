"""The ASGI end of the schema: HTTP for queries and mutations, graphql-transport-ws for all."""

from datetime import timedelta

import orjson
from cross_web import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from app.api import authentication
from app.api.body import BodyTooLarge, bounded
from app.api.graphql.context import Context, Services
from app.api.graphql.guard import guarded
from app.api.graphql.schema import build
from app.api.graphql.socket import CheckedHandler, TextSocket
from app.core.errors import AppError, Forbidden
from app.web.routes import graphiql_response


class GraphQLDoor(GraphQL[Context, None]):
    """`/graphql`. Only graphql-transport-ws is spoken: the older protocol is off."""

    websocket_adapter_class = TextSocket
    graphql_transport_ws_handler_class = CheckedHandler

    def __init__(self, services: Services) -> None:
        self._services = services
        settings = services.settings
        super().__init__(
            build([guarded(settings)]),
            graphql_ide=None,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=timedelta(seconds=settings.connection_init_seconds),
            max_subscriptions_per_connection=settings.max_subscriptions_per_connection,
            allowed_origins=tuple(settings.allowed_origins),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        limit = self._services.settings.max_body_bytes
        request = Request(scope, bounded(scope, receive, limit))
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            await graphiql_response(request)(scope, receive, send)
            return
        request_id = authentication.new_request_id()
        scope["luthier.request_id"] = request_id
        try:
            response = await self.run(request)
        except HTTPException as refused:
            code = "METHOD_NOT_ALLOWED" if refused.status_code == 405 else "BAD_REQUEST"
            response = error_response(refused.reason, code, refused.status_code, request_id)
        except AppError as refused:
            status = 403 if isinstance(refused, Forbidden) else 401
            if isinstance(refused, BodyTooLarge):
                status = 413
            response = error_response(refused.message, refused.code, status, request_id)
        response.headers["x-request-id"] = request_id
        await response(scope, receive, send)

    async def get_context(
        self, request: Request | WebSocket, response: Response | WebSocket
    ) -> Context:
        if isinstance(request, WebSocket):
            return Context(self._services, authentication.new_request_id())
        request_id = request.scope["luthier.request_id"]
        actor = await authentication.actor_of_headers(self._services, request.headers, request_id)
        return Context(self._services, request_id, actor)

    async def on_ws_connect(self, context: Context) -> None:
        try:
            context.signed_in = await authentication.actor_of_params(
                self._services, context.connection_params, context.request_id
            )
        except AppError as refused:
            raise ConnectionRejectionError({"code": refused.code}) from refused

    def decode_json(self, data: str | bytes) -> object:
        """orjson refuses what makes the standard library recurse too deep or fail to decode."""
        return orjson.loads(data)

    def encode_json(self, data: object) -> bytes:
        return orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS)


def error_response(message: str, code: str, status: int, request_id: str) -> Response:
    """A GraphQL answer that never reached the schema."""
    body = {"errors": [{"message": message, "extensions": {"code": code, "requestId": request_id}}]}
    headers = {"allow": "GET, POST"} if status == 405 else {}
    return Response(orjson.dumps(body), status, headers, "application/json")
