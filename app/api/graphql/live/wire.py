"""What a connection writes to: an own socket, or ASGI's `send`."""

from typing import Any, Protocol

# What one connection may have waiting to be sent. Past it, its viewers are positions only.
MOST_WAITING = 256 * 1024
FEW_WAITING = 64 * 1024
STALLED = 30.0  # seconds after which a connection that takes nothing is cut

PROTOCOL = "graphql-transport-ws"
MOST_REASON = 120  # a close frame holds 123 bytes of it


class Result:
    """What viewers are told, and the position of the stream where it ends. `forms` are made once,
    by the wires, each under a name of its own."""

    __slots__ = ("ending", "forms", "payload", "position")

    def __init__(self, payload: bytes, position: int | None) -> None:
        self.payload, self.position = payload, position
        self.ending = payload + b"}"
        self.forms: dict[Any, bytes] = {}


class Wire(Protocol):
    """Nothing here waits. Whoever made the wire tells the connection when `full` ends."""

    full: bool

    def publish(self, prefix: bytes, result: Result) -> bool:
        """Send a result behind the viewer's prefix; False when the wire is full, and then nothing
        was sent."""
        ...

    def send(self, message: bytes) -> None:
        """Send a message, full or not: for answers, of which a client has a bounded number."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Send what is waiting, then the last words. Nothing is received any more."""
        ...

    def abort(self) -> None:
        """Drop the connection at once."""
        ...
