"""A server whose streams can be looked into, and jobs that live as the test says."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
from starlette.routing import WebSocketRoute

from app.api.graphql.live.direct import LiveProtocol
from app.api.graphql.live.engine import Live
from app.api.graphql.view import GraphQLDoor
from app.api.protocol import HttpProtocol, WebSocketProtocol
from app.core import clock
from app.core.database import Database
from app.core.settings import Settings
from app.events import log
from app.events.log import NewEvent
from app.events.stream import Streams
from app.events.types import EventType
from app.jobs.repository import JobRepository
from app.jobs.states import Cause, JobStatus
from app.jobs.transition import move
from app.main import create_app
from tests.events.tools import until
from tests.jobs.rows import Rows
from tests.support import Socket

EVENTS = """subscription ($j: ID!, $a: String, $t: [JobEventType!]) {
  jobEvents(jobId: $j, after: $a, types: $t) { cursor type jobId data } }"""
METRICS = """subscription ($j: ID!, $a: String) { jobMetrics(jobId: $j, after: $a) {
  cursor points { step attempt trainingLoss nonFinite } } }"""
CHANGES = """subscription ($f: JobFilter, $a: String) { jobChanges(filter: $f, after: $a) {
  cursor type jobId statusThen matches job { id status } progress { step percent } } }"""
DEPLOYMENTS = """subscription ($m: ID, $a: String) { deploymentChanges(modelId: $m, after: $a) {
  cursor deploymentId statusThen deployment { id status } } }"""


@dataclass(frozen=True)
class Server:
    url: str
    streams: Streams
    engine: Live
    running: uvicorn.Server

    def stop(self) -> None:
        self.running.should_exit = True


@asynccontextmanager
async def serving(
    settings: Settings, database_url: str, path: str = "direct"
) -> AsyncIterator[Server]:
    """By the path `direct`, our own protocol class; or by `asgi`, which every server has."""
    app = create_app(settings, database_url)
    [door] = [route.endpoint for route in app.routes if isinstance(route, WebSocketRoute)]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        ws=LiveProtocol if path == "direct" else WebSocketProtocol,
        log_config=None,
        lifespan="on",
    )
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    await until(lambda: running.started)
    engine = cast(GraphQLDoor, door).live
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield Server(url, engine.services.streams, engine, running)
    running.should_exit = True
    await asyncio.wait_for(task, 15)


class Story:
    """A job of the tenant's, and what becomes of it. Commits ring, as a worker's do."""

    def __init__(self, ringer: Database, org_id: str, job_id: str) -> None:
        self.ringer, self.org_id, self.id = ringer, org_id, job_id

    @staticmethod
    async def begin(
        rows: Rows, ringer: Database, status: JobStatus = JobStatus.RUNNING, **fields: Any
    ) -> "Story":
        [job] = await rows.add({"status": status.value, **fields})
        async with ringer.transaction(job.org_id) as session:
            await log.open_stream(session, job.org_id, job.id)
        return Story(ringer, job.org_id, job.id)

    async def say(self, count: int = 1) -> int:
        return await self.append([NewEvent(EventType.MESSAGE, {"message": "…"})] * count)

    async def measure(self, steps: Sequence[int]) -> int:
        return await self.append(
            [
                NewEvent(EventType.METRICS, {"values": {"training_loss": 1.0}}, step=n, attempt=1)
                for n in steps
            ]
        )

    async def show(self, step: int) -> None:
        """A step with the progress that a worker reports beside it."""
        progress = {
            "step": step,
            "total_steps": 200,
            "epoch": 0.5,
            "total_epochs": 1,
            "trained_tokens": 10,
        }
        latest = {
            "at": clock.now().isoformat(),
            "step": step,
            "attempt": 1,
            "epoch": 0.5,
            "values": {},
            "progress": progress,
        }
        await self.append([NewEvent(EventType.METRICS, {"values": {}}, step=step)], latest)

    async def append(self, events: list[NewEvent], latest: dict[str, Any] | None = None) -> int:
        async with self.ringer.transaction(self.org_id) as session:
            return await log.append(session, self.id, events, latest=latest)

    async def becomes(self, status: JobStatus, cause: Cause = Cause.EVIDENCE) -> None:
        async with self.ringer.transaction(self.org_id) as session:
            job = await JobRepository(session, self.org_id).get(self.id, lock=True)
            await move(session, job, status, cause=cause)


def place(cursor: str) -> int:
    return int(cursor.removeprefix("s"))


async def gather(results: AsyncIterator[dict[str, Any]], field: str, count: int) -> list[Any]:
    """The next few results of one field; fails when they do not come."""
    async with asyncio.timeout(10):
        return [(await anext(results))[field] for _ in range(count)]


async def rest(results: AsyncIterator[dict[str, Any]], field: str) -> list[Any]:
    """All results until the stream completes."""
    async with asyncio.timeout(20):
        return [result[field] async for result in results]


async def ask(socket: Socket, id: str, query: str, **payload: Any) -> None:
    await socket.send(id=id, type="subscribe", payload={"query": query, **payload})


async def watched(server: Server) -> None:
    """Once somebody follows a stream."""
    await until(lambda: server.streams.tails == 1)
    await asyncio.sleep(0.05)


def drop(socket: Socket) -> None:
    """Go without a word, as a phone in a tunnel does."""
    socket.raw.transport.abort()


async def listen(socket: Socket) -> None:
    """Until the server closes the connection."""
    while True:
        await socket.receive()
