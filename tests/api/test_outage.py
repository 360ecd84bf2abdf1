"""Without its database the API says so, at every door, and stays up."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn

from app.accounts import keys
from app.core.settings import Settings
from app.main import create_app
from tests.support import Api


@pytest.fixture
async def stranded(settings: Settings) -> AsyncIterator[Api]:
    """An API whose database is not there."""
    listener = socket.create_server(("127.0.0.1", 0))
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))  # held, but not listened on: connecting is refused
    url = f"postgresql://luthier:x@127.0.0.1:{nobody.getsockname()[1]}/luthier"
    server = uvicorn.Server(uvicorn.Config(create_app(settings, url), log_config=None))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn rings nobody
        await asyncio.sleep(0.02)
    async with Api(f"http://127.0.0.1:{listener.getsockname()[1]}", keys.generate()) as api:
        yield api
    server.should_exit = True
    await task
    nobody.close()


async def test_every_door_says_that_the_database_does_not_answer(stranded: Api) -> None:
    asked = await stranded.http.post("/graphql", json={"query": "{ viewer { role } }"})
    assert asked.status_code == 503
    [error] = asked.json()["errors"]
    assert error["extensions"]["code"] == "UNAVAILABLE"
    assert error["extensions"]["requestId"] == asked.headers["x-request-id"]
    listed = await stranded.http.get("/v1/files")
    assert (listed.status_code, listed.json()["error"]["code"]) == (503, "unavailable")
    assert (await stranded.http.get("/readyz")).status_code == 503
    assert (await stranded.http.get("/healthz")).status_code == 200
    for answer in (asked, listed):
        assert "127.0.0.1" not in answer.text
