"""`luthier serve --processes 2`: one port, and what its clients notice of there being two."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import websockets

from app.client import Client, LinkState, Timing
from app.core.database import Database
from app.events.doorbell import Doorbell
from app.jobs.states import JobStatus
from tests.api.live import EVENTS, Story
from tests.cli.running import Running
from tests.events.redis_server import PASSWORD, RedisServer
from tests.events.tools import until
from tests.jobs.rows import Rows
from tests.support import Api, Tenant, as_owner

pytestmark = pytest.mark.timeout(180)

Serve = Callable[..., Running]
# Back soon, but patient with a busy machine.
TIMING = Timing(retry_first=0.02, retry_most=0.2)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def begin(data_dir: Path, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Starts a verb of `luthier` on the tests' database; who asks for it ends it."""

    def begin(*arguments: str, **settings: str) -> Running:
        known = {"data_dir": str(data_dir), "database_url": database_url}
        output = tmp_path_factory.mktemp("processes") / "log"
        return Running(*arguments, output=output, **(known | settings))

    return begin


@pytest.fixture
def start(begin: Serve) -> Iterator[Serve]:
    """Starts a verb of `luthier` for as long as one test takes."""
    with ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(begin(*arguments, **settings))


async def _both(serve: Running) -> list[psutil.Process]:
    """The two processes, when both have begun to listen."""
    await asyncio.to_thread(serve.ready)

    def listening(child: psutil.Process) -> bool:
        return any(c.status == "LISTEN" for c in child.net_connections("tcp"))

    await until(lambda: sum(map(listening, serve.kept("serve"))) == 2, within=60)
    return serve.kept("serve")


@pytest.fixture(scope="module")
async def serve(begin: Serve) -> AsyncIterator[Running]:
    """For tests that leave it as it was."""
    with begin("serve", "--processes", "2") as running:
        await _both(running)
        yield running


@pytest.fixture
async def mortal(start: Serve) -> Running:
    """For tests that end it."""
    running = start("serve", "--processes", "2")
    await _both(running)
    return running


@pytest.fixture
async def writer(database_url: str) -> AsyncIterator[Database]:
    """A worker's database, whose commits ring through the database."""
    doorbell = Doorbell(database_url)
    found = Database(database_url, "luthier_worker", 5)
    found.after_commit = doorbell.ring
    await doorbell.start()
    yield found
    await doorbell.stop()
    await found.close()


async def _story(serve: Running, tenant: Tenant, database: Database, writer: Database) -> Story:
    async with Api(serve.url, tenant.key) as api:
        rows = await Rows.of(api, database, tenant)
    return await Story.begin(rows, writer)


async def _watched(serve: Running, key: str, job_id: str, links: list[LinkState]) -> list[str]:
    """The cursors that one viewer gets until the job is over."""
    async with Client(serve.url, key, timing=TIMING) as client:
        return [event["cursor"] async for event in client.watch_job(job_id, on_state=links.append)]


async def _viewers_on_both(serve: Running, key: str, job_id: str) -> list[asyncio.Task[list[str]]]:
    """As many as it takes until each process has some."""
    viewers: list[asyncio.Task[list[str]]] = []

    async def enough() -> bool:
        viewers.append(asyncio.create_task(_watched(serve, key, job_id, [])))
        await asyncio.sleep(0.05)
        return all(len(serve.clients_of(child)) >= 3 for child in serve.kept("serve"))

    await until(enough, within=30)
    return viewers


async def _last(database_url: str, stream_id: str) -> int:
    query = "SELECT max(seq) AS last FROM events WHERE stream_id = :stream"
    [row] = await as_owner(database_url, query, stream=stream_id)
    return int(row["last"])


async def _through(serve: Running, key: str, child: psutil.Process) -> Api:
    """An API client whose connection one given process has accepted."""
    while True:
        api = Api(serve.url, key)
        answer = await api.http.get("/healthz")
        address = answer.extensions["network_stream"].get_extra_info("client_addr")
        if address[1] in serve.clients_of(child):
            return api
        await api.http.aclose()


async def test_viewers_of_each_process_see_what_is_done_through_any(
    serve: Running, tenant: Tenant, database_url: str
) -> None:
    await _seen_by_all(serve, tenant, database_url)


@pytest.mark.soak
async def test_the_same_through_redis(
    start: Serve, redis_server: RedisServer, tenant: Tenant, database_url: str
) -> None:
    serve = start("serve", processes="2", broadcast_url=redis_server.url)
    await _both(serve)
    await until(lambda: _listeners(redis_server) == 2)
    await _seen_by_all(serve, tenant, database_url)
    assert PASSWORD not in serve.said()


def _listeners(server: RedisServer) -> int:
    with server.admin() as admin:
        return sum(client["sub"] == "1" for client in admin.client_list())


async def _seen_by_all(serve: Running, tenant: Tenant, database_url: str) -> None:
    children = await _both(serve)
    async with Api(serve.url, tenant.key) as api:
        job = await api.job_id()
    viewers = await _viewers_on_both(serve, tenant.key, job)
    for child in children:
        async with await _through(serve, tenant.key, child) as api:
            for verb in ("pauseJob", "resumeJob"):
                assert (await api.act(verb, job))["userErrors"] == []
    async with await _through(serve, tenant.key, children[0]) as api:
        await api.act("cancelJob", job)
    expected = [f"s{n}" for n in range(1, 1 + await _last(database_url, job))]
    assert len(expected) >= 5
    for got in await asyncio.wait_for(asyncio.gather(*viewers), 30):
        assert got == expected


@pytest.mark.soak
async def test_the_worker_rings_and_listens_where_it_is_told(
    start: Serve, redis_server: RedisServer
) -> None:
    work = start("work", broadcast_url=redis_server.url)
    await until(lambda: _listeners(redis_server) == 1, within=60)
    work.process.terminate()
    # It may have taken up another test's job, and be converting the embedded model for it.
    assert await asyncio.to_thread(work.process.wait, 90) == 0
    assert PASSWORD not in work.said()


async def test_killed_processes_cost_viewers_nothing(
    serve: Running, tenant: Tenant, database: Database, writer: Database
) -> None:
    """They resume at their cursors while one after the other is killed, and get each event once."""
    story = await _story(serve, tenant, database, writer)
    links: list[LinkState] = []
    viewers = [asyncio.create_task(_watched(serve, tenant.key, story.id, links)) for _ in range(20)]

    def busy(child: psutil.Process) -> int:
        return len(serve.clients_of(child))

    await until(lambda: sum(map(busy, serve.kept("serve"))) == len(viewers), within=30)
    last, deaths = 0, serve.said().count("ended with status -9")
    for _ in range(2):
        doomed = max(await _both(serve), key=busy)
        for count in range(60):
            if count == 20:
                doomed.kill()
            last = await story.say(5)
            await asyncio.sleep(0.01)
    await _both(serve)
    await story.becomes(JobStatus.SUCCEEDED)
    results = await asyncio.wait_for(asyncio.gather(*viewers), 60)
    for got in results:
        assert got[:last] == [f"s{n}" for n in range(1, last + 1)]
        assert got == results[0]
    assert any(not link.up for link in links), "nobody was disturbed"
    assert serve.said().count("ended with status -9") == deaths + 2


async def test_while_one_is_dead_its_sibling_answers(serve: Running, tenant: Tenant) -> None:
    doomed, _ = serve.kept("serve")
    doomed.kill()
    async with Api(serve.url, tenant.key) as api:
        for _ in range(50):
            assert (await api.execute("{ viewer { role } }"))["viewer"]["role"] == "OWNER"
    assert doomed.pid not in {child.pid for child in await _both(serve)}


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)]
)
async def test_a_signal_drains_all_and_clients_are_told_to_come_back(
    number: signal.Signals, mortal: Running, tenant: Tenant, database: Database, writer: Database
) -> None:
    story = await _story(mortal, tenant, database, writer)
    last = await story.say(3)
    got: list[int] = []

    async def view() -> int | None:
        async with Api(mortal.url, tenant.key).socket() as socket:
            query = {"query": EVENTS, "variables": {"j": story.id, "a": "0"}}
            await socket.send(id="1", type="subscribe", payload=query)
            try:
                async for _ in socket.results():
                    got.append(1)
            except websockets.ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else None
            return None

    async def follow_by_http() -> bytes:
        async with (
            Api(mortal.url, tenant.key) as api,
            api.http.stream(
                "POST",
                "/graphql",
                json={"query": EVENTS, "variables": {"j": story.id, "a": "0"}},
                headers={"accept": "text/event-stream"},
            ) as answer,
        ):
            return await answer.aread()

    viewers = [asyncio.create_task(view()) for _ in range(20)]
    followers = [asyncio.create_task(follow_by_http()) for _ in range(4)]
    silent = await asyncio.open_connection("127.0.0.1", mortal.port)  # says nothing at all
    await until(lambda: len(got) == 20 * last, within=30)
    family = mortal.family()
    if number is signal.SIGINT:  # from a terminal it goes to the whole group
        os.killpg(mortal.process.pid, number)
    else:
        mortal.process.send_signal(number)
    assert await asyncio.to_thread(mortal.process.wait, 10) == 0
    silent[1].close()
    assert set(await asyncio.gather(*viewers)) == {1012}
    for stream in await asyncio.gather(*followers):
        assert stream.count(b"event: next") == last
        assert b"event: complete" not in stream
    assert not [process for process in family if process.is_running()]
    said = mortal.said()
    for noise in ("Traceback", "destroyed", "never retrieved", "never awaited", "ERROR"):
        assert noise not in said, said


async def test_nothing_outlives_a_killed_parent(mortal: Running) -> None:
    family = mortal.family()[1:]
    assert len(family) == 2
    mortal.process.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 20)
    assert not alive


@pytest.mark.parametrize(
    ("arguments", "settings", "reason"),
    [
        (["serve", "--processes", "2"], {"broadcast_url": "memory://"}, "one process only"),
        (["work"], {"broadcast_url": "kafka://x"}, "must begin with"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(
    start: Serve, arguments: list[str], settings: dict[str, str], reason: str
) -> None:
    running = start(*arguments, **settings)
    assert running.process.wait(60) == 1
    assert "LUTHIER_BROADCAST_URL" in running.said()
    assert reason in running.said()
    assert "Traceback" not in running.said()


def test_memory_is_enough_for_one_process_with_a_warning(start: Serve) -> None:
    running = start("serve", broadcast_url="memory://")
    running.ready()
    assert "wakes this process only" in running.said()


def test_redis_without_its_client_is_refused_with_the_way_to_install_it(
    start: Serve, tmp_path: Path
) -> None:
    (tmp_path / "redis.py").write_text("raise ImportError('not installed')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
        running = start("serve", broadcast_url="redis://localhost")
    assert running.process.wait(60) == 1
    assert "pip install 'redis" in running.said()


def test_a_port_in_use_is_said_at_once(start: Serve, serve: Running) -> None:
    for arguments in (["serve", "--processes", "2"], ["up"]):
        second = start(*arguments, port=str(serve.port))
        assert second.process.wait(60) == 1
        assert "LUTHIER_PORT" in second.said()
