"""The ASGI end of the schema: plain HTTP goes to `http`, WebSockets to `live`."""

from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from strawberry.http.websocket_origin import normalize_allowed_origins

from app.api.graphql.caches import Documents, cached
from app.api.graphql.context import Services
from app.api.graphql.guard import guarded
from app.api.graphql.http import HttpDoor
from app.api.graphql.live import asgi
from app.api.graphql.live.engine import Live
from app.api.graphql.schema import build
from app.api.key_watch import KeyWatch
from app.web.routes import graphiql_response


class GraphQLDoor:
    """`/graphql`. Only graphql-transport-ws is spoken: the older protocol is off."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._key_watch = KeyWatch(services)
        settings = services.settings
        documents = Documents(settings.graphql_max_tokens)
        extensions = [guarded(settings, documents), cached(documents)]
        schema = build(extensions, documents, suggestions=settings.suggestions)
        origins = normalize_allowed_origins(settings.allowed_origins)
        self.live = Live(services, self._key_watch, schema, documents, origins)
        self._http = HttpDoor(self.live, documents)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await asgi.serve(self.live, scope, receive, send)
            return
        request = Request(scope)
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            await graphiql_response(request)(scope, receive, send)
            return
        await self._http(scope, receive, send)

    def drain(self) -> None:
        """The server stops: what streams ends."""
        self.live.drain()

    def stop(self) -> None:
        self._key_watch.stop()
        self.live.stop()
