"""What clients say in graphql-transport-ws, checked for form."""

from dataclasses import dataclass
from typing import Any

import orjson


class Malformed(Exception):
    """No message of the protocol: the connection is closed with these words."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """`payload` is what is sent by POST over HTTP, with a query or a persisted one's hash."""

    id: str
    payload: dict[str, Any]


def parse(text: bytes | str) -> Subscribe | str | dict[str, Any]:
    """A subscribe, the id of a complete, or any other message with what it carries."""
    try:
        message = orjson.loads(text)
    except ValueError as wrong:
        if isinstance(text, bytes):
            text.decode()  # what is not even text has a close code of its own
        raise Malformed("WebSocket message must be valid JSON") from wrong
    if not isinstance(message, dict) or not isinstance(kind := message.get("type"), str):
        raise Malformed("A message is an object with a type")
    match kind:
        case "subscribe":
            return Subscribe(_id(message), _payload(message.get("payload")))
        case "complete":
            return _id(message)
        case "ping" | "pong":
            return message
        case "connection_init":
            payload = message.get("payload")
            if not isinstance(payload, dict | None):
                raise Malformed("Invalid connection init payload")
            return {"type": kind, "payload": payload or {}}
    raise Malformed(f"Unknown message type: {kind[:40]}")


def _id(message: dict[str, Any]) -> str:
    id = message.get("id")
    if not isinstance(id, str):
        raise Malformed("The id must be a string")
    return id


def _payload(payload: Any) -> dict[str, Any]:
    if not isinstance(payload, dict):
        raise Malformed("The payload must be an object")
    if not isinstance(payload.get("extensions"), dict | None):
        raise Malformed("The extensions must be an object")
    known = "persistedQuery" in (payload.get("extensions") or ())
    if not isinstance(payload.get("query"), str | None if known else str):
        raise Malformed("The payload must be an object with a query")
    if not isinstance(payload.get("variables"), dict | None):
        raise Malformed("The variables must be an object")
    if not isinstance(payload.get("operationName"), str | None):
        raise Malformed("The operationName must be a string")
    return payload
