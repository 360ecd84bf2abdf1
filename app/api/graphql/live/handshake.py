"""The opening handshake, as far as the short path goes: whatever is unusual takes the long one."""

import base64
import binascii
import hashlib
from collections.abc import Collection

from app.api.graphql.live.origin import origin_allowed
from app.api.graphql.live.wire import PROTOCOL

_PATH = "/graphql"
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accepted(request: bytes, origins: Collection[str]) -> bytes | None:
    """The answer that opens the connection; None when this is not one for us."""
    try:
        first, *lines = request.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
    except ValueError:
        return None
    if (method, version) != ("GET", "HTTP/1.1") or target.partition("?")[0] != _PATH:
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            name = name.lower()
            value = value.strip()
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    offered = [token.strip() for token in headers.get("sec-websocket-protocol", "").split(",")]
    key = headers.get("sec-websocket-key", "").encode("latin-1")
    if (
        headers.get("sec-websocket-version") != "13"
        or PROTOCOL not in offered
        or not _is_key(key)
        or not origin_allowed(headers.get("origin"), headers, origins)
    ):
        return None
    proof = base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
    ) % (proof, PROTOCOL.encode())


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False
