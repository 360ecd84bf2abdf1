"""WebSockets through ASGI: works on every server, at the price of two tasks per connection."""

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from app.api.graphql.live.engine import Live
from app.api.graphql.live.origin import origin_allowed
from app.api.graphql.live.outbox import Outbox
from app.api.graphql.live.socket import Socket
from app.api.graphql.live.wire import MOST_REASON, PROTOCOL, Result


class AsgiWire(Outbox):
    def publish(self, prefix: bytes, result: Result) -> bool:
        if self.full:
            return False
        self.send(prefix + result.ending)
        return True

    def send(self, message: bytes) -> None:
        self.put({"type": "websocket.send", "text": message.decode()}, len(message))

    def close(self, code: int, reason: str = "") -> None:
        words = reason.encode()[:MOST_REASON].decode(errors="ignore")
        self.room.set()
        self.finish({"type": "websocket.close", "code": code, "reason": words})


async def serve(live: Live, scope: Scope, receive: Receive, send: Send) -> None:
    """One WebSocket, from its handshake to its end."""
    await receive()
    headers = Headers(scope=scope)
    if not origin_allowed(headers.get("origin"), headers, live.origins):
        await send({"type": "websocket.close", "code": 1008})
        return
    if PROTOCOL not in scope["subprotocols"]:
        await send({"type": "websocket.accept"})
        await send(
            {"type": "websocket.close", "code": 4406, "reason": "Subprotocol not acceptable"}
        )
        return
    await send({"type": "websocket.accept", "subprotocol": PROTOCOL})
    wire = AsgiWire()
    socket = wire.connection = Socket(live, wire)
    socket.opened()
    await wire.run(send, _listen(socket, wire, receive))


async def _listen(socket: Socket, wire: AsgiWire, receive: Receive) -> None:
    while (message := await receive())["type"] != "websocket.disconnect":
        text = message.get("text")
        if text is None:
            socket.close(4400, "WebSocket message type must be text")
        else:
            socket.receive(text)
        await wire.room.wait()  # one who does not listen is not heard
