"""What the server sets on its sockets."""

import asyncio
import socket

import pytest
import uvicorn

from app.api.server import Server


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
async def test_a_connection_whose_peer_takes_nothing_is_dropped_by_the_system() -> None:
    """As long as data is unacknowledged for half a minute, whatever the protocol above does."""

    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("nobody asks")

    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    server.config.load()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn rings nobody
        await asyncio.sleep(0.02)
    _, writer = await asyncio.open_connection(*listener.getsockname())
    while not server.server_state.connections:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.02)
    [accepted] = server.server_state.connections
    transport: asyncio.Transport = accepted.transport
    known = transport.get_extra_info("socket")
    assert known.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
    writer.close()
    server.should_exit = True
    await serving
