"""A small GraphQL service behind an API key, with the page in front: the page's tests need a
server whose answers and failures they choose."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from app.web.routes import graphiql_response, routes

KEY = "lt_stand_in_0123456789"


@strawberry.type
class Node:
    id: strawberry.ID


@strawberry.type
class Jobs:
    nodes: list[Node]


@strawberry.type
class Tick:
    cursor: str
    number: int


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str = "world") -> str:
        return f"hello {name}"

    @strawberry.field
    def jobs(self, first: int = 20) -> Jobs:
        return Jobs(nodes=[Node(id=strawberry.ID("ftjob_newest"))][:first])

    @strawberry.field
    def job(self, id: strawberry.ID) -> Node:
        return Node(id=id)


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, after: str = "0") -> AsyncGenerator[Tick, None]:
        for number in range(int(after) + 1, 1_000):
            yield Tick(cursor=str(number), number=number)
            await asyncio.sleep(0.05)


schema = strawberry.Schema(Query, subscription=Subscription)


@dataclass
class StandIn:
    """The running service. `keys` may be changed while it runs; `inits` are the payloads that
    came in `connection_init`."""

    url: str = ""
    keys: set[str] = field(default_factory=lambda: {KEY})
    inits: list[Any] = field(default_factory=list)
    _sockets: list[Send] = field(default_factory=list)

    async def drop_sockets(self) -> None:
        """As a server does that restarts."""
        sockets, self._sockets[:] = list(self._sockets), []
        for send in sockets:
            with suppress(Exception):
                await send({"type": "websocket.close", "code": 1012})


class _Endpoint(GraphQL[Any, Any]):
    service: StandIn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            self.service._sockets.append(send)
        elif (answer := self._without_strawberry(Request(scope))) is not None:
            return await answer(scope, receive, send)
        return await super().__call__(scope, receive, send)

    def _without_strawberry(self, request: Request) -> Response | None:
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return graphiql_response(request)
        if request.headers.get("x-api-key") in self.service.keys:
            return None
        error = {"message": "unknown key", "extensions": {"code": "API_KEY_INVALID"}}
        return JSONResponse({"errors": [error]})  # no 401: the code alone must do

    async def on_ws_connect(self, context: Any) -> Any:
        params = context["connection_params"]
        self.service.inits.append(params)
        if params.get("apiKey") not in self.service.keys:
            raise ConnectionRejectionError({"reason": "unknown key"})
        return strawberry.UNSET


@asynccontextmanager
async def stand_in() -> AsyncIterator[StandIn]:
    service = StandIn()
    endpoint = _Endpoint(
        schema, graphql_ide=None, subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL]
    )
    endpoint.service = service
    app = Starlette(
        routes=[
            *routes(),
            Route("/graphql", endpoint, methods=["GET", "POST"]),
            WebSocketRoute("/graphql", endpoint),
        ]
    )
    # Bound before the server starts, so that a client may connect at once and is kept waiting.
    listener = socket.create_server(("127.0.0.1", 0))
    service.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))  # `serve` would take over SIGINT
    try:
        yield service
    finally:
        server.should_exit = True
        await task
