"""`/v1`: files in and out, and chat completions of deployed models, in OpenAI's shapes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from app.accounts import credentials
from app.api import authentication
from app.api.body import bounded
from app.api.graphql.context import Services
from app.api.limits import EACH
from app.api.rest.errors import error_response, expected
from app.api.rest.upload import Upload
from app.api.rest.weights import files_in, tar_of
from app.core.actor import Actor, Role, Scope
from app.core.egress import Egress
from app.core.errors import AppError, Invalid, Unavailable
from app.core.paging import PageRequest
from app.core.secrets import serving_token
from app.files import service as files
from app.files.errors import FileNotFound
from app.files.store import too_large
from app.files.tables import File
from app.jobs import checkpoints
from app.models import service as models
from app.models.errors import ModelNotFound
from app.providers.registry import LOCAL

# What multipart/form-data may add to a file's own bytes.
_FORM_OVERHEAD = 64 * 1024
_LARGEST_CHAT = 8 * 1024 * 1024

Handler = Callable[[Request, Actor], Awaitable[Response]]
Authenticate = Callable[[Services, Mapping[str, str], str], Awaitable[Actor]]


class RestDoor:
    def __init__(self, services: Services, egress: Egress) -> None:
        self._services, self._egress = services, egress

    def routes(self) -> list[Route]:
        return [
            Route("/v1/files", self._door(self._upload), methods=["POST"]),
            Route("/v1/files", self._door(self._list), methods=["GET"]),
            Route("/v1/files/{id}", self._door(self._retrieve), methods=["GET"]),
            Route("/v1/files/{id}", self._door(self._delete), methods=["DELETE"]),
            Route("/v1/files/{id}/content", self._door(self._content), methods=["GET"]),
            Route("/v1/models", self._door(self._models), methods=["GET"]),
            Route("/v1/models/{id}/content", self._door(self._weights), methods=["GET"]),
            Route(
                "/v1/chat/completions",
                self._door(self._chat, authentication.caller_of_headers),
                methods=["POST"],
            ),
        ]

    def _door(
        self, handler: Handler, authenticate: Authenticate = authentication.actor_of_headers
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            request_id = authentication.new_request_id()
            try:
                actor = await authenticate(self._services, request.headers, request_id)
                self._services.limits.rates.spend(actor.key_id, EACH)
                response = await handler(request, actor)
            except AppError as refused:
                response = error_response(refused)
            except ClientDisconnect:
                response = Response(status_code=499)
            except Exception as trouble:  # noqa: BLE001 - told in OpenAI's form, whatever it is
                response = error_response(expected(trouble, request_id))
            response.headers["x-request-id"] = request_id
            return response

        return answer

    async def _upload(self, request: Request, actor: Actor) -> Response:
        services, limit = self._services, self._services.settings.max_upload_bytes
        actor.require(Scope.WRITE, Role.ADMIN)
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit + _FORM_OVERHEAD:
            raise too_large(limit)
        upload = Upload(request)
        stored = await files.store(services.store, actor, upload.chunks(), limit)
        purpose = upload.fields.get("purpose", "")
        if purpose != "fine-tune":
            raise Invalid('purpose must be "fine-tune".', path=("purpose",))
        async with services.database.transaction(actor.org_id) as session:
            file = await files.add(session, actor, stored, upload.filename or "file", purpose)
        return _json(_file(file))

    async def _list(self, request: Request, actor: Actor) -> Response:
        query = request.query_params
        limit = query.get("limit", "20")
        if not limit.isdigit():
            raise Invalid("limit must be a whole number.", path=("limit",))
        request_page = PageRequest.of(int(limit), query.get("after"))
        async with self._services.database.transaction(actor.org_id) as session:
            page = await files.page(session, actor, request_page, query.get("purpose"))
        return _json(
            {
                "object": "list",
                "data": [_file(row) for row in page.rows],
                "has_more": page.has_next,
                "next_cursor": page.cursors[-1] if page.has_next else None,
            }
        )

    async def _retrieve(self, request: Request, actor: Actor) -> Response:
        async with self._services.database.transaction(actor.org_id) as session:
            return _json(_file(await files.get(session, actor, request.path_params["id"])))

    async def _delete(self, request: Request, actor: Actor) -> Response:
        services = self._services
        async with services.database.transaction(actor.org_id) as session:
            file, last = await files.delete(session, actor, request.path_params["id"])
        if last:
            files.forget(services.store, file)
        return _json({"id": file.id, "object": "file", "deleted": True})

    async def _content(self, request: Request, actor: Actor) -> Response:
        async with self._services.database.transaction(actor.org_id) as session:
            file = await files.get(session, actor, request.path_params["id"])
        if not self._services.store.exists(actor.org_id, file.sha256):
            raise FileNotFound(f"The bytes of {file.id} are gone from the store.")
        return FileResponse(
            self._services.store.path(actor.org_id, file.sha256),
            media_type="application/octet-stream",
            filename=file.filename,
        )

    async def _models(self, request: Request, actor: Actor) -> Response:
        """The models this key can call now."""
        async with self._services.database.transaction(actor.org_id) as session:
            page = await models.page(session, actor, PageRequest(200), deployed=True)
        return _json(
            {
                "object": "list",
                "data": [
                    {
                        "id": row.name,
                        "object": "model",
                        "created": int(row.created_at.timestamp()),
                        "owned_by": row.org_id,
                    }
                    for row in page.rows
                    if row.project_id == actor.project_id
                ],
            }
        )

    async def _weights(self, request: Request, actor: Actor) -> Response:
        """Of a model or a checkpoint, by its id."""
        services = self._services
        async with services.database.transaction(actor.org_id) as session:
            found = await checkpoints.weights(session, actor, request.path_params["id"])
        folder = services.settings.data_dir / found.path
        parts = await asyncio.to_thread(files_in, folder)
        if not parts:
            raise ModelNotFound("Its weights are not on this machine.", path=("id",))
        return StreamingResponse(
            tar_of(folder, parts),
            media_type="application/x-tar",
            headers={"content-disposition": f'attachment; filename="{found.filename}"'},
        )

    async def _chat(self, request: Request, actor: Actor) -> Response:
        receive = bounded(request.scope, request.receive, _LARGEST_CHAT)
        body = await Request(request.scope, receive).body()
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError as wrong:
            raise Invalid(f"The body is not JSON: {wrong}") from wrong
        if not isinstance(asked, dict) or not isinstance(asked.get("model"), str):
            raise Invalid("model must be text.", path=("model",))
        services = self._services
        async with services.database.transaction(actor.org_id) as session:
            answering = await models.answering(session, actor, asked["model"])
            row = None
            if answering.provider != LOCAL:
                row = await credentials.of_project(
                    session, actor.org_id, answering.project_id, answering.provider
                )
        stack = AsyncExitStack()
        if answering.provider == LOCAL:
            token = serving_token(services.master_key, answering.endpoint)
            url = f"{answering.endpoint}/v1/chat/completions"
            reply = await stack.enter_async_context(self._egress.post(url, body, token))
        else:
            if row is None:
                raise Unavailable(f"There is no credential for {answering.provider} any more.")
            account = credentials.opened(services.vault, row)
            adapter = services.providers.adapter(answering.provider, account, row.id)
            reply = await stack.enter_async_context(adapter.chat(answering.endpoint, asked))

        async def relay() -> AsyncIterator[bytes]:
            async with stack:
                async for chunk in reply.chunks:
                    yield chunk

        return StreamingResponse(relay(), reply.status, media_type=reply.content_type)


def _file(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created_at.timestamp()),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "sha256": file.sha256,
    }


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
