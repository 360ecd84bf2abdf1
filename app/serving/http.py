"""The routes, in vLLM's words."""

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import orjson
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.serving.engine import Engine
from app.serving.jobs import Delta, Job
from app.serving.protocol import (
    ApiError,
    ChatRequest,
    Choice,
    Completion,
    LoadAdapter,
    ReplyMessage,
    Shape,
    UnloadAdapter,
    Usage,
)
from app.serving.sampling import Sampling

log = logging.getLogger(__name__)

MAX_BODY = 8 * 1024 * 1024
S = TypeVar("S", bound=Shape)


def create_app(engine: Engine, api_key: str) -> Starlette:
    routes = Routes(engine)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.stop()

    app = Starlette(
        routes=[
            Route("/health", routes.health),
            Route("/v1/models", routes.models),
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
            Route("/v1/load_lora_adapter", routes.load, methods=["POST"]),
            Route("/v1/unload_lora_adapter", routes.unload, methods=["POST"]),
        ],
        exception_handlers={
            ApiError: _refused,
            HTTPException: _http_error,
            Exception: _failed,
        },
        lifespan=lifespan,
    )
    app.add_middleware(KeyRequired, key=api_key)
    return app


class KeyRequired:
    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = b"Bearer " + key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                error = ApiError(401, "a valid API key is required", code="invalid_api_key")
                await _reply(error.body(), 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Routes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def health(self, _: Request) -> Response:
        return Response(status_code=200 if self._engine.healthy else 503)

    async def models(self, _: Request) -> Response:
        cards = [card.model_dump() for card in self._engine.cards()]
        return _reply({"object": "list", "data": cards})

    async def load(self, request: Request) -> Response:
        wanted = await _read(request, LoadAdapter)
        self._engine.model  # noqa: B018 - refuses while loading
        await self._engine.load_adapter(wanted.lora_name, wanted.lora_path)
        return PlainTextResponse(f"Success: LoRA adapter '{wanted.lora_name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        wanted = await _read(request, UnloadAdapter)
        self._engine.model  # noqa: B018
        await self._engine.unload_adapter(wanted.lora_name)
        text = f"Success: LoRA adapter '{wanted.lora_name}' removed successfully."
        return PlainTextResponse(text)

    async def chat(self, request: Request) -> Response:
        wanted = await _read(request, ChatRequest)
        engine = self._engine
        model = engine.model
        engine.find(wanted.model)
        if wanted.stream_options and not wanted.stream:
            raise ApiError(400, "stream_options needs stream", param="stream_options")
        n = wanted.n or 1
        if n > engine.max_rows:
            raise ApiError(400, f"n can be at most {engine.max_rows} here", param="n")
        prompt = await engine.render(wanted.messages)
        room = model.max_len - len(prompt)
        if not prompt or room < 1 or (wanted.limit or 1) > room:
            asked = f" and {wanted.limit} were asked for in the answer" if wanted.limit else ""
            raise ApiError(
                400,
                f"This model's maximum context length is {model.max_len} tokens; the messages "
                f"have {len(prompt)}{asked}.",
                param="messages" if room < 1 else wanted.limit_field,
                code="context_length_exceeded",
            )
        sampling = Sampling(
            temperature=_first(wanted.temperature, model.temperature, 1.0),
            top_p=_first(wanted.top_p, model.top_p, 1.0),
            top_k=int(_first(wanted.top_k, model.top_k, 0)),
            frequency_penalty=wanted.frequency_penalty or 0.0,
            presence_penalty=wanted.presence_penalty or 0.0,
            seed=wanted.seed,
            max_tokens=wanted.limit or room,
            stop=tuple(wanted.stop or ()),
            ignore_eos=bool(wanted.ignore_eos),
        )
        job = engine.submit(wanted.model, prompt, sampling, n)
        if wanted.stream:
            usage = bool(wanted.stream_options and wanted.stream_options.include_usage)
            return TokenStream(engine, job, usage)
        try:
            return await _unless_gone(request, _collect(job))
        finally:
            engine.release(job)


class TokenStream(StreamingResponse):
    """Releases the job however the response ends, also before its first byte: a generator that
    was never started runs no `finally`."""

    def __init__(self, engine: Engine, job: Job, usage: bool) -> None:
        super().__init__(
            _chunks(job, usage), media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )  # fmt: skip
        self._engine = engine
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._engine.release(self._job)


async def _chunks(job: Job, include_usage: bool) -> AsyncIterator[bytes]:
    frame: dict[str, Any] = {
        "id": _new_id(), "object": "chat.completion.chunk", "created": int(time.time()),
        "model": job.model,
    }  # fmt: skip
    rest: dict[str, Any] = {"usage": None} if include_usage else {}

    def chunk(index: int, delta: dict[str, str], reason: str | None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event({**frame, "choices": [choice], **rest})

    begun: set[int] = set()
    written = 0
    try:
        async for delta in _deltas(job):
            if delta.index not in begun:
                begun.add(delta.index)
                yield chunk(delta.index, {"role": "assistant", "content": ""}, None)
            if delta.text:
                yield chunk(delta.index, {"content": delta.text}, None)
            if delta.finish_reason:
                written += delta.tokens
                yield chunk(delta.index, {}, delta.finish_reason)
        if include_usage:
            usage = _usage(len(job.prompt), written).model_dump()
            yield _event({**frame, "choices": [], "usage": usage})
    except ApiError as error:
        yield _event(error.body())
    yield b"data: [DONE]\n\n"


async def _collect(job: Job) -> Response:
    texts = [""] * job.n
    ends: dict[int, Delta] = {}
    async for delta in _deltas(job):
        texts[delta.index] += delta.text
        if delta.finish_reason:
            ends[delta.index] = delta
    choices = [
        Choice(
            index=index,
            message=ReplyMessage(content=text),
            finish_reason=ends[index].finish_reason or "stop",
        )
        for index, text in enumerate(texts)
    ]
    usage = _usage(len(job.prompt), sum(end.tokens for end in ends.values()))
    completion = Completion(id=_new_id(), model=job.model, choices=choices, usage=usage)
    return _reply(completion.model_dump())


async def _deltas(job: Job) -> AsyncIterator[Delta]:
    running = job.n
    while running:
        event = await job.inbox.get()
        if isinstance(event, ApiError):
            raise event
        running -= event.finish_reason is not None
        yield event


async def _unless_gone(request: Request, work: Awaitable[Response]) -> Response:
    """Nobody else notices that a client waiting for a whole answer has hung up."""

    async def gone() -> Response:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return Response(status_code=499)

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(gone())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result() if len(done) == 1 else tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


async def _read(request: Request, shape: type[S]) -> S:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise ApiError(413, f"the body is larger than {MAX_BODY} bytes", code="too_large")
    try:
        return shape.model_validate_json(bytes(body))
    except ValidationError as error:
        raise ApiError.from_validation(error) from None


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _usage(prompt: int, written: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=written, total_tokens=prompt + written)


def _new_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _reply(data: dict[str, Any], status: int = 200, retry_after: int | None = None) -> Response:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return Response(orjson.dumps(data), status, headers, media_type="application/json")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - Starlette's table is typed by Exception
    return _reply(error.body(), error.status, error.retry_after)


async def _http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _reply(ApiError(status, str(getattr(error, "detail", error))).body(), status)


async def _failed(_: Request, error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    return _reply(ApiError(500, "internal error").body(), 500)
