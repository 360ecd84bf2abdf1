"""Answers over HTTP: the status and the media type of each, and GraphQL's form for every refusal.

With `application/graphql-response+json` a request that could not be run is a 4xx; with plain
`application/json`, which proxies answer with too, it is a 200, as clients of old expect.
"""

from typing import Any

import orjson
from graphql import GraphQLError
from starlette.types import Send
from strawberry.types import ExecutionResult

from app.api.body import BodyTooLarge
from app.api.graphql.errors import present
from app.api.graphql.negotiation import RESPONSE_JSON
from app.api.graphql.persisted import PersistedQueryNotFound
from app.api.graphql.requests import Refused
from app.api.limits import RateLimited
from app.core import errors
from app.core.errors import AppError, Unavailable

Payload = dict[str, Any]

_ALWAYS_400 = "OPERATION_RESOLUTION_FAILURE"


class TookTooLong(Unavailable):
    code = "TIMEOUT"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"This took longer than {seconds:g} seconds and was ended. Ask for less at once."
        )


class Answer:
    """The one answer to a request; `begun` once its head may have been sent."""

    def __init__(self, send: Send, request_id: str, media_type: str) -> None:
        self.send, self.request_id, self.media_type = send, request_id, media_type
        self.begun = False
        # What a key may see is nobody else's, and no proxy knows that X-API-Key is one.
        self.headers = [(b"x-request-id", request_id.encode()), (b"vary", b"accept")]

    async def give(self, result: ExecutionResult) -> None:
        payload = payload_of(result)
        status, headers = 200, {}
        if "data" not in payload:
            told = [error.extensions or {} for error in result.errors or ()]
            codes = {extensions.get("code") for extensions in told}
            if RateLimited.code in codes:
                status, headers = 429, {"retry-after": str(told[0]["retryAfter"])}
            elif self.media_type == RESPONSE_JSON or _ALWAYS_400 in codes:
                status = 503 if "UNAVAILABLE" in codes else 400
        body = orjson.dumps(payload, option=orjson.OPT_NON_STR_KEYS)
        await self._send(status, body, headers)

    async def refuse(self, refused: Refused) -> None:
        body = {"errors": [self._shown(refused.message, refused.extensions)]}
        await self._send(refused.status, orjson.dumps(body), refused.headers)

    def shown(self, refused: AppError) -> Payload:
        """A refusal as one of `errors`."""
        return self._shown(refused.message, refused.extensions)

    def _shown(self, message: str, extensions: Payload) -> Payload:
        return {"message": message, "extensions": extensions | {"requestId": self.request_id}}

    async def _send(self, status: int, body: bytes, more: dict[str, str]) -> None:
        self.begun = True
        headers = [
            (b"content-type", f"{self.media_type}; charset=utf-8".encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            *self.headers,
            *((name.encode(), value.encode()) for name, value in more.items()),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def payload_of(result: ExecutionResult) -> Payload:
    """A result as JSON has it; `data` is left out when execution never began."""
    payload: Payload = {}
    if result.data is not None or any(error.path for error in result.errors or ()):
        payload["data"] = result.data
    if result.errors:
        payload["errors"] = [error.formatted for error in result.errors]
    if result.extensions:
        payload["extensions"] = result.extensions
    return payload


def of_app_error(refused: AppError, media_type: str) -> Refused:
    status, headers = 400, {}
    match refused:
        case PersistedQueryNotFound():
            status = 400 if media_type == RESPONSE_JSON else 200
        case BodyTooLarge():
            status = 413
        case errors.Unauthenticated():
            status, headers = 401, {"www-authenticate": "Bearer"}
        case errors.Forbidden():
            status = 403
        case RateLimited():
            status, headers = 429, {"retry-after": str(refused.retry_after)}
        case errors.Limited():
            status, headers = 429, {"retry-after": "1"}
        case TookTooLong():
            status = 504
        case errors.Unavailable():
            status, headers = 503, {"retry-after": "1"}
    return Refused(status, refused.code, refused.message, headers, refused.extensions)


def of_bug(bug: Exception, request_id: str) -> Refused:
    """What happened outside the schema, masked and logged as what happens inside it is."""
    shown = present(GraphQLError(str(bug), original_error=bug), request_id)
    code = str((shown.extensions or {})["code"])
    return Refused(503 if code == "UNAVAILABLE" else 500, code, shown.message)
