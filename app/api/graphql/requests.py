"""What an HTTP request asks of GraphQL: document, variables and name; or why it asks nothing."""

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope

from app.api.graphql.persisted import resolve_persisted


class Refused(Exception):
    """The request never reaches the schema: an HTTP status, with GraphQL's form of an error."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: dict[str, str] | None = None,
        extensions: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = headers or {}
        self.extensions = (extensions or {}) | {"code": code}


class Gone(Exception):
    """The client left before it had said what it wants."""


@dataclass(frozen=True)
class Asked:
    query: str
    variables: dict[str, Any] | None
    operation_name: str | None
    extensions: dict[str, Any] | None


async def asked(scope: Scope, headers: Headers, receive: Receive) -> Asked:
    """Raises Refused, Gone, or a refusal of the persisted query."""
    if scope["method"] == "GET":
        given = _of_parameters(QueryParams(scope["query_string"]))
    else:
        _require_json(headers.get("content-type", ""))
        given = _json(await _body(receive))
    if isinstance(given, list):
        raise _bad("Batching is off: send one operation per request.")
    if not isinstance(given, dict):
        raise _bad("The request must be a JSON object.")
    for name, kind, words in (
        ("query", str, "a string"),
        ("operationName", str, "a string"),
        ("variables", dict, "an object"),
        ("extensions", dict, "an object"),
    ):
        if not isinstance(given.get(name), kind | None):
            raise _bad(f"`{name}` must be {words} or null.")
    query = resolve_persisted(given)
    if not query:
        raise _bad("No GraphQL query found in the request.")
    return Asked(
        query, given.get("variables"), given.get("operationName") or None, given.get("extensions")
    )


def _bad(message: str) -> Refused:
    return Refused(400, "BAD_REQUEST", message)


def _of_parameters(parameters: QueryParams) -> dict[str, Any]:
    given: dict[str, Any] = dict(parameters)
    for name in ("variables", "extensions"):
        if text := given.pop(name, None):
            given[name] = _json(text)
    return given


def _require_json(content_type: str) -> None:
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charset = next((p[8:].strip('"') for p in parameters if p.startswith("charset=")), "utf-8")
    if kind != "application/json" or charset not in ("utf-8", "utf8"):
        raise Refused(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "Send the request as application/json in UTF-8.",
            {"accept-post": "application/json"},
        )


async def _body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(chunks)


def _json(text: str | bytes) -> Any:
    """orjson refuses what makes the standard library recurse too deep or fail to decode."""
    try:
        return orjson.loads(text)
    except ValueError as wrong:
        raise _bad("Unable to parse the request as JSON.") from wrong
