"""Viewers while the database is away: they wait, lose nothing, and are told when it is too long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import websockets
from sqlalchemy.engine import URL, make_url

from app.api.graphql.live import execution
from app.core.database import Database
from app.core.settings import Settings
from tests.api.live import CHANGES, EVENTS, Server, Story, ask, gather, place, serving
from tests.events.tools import until
from tests.jobs.rows import Rows
from tests.support import Api, Tenant


class Cable:
    """Between a server and its database; it can be cut and mended."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._ends: set[asyncio.StreamWriter] = set()
        self._whole = True

    async def lay(self) -> str:
        """The database's URL, at this end."""
        server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        port = int(server.sockets[0].getsockname()[1])
        near = self._url.set(host="127.0.0.1", port=port, query={})
        return near.render_as_string(hide_password=False)

    def cut(self) -> None:
        self._whole = False
        for end in self._ends:
            end.transport.abort()

    def mend(self) -> None:
        self._whole = True

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        folder, port = self._url.query.get("host"), self._url.query.get("port", self._url.port)
        far_reader, far_writer = await (
            asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
            if folder
            else asyncio.open_connection(self._url.host, self._url.port or 5432)
        )
        ends = {writer, far_writer}
        self._ends |= ends
        await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
        self._ends -= ends


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.transport.abort()


@pytest.fixture
async def cable(database_url: str) -> Cable:
    return Cable(make_url(database_url))


@pytest.fixture
async def story(api: Api, database: Database, tenant: Tenant, ringer: Database) -> Story:
    return await Story.begin(await Rows.of(api, database, tenant), ringer)


@pytest.fixture(params=["direct", "asgi"])
async def shaky(
    settings: Settings, cable: Cable, request: pytest.FixtureRequest
) -> AsyncIterator[Server]:
    """A server that reaches its database by the cable only."""
    async with serving(settings, await cable.lay(), request.param) as server:
        yield server
        cable.mend()


async def test_a_stream_outlives_an_outage_that_meets_its_resolver(
    shaky: Server, cable: Cable, tenant: Tenant, story: Story
) -> None:
    """Progress is due each second, and read by the resolver: here with the database away."""
    async with (
        Api(shaky.url, tenant.key) as api,
        api.socket() as socket,
        api.subscribe(CHANGES) as ledger,
    ):
        await story.show(5)
        [first] = await gather(ledger, "jobChanges", 1)
        await ask(socket, "1", EVENTS, variables={"j": story.id, "a": "0"})
        await until(lambda: len(shaky.engine.groups) == 2)
        cable.cut()
        await story.say(3)
        [progress] = [e for e in shaky.engine.executions if "jobChanges" in e.request.query]
        await until(lambda: progress._lost_at is not None)
        cable.mend()
        events = await gather(socket.results(), "jobEvents", 4)
        assert [place(event["cursor"]) for event in events] == [1, 2, 3, 4]
        await story.show(7)
        async with asyncio.timeout(10):
            async for result in ledger:
                assert result["jobChanges"]["cursor"] == first["cursor"]
                if result["jobChanges"]["progress"]["step"] == 7:
                    break


async def test_one_who_subscribes_amid_an_outage_is_served_after_it(
    shaky: Server, cable: Cable, tenant: Tenant, story: Story
) -> None:
    await story.say(2)
    async with Api(shaky.url, tenant.key) as api, api.socket() as socket:
        cable.cut()
        await ask(socket, "1", EVENTS, variables={"j": story.id, "a": "s1"})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.receive(), 0.5)
        cable.mend()
        [event] = await gather(socket.results(), "jobEvents", 1)
        assert place(event["cursor"]) == 2


async def test_an_outage_that_does_not_end_is_told(
    shaky: Server, cable: Cable, tenant: Tenant, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "PATIENCE", 0.5)
    async with Api(shaky.url, tenant.key) as api, api.socket() as socket:
        cable.cut()
        await ask(socket, "1", EVENTS, variables={"j": story.id, "a": "0"})
        async with asyncio.timeout(20):
            message = await socket.receive()
        assert (message["id"], message["type"]) == ("1", "error")
        assert message["payload"][0]["extensions"]["code"] == "UNAVAILABLE"
        await socket.send(type="ping")
        assert (await socket.receive())["type"] == "pong"


async def test_a_key_that_cannot_be_checked_closes_with_try_again_later(
    shaky: Server, cable: Cable, tenant: Tenant
) -> None:
    cable.cut()
    async with Api(shaky.url, tenant.key) as api:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            async with api.socket():
                pass
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013
