"""One subscription over graphql-transport-ws that survives its connections.

The stream remembers the cursor of the last event it handed out and asks for what comes after it
each time it connects again: the server owes exactly the rest, so no event is lost or repeated.
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.typing import Subprotocol

from app.client.errors import ApiError, Unreachable
from app.client.timing import Backoff, Timing

_PROTOCOL = Subprotocol("graphql-transport-ws")
_LARGEST_MESSAGE = 16 * 1024 * 1024
_OPERATION = "1"
# The server means it: coming back with the same would be refused again.
_REFUSALS = {
    4400: "BAD_REQUEST",
    4401: "UNAUTHENTICATED",
    4403: "UNAUTHENTICATED",
    4406: "PROTOCOL_MISMATCH",
    4409: "BAD_REQUEST",
    4429: "BAD_REQUEST",
    1003: "BAD_REQUEST",
    1007: "BAD_ANSWER",
    1008: "FORBIDDEN",
    1009: "BAD_ANSWER",
    1010: "PROTOCOL_MISMATCH",
}
_TRY_AGAIN = {"UNAVAILABLE", "RATE_LIMITED"}
_REFUSED_STATUSES = {400, 401, 403, 404, 405, 426}


@dataclass(frozen=True)
class LinkState:
    """News of the connection beneath a stream. `retry_in` is None while it is up."""

    up: bool
    reason: str = ""
    retry_in: float | None = None


OnState = Callable[[LinkState], None]


class _Lost(Exception):
    """The connection is gone, or never came about; coming back is right."""


class LiveStream:
    """Iterate `events()` once. `variables["after"]` is where it begins, and is kept up to date."""

    def __init__(
        self,
        url: str,
        api_key: str,
        document: str,
        variables: dict[str, Any],
        *,
        cursor: str | None,
        timing: Timing,
        proxy: Literal[True] | None = True,
        on_state: OnState | None = None,
    ) -> None:
        self._url, self._api_key = url, api_key
        self._document, self._variables = document, dict(variables)
        self._cursor = cursor
        self._timing, self._backoff = timing, Backoff(timing)
        self._proxy = proxy
        self._tell = on_state or (lambda _: None)
        self._was_up = False
        self._up_since: float | None = None
        self._down_since: float | None = time.monotonic()

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Each event's `data`, until the server says that no more will come.

        Raises ApiError when the server refuses, Unreachable when patience ends.
        """
        while True:
            try:
                async with aclosing(self._connection()) as payloads:
                    async for payload in payloads:
                        self._settle()
                        self._remember(payload)
                        yield payload["data"]
                return
            except _Lost as lost:
                await self._wait(str(lost))

    async def _connection(self) -> AsyncGenerator[dict[str, Any], None]:
        """The payloads of one connection."""
        with _translated():
            async with connect(
                self._url,
                subprotocols=[_PROTOCOL],
                open_timeout=self._timing.connect,
                close_timeout=0.3,  # nothing is owed to the server at the end
                ping_interval=self._timing.ping_every,
                ping_timeout=self._timing.ping_every,
                max_size=_LARGEST_MESSAGE,
                proxy=self._proxy,
            ) as socket:
                await self._begin(socket)
                while (payload := await self._next(socket)) is not None:
                    yield payload

    async def _begin(self, socket: ClientConnection) -> None:
        if socket.subprotocol != _PROTOCOL:
            raise ApiError(
                f"The server at {self._url} does not speak {_PROTOCOL}.", "PROTOCOL_MISMATCH"
            )
        init = {"type": "connection_init", "payload": {"apiKey": self._api_key}}
        await socket.send(json.dumps(init))
        async with asyncio.timeout(self._timing.connect):
            while (await _frame(socket)).get("type") != "connection_ack":
                pass
        payload = {"query": self._document, "variables": self._variables}
        ask = {"id": _OPERATION, "type": "subscribe", "payload": payload}
        await socket.send(json.dumps(ask))
        self._was_up, self._up_since = True, time.monotonic()
        self._tell(LinkState(up=True))

    async def _next(self, socket: ClientConnection) -> dict[str, Any] | None:
        """The next event's payload; None when the server says that it was the last."""
        while True:
            frame = await _frame(socket)
            match frame.get("type"):
                case "next":
                    return _good(frame["payload"])
                case "error":
                    raise _refusal(frame.get("payload") or [])
                case "complete":
                    return None
                case "ping":
                    # Closed already? What came before the end is still there to be read.
                    with suppress(ConnectionClosed):
                        await socket.send('{"type":"pong"}')

    def _remember(self, payload: dict[str, Any]) -> None:
        found: Any = payload
        path = self._cursor or f"data.{next(iter(payload['data']))}.cursor"
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, str):
            self._variables["after"] = found

    def _settle(self) -> None:
        """The stream works: forget past trouble."""
        self._backoff.reset()
        self._down_since = None

    async def _wait(self, reason: str) -> None:
        """Until it is time to try again. Raises Unreachable when it has been long enough."""
        now = time.monotonic()
        if self._up_since is not None and now - self._up_since > self._timing.retry_most:
            self._settle()  # it was quiet, but it held
        self._up_since = None
        if self._down_since is None:
            self._down_since = now
        limit = self._timing.reconnect if self._was_up else self._timing.first_connect
        pause = self._backoff.pause()
        if limit is not None and now + pause - self._down_since > limit:
            raise Unreachable(f"No answer from {self._url} for {limit:g} s: {reason}.")
        self._tell(LinkState(up=False, reason=reason, retry_in=pause))
        await asyncio.sleep(pause)


async def _frame(socket: ClientConnection) -> dict[str, Any]:
    text = await socket.recv()
    try:
        frame = json.loads(text)
    except ValueError as wrong:
        raise ApiError("The server sent what is not JSON.", "BAD_ANSWER") from wrong
    return frame if isinstance(frame, dict) else {}


def _good(payload: dict[str, Any]) -> dict[str, Any]:
    if errors := payload.get("errors"):
        raise _refusal(errors)
    if not isinstance(payload.get("data"), dict):
        raise ApiError("The server sent an event without data.", "BAD_ANSWER")
    return payload


def _refusal(errors: list[dict[str, Any]]) -> Exception:
    """What says "try again" by its own words, as while the database restarts, is no refusal."""
    refused = ApiError.of_graphql(errors)
    return _Lost(refused.message) if refused.code in _TRY_AGAIN else refused


@contextmanager
def _translated() -> Iterator[None]:
    """What sockets raise, as either "come back" or "refused"."""
    try:
        yield
    except ConnectionClosed as closed:
        raise _of_close(closed) from closed
    except InvalidStatus as answer:
        status = answer.response.status_code
        if status in _REFUSED_STATUSES:
            raise ApiError(
                f"The server refused the stream with HTTP status {status}.", f"HTTP_{status}"
            ) from answer
        raise _Lost(f"HTTP status {status}") from answer
    except InvalidURI as wrong:
        raise ApiError(f"This is no address of a server: {wrong}", "BAD_REQUEST") from wrong
    except (InvalidMessage, ProxyError) as broken:
        raise _Lost("the connection broke off") from broken
    except InvalidHandshake as wrong:
        raise ApiError(f"The server does not open streams: {wrong}", "BAD_ANSWER") from wrong
    except ssl.SSLCertVerificationError as wrong:
        raise ApiError(f"The server is not who it says: {wrong}", "BAD_CERTIFICATE") from wrong
    except TimeoutError as slow:
        raise _Lost("no answer in time") from slow
    except (OSError, EOFError) as trouble:
        raise _Lost(str(trouble) or type(trouble).__name__) from trouble


def _of_close(closed: ConnectionClosed) -> Exception:
    close = closed.rcvd or closed.sent
    code, reason = (close.code, close.reason) if close else (1006, "")
    if code not in _REFUSALS:
        return _Lost(f"closed with {code} {reason}".rstrip())
    if code in (4401, 4403):
        return ApiError("The server does not accept this API key.", _REFUSALS[code])
    return ApiError(
        f"The server refused the stream: {reason or 'no reason given'} ({code}).", _REFUSALS[code]
    )
