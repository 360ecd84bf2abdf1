"""GraphQL over HTTP: one answer, or a stream.

Strawberry's view answers in ways the specification and real clients do not expect (which status,
which media type, plain-text errors, no cancellation), so the HTTP side is ours; the schema is all
that is taken from it.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.types.graphql import OperationType

from app.api import authentication
from app.api.body import bounded
from app.api.graphql.answers import Answer, TookTooLong, of_app_error, of_bug
from app.api.graphql.caches import Documents
from app.api.graphql.context import Context
from app.api.graphql.live.engine import Live
from app.api.graphql.live.plans import Request
from app.api.graphql.live.streaming import Streaming
from app.api.graphql.negotiation import JSON, RESPONSE_JSON, Accepted, Stream, negotiate
from app.api.graphql.requests import Asked, Gone, Refused, asked
from app.api.graphql.transports import TRANSPORTS
from app.api.limits import EACH
from app.core.errors import AppError, Unavailable

_AT_ONCE = {OperationType.QUERY, OperationType.MUTATION}
_NEEDS_STREAM = (
    "A subscription needs a transport that streams: graphql-transport-ws over a WebSocket, or an "
    "Accept header of text/event-stream or multipart/mixed;subscriptionSpec=1.0."
)


class HttpDoor:
    """`/graphql` over HTTP."""

    def __init__(self, live: Live, documents: Documents) -> None:
        self._live, self._documents = live, documents
        self._services, self._schema = live.services, live.schema

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = authentication.new_request_id()
        headers = Headers(scope=scope)
        accepted = negotiate(headers.get("accept", ""))
        answer = Answer(send, request_id, (accepted and accepted.answer) or JSON)
        try:
            await self._handle(scope, receive, headers, accepted, answer)
        except Gone:
            return
        except Refused as refused:
            await answer.refuse(refused)
        except AppError as refused:
            await answer.refuse(of_app_error(refused, answer.media_type))
        except Exception as bug:
            if answer.begun:
                raise
            await answer.refuse(of_bug(bug, request_id))

    async def _handle(
        self,
        scope: Scope,
        receive: Receive,
        headers: Headers,
        accepted: Accepted | None,
        answer: Answer,
    ) -> None:
        method = scope["method"]
        if method not in ("GET", "POST"):
            raise Refused(
                405,
                "METHOD_NOT_ALLOWED",
                "GraphQL is asked by GET or POST.",
                {"allow": "GET, POST"},
            )
        if accepted is None:
            raise Refused(
                406,
                "NOT_ACCEPTABLE",
                f"The answer is {JSON}, {RESPONSE_JSON}, text/event-stream or multipart/mixed; "
                "the Accept header allows none of them.",
            )
        services = self._services
        key = authentication.key_of_headers(headers)
        actor = await authentication.actor_of_key(services, key, answer.request_id)
        services.limits.rates.spend(actor.key_id, EACH)
        limit = services.settings.max_body_bytes
        question = await asked(scope, headers, bounded(scope, receive, limit))
        context = Context(services, answer.request_id, actor)
        kind = self._documents.operation_type(question.query, question.operation_name)
        if kind is OperationType.MUTATION and method == "GET":
            raise Refused(
                405, "METHOD_NOT_ALLOWED", "A mutation is sent by POST.", {"allow": "POST"}
            )
        if kind is OperationType.SUBSCRIPTION or accepted.streams_all:
            await self._stream(question, context, accepted.stream, headers, receive, answer)
        elif accepted.answer is None:
            raise Refused(406, "NOT_ACCEPTABLE", "Only a subscription is sent in parts.")
        else:
            await self._answer(question, context, kind, receive, answer)

    async def _answer(
        self,
        question: Asked,
        context: Context,
        kind: OperationType | None,
        receive: Receive,
        answer: Answer,
    ) -> None:
        """A query ends when its client leaves. A mutation does not: what was asked for is done, and
        whoever sends it again has its idempotency key."""
        watch = _Watch(None if kind is OperationType.MUTATION else receive)
        seconds = self._services.settings.graphql_seconds
        try:
            async with asyncio.timeout(seconds):
                result = await self._schema.execute(
                    question.query,
                    variable_values=question.variables,
                    context_value=context,
                    operation_name=question.operation_name,
                    operation_extensions=question.extensions,
                    allowed_operation_types=_AT_ONCE,
                )
            watch.stop()
            await answer.give(result)
        except CannotGetOperationTypeError as wrong:
            reason = wrong.as_http_error_reason()
            raise Refused(400, "OPERATION_RESOLUTION_FAILURE", reason) from wrong
        except TimeoutError as late:
            raise TookTooLong(seconds) from late
        except asyncio.CancelledError:
            if not watch.gone:
                raise
        finally:
            watch.stop()

    async def _stream(
        self,
        question: Asked,
        context: Context,
        kind: Stream | None,
        headers: Headers,
        receive: Receive,
        answer: Answer,
    ) -> None:
        if kind is None:
            raise Refused(400, "SUBSCRIPTION_NEEDS_STREAM", _NEEDS_STREAM)
        if self._live.draining:
            raise Unavailable("This server is stopping. Connect again.")
        key = authentication.key_of_headers(headers) or ""
        stream = Streaming(self._live, TRANSPORTS[kind], answer.request_id, key, context.actor)
        answer.begun = True
        request = Request(question.query, question.variables, question.operation_name)
        stream.begin(request, headers.get("last-event-id"), answer.headers)
        await stream.run(receive, answer.send)


class _Watch:
    """Cancels the task it was made in when the client leaves."""

    def __init__(self, receive: Receive | None) -> None:
        self.gone = False
        self._work = asyncio.current_task()
        self._task = asyncio.create_task(self._look(receive)) if receive else None

    def stop(self) -> None:
        if self._task:
            self._task.cancel()

    async def _look(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._work:
            self._work.cancel()
