"""One connection of a viewer, over each transport: its results, until the server completes them."""

import json
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import websockets
from websockets.typing import Subprotocol

from tests.chaos.seats import DOCUMENTS, Seat, Transport

# A small receive buffer, so that one who stalls is soon felt by the server; yet larger than the
# loopback's packets, or the kernel would send by its timers only.
_FEW = 128 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)  # closing then resets the connection
_ACCEPT = {
    Transport.EVENTS: "text/event-stream",
    Transport.PARTS: 'multipart/mixed;boundary="graphql";subscriptionSpec=1.0,application/json',
}


class Cut(Exception):
    """The connection is gone, or never came about; coming back is right."""


class Refused(Exception):
    """The server means it."""


class Link(Protocol):
    def nodes(self) -> AsyncIterator[dict[str, Any]]: ...

    def reset(self) -> None:
        """Make it end without a goodbye when it is closed."""


@dataclass(frozen=True)
class Ask:
    key: str
    seat: Seat
    position: str
    resumes: bool

    def payload(self, after: str) -> dict[str, Any]:
        variables = self.seat.variables | {"after": after}
        return {"query": DOCUMENTS[self.seat.field], "variables": variables}


def connect(url: str, ask: Ask) -> AbstractAsyncContextManager[Link]:
    socketed = ask.seat.transport in (Transport.SOCKET, Transport.ASGI_SOCKET)
    return _over_socket(url, ask) if socketed else _over_http(url, ask)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except websockets.ConnectionClosed as closed:
        if closed.rcvd and closed.rcvd.code not in (1001, 1006, 1012, 1013):
            raise Refused(f"closed with {closed.rcvd.code} {closed.rcvd.reason}") from closed
        raise Cut(str(closed)) from closed
    except (OSError, EOFError, websockets.InvalidHandshake, httpx.TransportError) as trouble:
        raise Cut(f"{type(trouble).__name__}: {trouble}") from trouble


def _judged(errors: list[dict[str, Any]]) -> Exception:
    codes = {error.get("extensions", {}).get("code") for error in errors}
    return (Cut if codes == {"UNAVAILABLE"} else Refused)(json.dumps(errors))


def _node(payload: dict[str, Any]) -> dict[str, Any]:
    if payload.get("errors"):
        raise _judged(payload["errors"])
    [node] = payload["data"].values()
    found: dict[str, Any] = node
    return found


class _SocketLink:
    def __init__(self, raw: websockets.ClientConnection) -> None:
        self._raw = raw

    async def nodes(self) -> AsyncIterator[dict[str, Any]]:
        with _translated():
            while (message := json.loads(await self._raw.recv()))["type"] != "complete":
                if message["type"] == "error":
                    raise _judged(message["payload"])
                if message["type"] == "next":
                    yield _node(message["payload"])

    def reset(self) -> None:
        end: socket.socket = self._raw.transport.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._raw.transport.abort()


@asynccontextmanager
async def _over_socket(url: str, ask: Ask) -> AsyncIterator[Link]:
    address = urlsplit(url)
    with _translated():
        end = socket.create_connection((address.hostname, address.port or 0), timeout=5)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _FEW)
        async with websockets.connect(
            f"ws{url.removeprefix('http')}/graphql",
            sock=end,
            subprotocols=[Subprotocol("graphql-transport-ws")],
            open_timeout=10,
            close_timeout=0.5,
            ping_interval=None,  # the server's are enough
        ) as raw:
            init = {"type": "connection_init", "payload": {"apiKey": ask.key}}
            await raw.send(json.dumps(init))
            assert json.loads(await raw.recv())["type"] == "connection_ack"
            wanted = {"id": "1", "type": "subscribe", "payload": ask.payload(ask.position)}
            await raw.send(json.dumps(wanted))
            yield _SocketLink(raw)


class _HttpLink:
    def __init__(self, response: httpx.Response, transport: Transport) -> None:
        self._response = response
        self._read = _events if transport is Transport.EVENTS else _parts

    async def nodes(self) -> AsyncIterator[dict[str, Any]]:
        with _translated():
            async for payload in self._read(self._response):
                yield _node(payload)

    def reset(self) -> None:
        stream = self._response.extensions["network_stream"]
        end = stream.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


@asynccontextmanager
async def _over_http(url: str, ask: Ask) -> AsyncIterator[Link]:
    """A browser's EventSource sends the same request again, with the last id it saw; a multipart
    client asks anew."""
    transport = ask.seat.transport
    headers = {"accept": _ACCEPT[transport], "x-api-key": ask.key}
    position = ask.position
    if transport is Transport.EVENTS and ask.resumes:
        headers["last-event-id"], position = ask.position, ask.seat.after
    pool = httpx.AsyncHTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, _FEW)])
    with _translated():
        async with (
            httpx.AsyncClient(transport=pool, timeout=25, headers=headers) as client,
            client.stream("POST", f"{url}/graphql", json=ask.payload(position)) as response,
        ):
            if response.status_code != 200:
                text = (await response.aread()).decode()
                raise (Cut if response.status_code == 503 else Refused)(text)
            yield _HttpLink(response, transport)


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    found: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value
        elif not line and found:
            if found["event"] == "complete":
                return
            payload = json.loads(found["data"])
            if payload.get("data"):  # what a browser would resume after is what was told
                [node] = payload["data"].values()
                # Progress has no place of its own in the ledger.
                assert "id" in found or node["type"] == "PROGRESS", found
                assert found.get("id", node["cursor"]) == node["cursor"], found
            yield payload
            found = {}
    raise Cut("the answer ended without its last word")


async def _parts(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    text = b"\r\n"
    async for chunk in response.aiter_bytes():
        text += chunk
        while (end := text.find(b"\r\n--graphql", 1)) >= 0 or text.startswith(b"\r\n--graphql--"):
            if text.startswith(b"\r\n--graphql--"):
                return
            part, text = text[:end], text[end:]
            content = part.partition(b"\r\n\r\n")[2]
            if content and (value := json.loads(content)):
                if value.get("errors"):
                    raise _judged(value["errors"])
                yield value["payload"]
    raise Cut("the answer ended without its last word")
