"""The resuming client misses nothing and repeats nothing, whatever breaks."""

import asyncio
import random
import socket as sockets
from contextlib import aclosing
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from app.client import ApiError, Client, LinkState, Timing, Unreachable
from tests.client.fickle_server import (
    KEY,
    QUICK,
    FickleServer,
    Goodbye,
    log_of,
    next_frame,
    running,
    url_of,
)

DOCUMENT = "subscription ($after: String) { stream(after: $after) { cursor number } }"


def free_port() -> int:
    with sockets.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def collect(
    url: str, after: str | None = "0", timing: Timing = QUICK, **how: Any
) -> list[dict[str, Any]]:
    async with Client(url, KEY, timing=timing) as client:
        variables = {"after": after} if after else {}
        events = client.subscribe(DOCUMENT, variables, **how)
        return [data["stream"] async for data in events]


@pytest.mark.parametrize("seed", range(12))
async def test_no_gap_and_no_repeat_whatever_breaks(seed: int) -> None:
    # Unique cursors: where a cursor is repeated the log itself decides what "after" means.
    log = [{"cursor": f"s{n}", "number": n} for n in range(1, 301)]
    server = FickleServer(log, random.Random(seed), troubled=0.08)
    async with running(server) as url:
        assert await collect(url) == log
    assert server.connections > 5


async def test_events_that_repeat_a_cursor_are_news() -> None:
    """Progress in the ledger carries the cursor of the change before it."""
    server = FickleServer(log_of(50), random.Random(1))
    async with running(server) as url:
        assert await collect(url) == server.log
    assert server.connections == 1


async def test_the_cursor_is_found_at_the_path_given() -> None:
    log = [{"cursor": f"s{n}", "number": n} for n in range(1, 40)]
    server = FickleServer(log, random.Random(3), troubled=0.2)
    async with running(server) as url:
        assert await collect(url, cursor="data.stream.cursor") == log
    assert len(set(server.asked_after)) > 1


async def test_a_restarted_server_is_met_again_at_the_same_place() -> None:
    log = [{"cursor": f"s{n}", "number": n} for n in range(1, 11)]
    port, states = free_port(), list[LinkState]()

    async def leave(socket: ServerConnection) -> None:
        for event in log[:4]:
            await socket.send(next_frame("1", {"stream": event}))
        await socket.close(1012)
        raise Goodbye

    async with Client(f"http://127.0.0.1:{port}", KEY, timing=QUICK) as client:
        events = client.subscribe(DOCUMENT, {"after": "0"}, on_state=states.append)
        async with aclosing(events):
            async with running(FickleServer(log, random.Random(1), say=leave), port):
                got = [(await anext(events))["stream"] for _ in range(4)]
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.3)  # refused all the while
            assert not waiting.done()
            again = FickleServer(log, random.Random(1))
            async with running(again, port):
                got.append((await waiting)["stream"])
                got += [data["stream"] async for data in events]
    assert got == log
    assert again.asked_after == ["s4"]
    assert states[0].up
    assert states[-1].up
    assert all(not state.up and state.retry_in for state in states[1:-1])


async def test_a_server_that_starts_late_is_waited_for() -> None:
    port = free_port()
    server = FickleServer(log_of(3), random.Random(1))
    waiting = asyncio.ensure_future(collect(f"http://127.0.0.1:{port}"))
    await asyncio.sleep(0.2)
    async with running(server, port):
        assert await waiting == server.log


async def test_patience_with_a_server_that_never_starts_ends() -> None:
    timing = Timing(first_connect=0.3, retry_first=0.01, retry_most=0.05)
    with pytest.raises(Unreachable, match=r"for 0\.3 s"):
        await collect(f"http://127.0.0.1:{free_port()}", timing=timing)


async def test_patience_with_a_server_that_lets_in_and_drops_ends() -> None:
    async def drop(socket: ServerConnection) -> None:
        await socket.close(1011)
        raise Goodbye

    timing = Timing(reconnect=0.3, retry_first=0.01, retry_most=0.1)
    async with running(FickleServer([], random.Random(1), say=drop)) as url:
        with pytest.raises(Unreachable):
            await collect(url, timing=timing)


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4406, 4409, 4429, 1008, 1009])
async def test_a_refusal_is_not_asked_again(code: int) -> None:
    async def refuse(socket: ServerConnection) -> None:
        await socket.close(code, "because")
        raise Goodbye

    server = FickleServer([], random.Random(1), say=refuse)
    async with running(server) as url:
        with pytest.raises(ApiError):
            await collect(url)
    assert server.connections == 1


async def test_an_error_frame_is_raised_with_its_code() -> None:
    async def refuse(socket: ServerConnection) -> None:
        await socket.send(
            '{"id":"1","type":"error","payload":[{"message":"There is no such job.",'
            '"extensions":{"code":"JOB_NOT_FOUND"}}]}'
        )

    async with running(FickleServer([], random.Random(1), say=refuse)) as url:
        with pytest.raises(ApiError, match="no such job") as raised:
            await collect(url)
    assert raised.value.code == "JOB_NOT_FOUND"


async def test_an_event_with_errors_is_raised() -> None:
    async def stumble(socket: ServerConnection) -> None:
        await socket.send(
            '{"id":"1","type":"next","payload":{"data":null,"errors":[{"message":"Oh."}]}}'
        )

    async with running(FickleServer([], random.Random(1), say=stumble)) as url:
        with pytest.raises(ApiError, match="Oh"):
            await collect(url)


async def test_a_server_that_speaks_another_protocol_is_refused() -> None:
    async def nothing(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with serve(nothing, "127.0.0.1", 0) as listening:
        with pytest.raises(ApiError) as raised:
            await collect(url_of(listening))
    assert not isinstance(raised.value, Unreachable)


async def test_a_frozen_connection_is_noticed_and_replaced() -> None:
    """The network swallows everything without closing: only an unanswered ping tells."""
    log = [{"cursor": f"s{n}", "number": n} for n in range(1, 60)]
    server = FickleServer(log, random.Random(1))
    async with running(server) as url, FreezingPath(url, freeze_after=1200) as path:
        async with asyncio.timeout(10):
            assert await collect(path.url) == log
    assert server.connections > 1


async def test_leaving_early_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def wait(socket: ServerConnection) -> None:
        await socket.send(next_frame("1", {"stream": {"cursor": "s1"}}))
        await socket.wait_closed()
        gone.set()
        raise Goodbye

    async with running(FickleServer([], random.Random(1), say=wait)) as url:
        client = Client(url, KEY, timing=QUICK)
        async with client, aclosing(client.subscribe(DOCUMENT, {"after": "0"})) as events:
            await anext(events)
        await asyncio.wait_for(gone.wait(), 2)


class FreezingPath:
    """A way to the server on which the first connection falls silent after some bytes."""

    def __init__(self, url: str, freeze_after: int) -> None:
        self._port = int(url.rpartition(":")[2])
        self._left: int | None = freeze_after
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "FreezingPath":
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _join(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far, far_out = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [near_out, far_out]
        budget, self._left = self._left, None
        await asyncio.gather(_copy(near, far_out, None), _copy(far, near_out, budget))


async def _copy(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, budget: int | None
) -> None:
    while data := await source.read(256):
        if budget is not None:
            budget -= len(data)
            if budget < 0:
                await asyncio.sleep(3600)
        target.write(data)
    target.close()
