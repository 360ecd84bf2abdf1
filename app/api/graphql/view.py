"""The ASGI end of the schema: HTTP for queries and mutations, graphql-transport-ws for all."""

from datetime import timedelta
from typing import Any

import orjson
from cross_web import AsyncHTTPRequestAdapter, HTTPException
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError, MissingQueryError
from strawberry.http import GraphQLRequestData
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from app.api import authentication
from app.api.body import BodyTooLarge, bounded
from app.api.graphql.context import Context, Services
from app.api.graphql.guard import guarded
from app.api.graphql.schema import build
from app.api.graphql.socket import CheckedHandler, TextSocket
from app.api.key_watch import KeyWatch
from app.core.database import CONNECTION_ERRORS
from app.core.errors import AppError, Forbidden
from app.web.routes import graphiql_response

_ANSWERED_AT_ONCE = {
    "GET": {OperationType.QUERY},
    "POST": {OperationType.QUERY, OperationType.MUTATION},
}
_NEEDS_A_STREAM = (
    "A subscription needs a transport that streams: graphql-transport-ws over a WebSocket, or an "
    "Accept header of text/event-stream or multipart/mixed."
)


class GraphQLDoor(GraphQL[Context, None]):
    """`/graphql`. Only graphql-transport-ws is spoken: the older protocol is off."""

    websocket_adapter_class = TextSocket
    graphql_transport_ws_handler_class = CheckedHandler

    def __init__(self, services: Services) -> None:
        self._services = services
        self._key_watch = KeyWatch(services)
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
        except (*CONNECTION_ERRORS, SQLAlchemyError):  # before the schema: looking up the key
            words = "The database does not answer. Try again in a moment."
            response = error_response(words, "UNAVAILABLE", 503, request_id)
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

    def forget(self, context: Context) -> None:
        """The connection is over."""
        if context.key and context.expel:
            self._key_watch.remove(context.key, context.expel)

    def stop(self) -> None:
        self._key_watch.stop()

    async def on_ws_connect(self, context: Context) -> None:
        key = authentication.key_of_params(context.connection_params)
        try:
            context.signed_in = await authentication.actor_of_key(
                self._services, key, context.request_id
            )
            if key and context.expel:
                context.key = key
                self._key_watch.add(key, context.signed_in, context.expel)
        except AppError as refused:
            if context.expel:
                context.expel(refused)
            raise ConnectionRejectionError({"code": refused.code}) from refused

    async def execute_single(
        self,
        request: Request,
        request_adapter: AsyncHTTPRequestAdapter,
        sub_response: Response,
        context: Context,
        root_value: None,
        request_data: GraphQLRequestData,
    ) -> ExecutionResult:
        """One answer to one request: what strawberry does, with refusals that say what to do."""
        try:
            return await self.schema.execute(
                request_data.query,
                variable_values=request_data.variables,
                root_value=root_value,
                context_value=context,
                operation_name=request_data.operation_name,
                operation_extensions=request_data.extensions,
                allowed_operation_types=_ANSWERED_AT_ONCE[request.method],
            )
        except CannotGetOperationTypeError as wrong:
            raise HTTPException(400, wrong.as_http_error_reason()) from wrong
        except MissingQueryError as wrong:
            raise HTTPException(400, "No GraphQL query found in the request.") from wrong
        except InvalidOperationTypeError as wrong:
            if wrong.operation_type is OperationType.MUTATION:
                raise HTTPException(405, "A mutation is sent by POST.") from wrong
            raise HTTPException(400, _NEEDS_A_STREAM) from wrong

    def parse_json(self, data: str | bytes) -> Any:
        parsed = super().parse_json(data)
        if not isinstance(parsed, dict | list):
            raise HTTPException(400, "The request must be a JSON object.")
        return parsed

    def decode_json(self, data: str | bytes) -> object:
        """orjson refuses what makes the standard library recurse too deep or fail to decode."""
        return orjson.loads(data)

    def encode_json(self, data: object) -> bytes:
        return orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS)


def error_response(message: str, code: str, status: int, request_id: str) -> Response:
    """A GraphQL answer that never reached the schema."""
    body = {"errors": [{"message": message, "extensions": {"code": code, "requestId": request_id}}]}
    headers = {405: {"allow": "GET, POST"}, 401: {"www-authenticate": "Bearer"}}.get(status, {})
    return Response(orjson.dumps(body), status, headers, "application/json")
