"""A key that another process ends is soon worth nothing here, at every door."""

import asyncio
from typing import Any

import asyncpg
import pytest
import websockets

from tests.api.live import CHANGES, Server, ask, listen
from tests.events.tools import until
from tests.support import Api

VIEWER = {"query": "{ viewer { role } }"}
WITHIN = 8.0  # seconds; in all of them together


async def test_a_key_ended_elsewhere_ends_here_within_seconds(
    live: Server, viewer: Api, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with viewer.socket() as socket:
        await ask(socket, "1", CHANGES)
        async with viewer.http.stream(
            "POST", "/graphql", json={"query": CHANGES}, headers={"accept": "text/event-stream"}
        ) as stream:
            lines = stream.aiter_lines()
            await anext(lines)  # it has begun
            await owner.execute(
                "UPDATE api_keys SET revoked_at = now() WHERE prefix = $1", (viewer.key or "")[:10]
            )
            async with asyncio.timeout(WITHIN):
                said = "\n".join([line async for line in lines])
                assert "API_KEY_REVOKED" in said
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await listen(socket)
        assert closed.value.rcvd
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4403, "API_KEY_REVOKED")

    async def refused(method: str, path: str, **more: Any) -> bool:
        return (await viewer.http.request(method, path, **more)).status_code == 401

    await until(lambda: refused("POST", "/graphql", json=VIEWER), WITHIN)
    await until(lambda: refused("GET", "/v1/files"), WITHIN)
