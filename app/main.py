"""Composition root of the API process: settings → database → doorbell → streams → doors."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from strawberry.http.websocket_origin import normalize_allowed_origins

from app.api.graphql.context import Services
from app.api.graphql.view import GraphQLDoor
from app.api.limits import Limits
from app.api.rest.routes import RestDoor
from app.api.webhooks.routes import WebhookDoor
from app.catalog.base_models import BaseModels
from app.catalog.tokens import Tokenizers
from app.core.database import CONNECTION_ERRORS, Database
from app.core.egress import Egress
from app.core.secrets import api_key_pepper, master_key, master_keys
from app.core.settings import Settings
from app.core.vault import Vault
from app.events.doorbell import Doorbell
from app.events.stream import Streams
from app.files import service as files
from app.files.store import FolderStore
from app.providers.registry import Providers
from app.web import routes as web

log = logging.getLogger(__name__)
_SWEEP_EVERY = 3600.0


def create_app(settings: Settings, database_url: str) -> Starlette:
    """The API of one process. The schema is up to date; `database_url` is the owner's."""
    database = Database(database_url, "luthier_app", settings.database_pool)
    broadcast = settings.broadcast_url
    doorbell = Doorbell(broadcast.get_secret_value() if broadcast else database_url)
    database.after_commit = doorbell.ring
    base_models = BaseModels(settings)
    services = Services(
        settings=settings,
        database=database,
        streams=Streams(database, doorbell),
        store=FolderStore(settings.data_dir / "files"),
        base_models=base_models,
        tokenizers=Tokenizers(base_models),
        pepper=api_key_pepper(settings),
        master_key=master_key(settings),
        vault=Vault(master_keys(settings)),
        providers=Providers(settings.provider_origins),
        limits=Limits(settings),
    )
    egress = Egress()
    webhooks = WebhookDoor(services)
    graphql = GraphQLDoor(services)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        await doorbell.start()
        await services.streams.start()
        sweeper = asyncio.create_task(_sweep(services), name="file-sweeper")
        yield {"live": graphql.live}
        sweeper.cancel()
        graphql.stop()
        await services.streams.stop()
        await doorbell.stop()
        await webhooks.stop()
        await egress.close()
        await services.providers.close()
        await database.close()

    async def ready(_: Request) -> Response:
        try:
            async with asyncio.timeout(5), database.transaction(None) as session:
                await (await session.connection()).execute(text("SELECT 1"))
        except (*CONNECTION_ERRORS, SQLAlchemyError) as trouble:
            log.warning("not ready: %s", trouble)
            return JSONResponse({"status": "unavailable", "database": "no answer"}, 503)
        return JSONResponse({"status": "ready", "database": "ok"})

    app = Starlette(
        middleware=_cors(settings),
        routes=[
            Route("/graphql", graphql, methods=None),
            WebSocketRoute("/graphql", graphql),
            *RestDoor(services, egress).routes(),
            *webhooks.routes(),
            Route("/healthz", _healthy),
            Route("/readyz", ready),
            *web.routes(),
        ],
        lifespan=lifespan,
    )
    app.state.drain = graphql.drain
    return app


def _cors(settings: Settings) -> list[Middleware]:
    """Pages of these origins may read our answers; without any, there is nothing to run."""
    if not settings.allowed_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=sorted(normalize_allowed_origins(settings.allowed_origins)),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "last-event-id", "x-api-key"],
            expose_headers=["retry-after", "x-request-id"],
            max_age=3_600,
        )
    ]


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _sweep(services: Services) -> None:
    while True:
        root = services.settings.data_dir / "files"
        if removed := await asyncio.to_thread(files.sweep, root):
            log.info("removed %d uploads that never completed", removed)
        try:
            if removed := await files.sweep_unreferenced(services.database, services.store):
                log.info("removed %d contents that no file refers to", removed)
        except (*CONNECTION_ERRORS, SQLAlchemyError) as trouble:
            log.warning("unreferenced contents are left for the next time: %s", trouble)
        await asyncio.sleep(_SWEEP_EVERY)
