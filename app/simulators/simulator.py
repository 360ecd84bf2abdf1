"""What all simulators share: their clock, their cheats, their socket."""

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.simulators.answers import json_response
from app.simulators.runs import OVER, Plan, Run

log = logging.getLogger(__name__)


@dataclass
class Cheats:
    """What goes wrong. Set them in a test, or with `PUT /_cheats` and JSON of some of them."""

    down: bool = False
    """Every connection breaks before an answer."""
    hang: float = 0.0
    """Seconds before each answer."""
    throttle: int = 0
    """So many of the next requests are answered with 429 …"""
    retry_after: float | None = None
    """… that says so many seconds."""
    errors: int = 0
    """So many of the next requests are answered with 500."""
    lose_answers: int = 0
    """So many of the next creates are carried out, and then the connection breaks."""
    lose_creates: int = 0
    """So many of the next creates never arrive: the connection breaks before."""
    word: str | None = None
    """The status that every live job shows: a word that nobody has heard before."""
    vanished: list[str] = field(default_factory=list)
    """Jobs that nobody has ever heard of."""
    expired_models: list[str] = field(default_factory=list)
    """Models that are listed no more, and do not answer."""
    skew: float = 0.0
    """Seconds that its clock is ahead."""
    drop_webhooks: float = 0.0
    """The share of webhooks that are never sent …"""
    repeat_webhooks: float = 0.0
    """… of those sent three times …"""
    forge_webhooks: float = 0.0
    """… and of those that come with a forged one beside them."""
    late_webhooks: float = 0.0
    """They are sent at random within so many seconds, so that their order is lost."""


class Simulator:
    """One provider. `runs` are its jobs by id; `creates` counts how many it was asked to make."""

    name: ClassVar[str]
    creating: ClassVar[tuple[str, ...]] = ()
    """Ends of the paths whose POST creates a job."""
    origins: tuple[str, ...] = ()
    """The URLs of further sockets that it serves, such as a store with signed URLs."""
    ports: ClassVar[int] = 1
    """How many it takes, from the one that it is served on."""

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        self.plan, self.seed = plan or Plan(), seed
        self.cheats = Cheats()
        self.chance = random.Random(seed)  # noqa: S311 - reproducible cheating
        self.runs: dict[str, Run] = {}
        self.creates = 0
        self.requests: list[str] = []
        self._moved = 0.0
        self._count = 0

    # For each provider to fill

    def routes(self) -> list[Route]:
        raise NotImplementedError

    def refusal(self, status: int, code: str, message: str, param: str | None = None) -> Response:
        """An error in the provider's form."""
        raise NotImplementedError

    async def background(self) -> None:
        """What it does by itself, such as sending webhooks."""

    # Shared

    def now(self) -> float:
        return time.time() + self._moved + self.cheats.skew

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self._moved += seconds

    def id(self, prefix: str) -> str:
        """A new one; the same for the same seed and history."""
        self._count += 1
        made = hashlib.sha256(f"{self.seed}-{prefix}-{self._count}".encode()).hexdigest()
        return prefix + made[:24]

    def run_of(self, id: str) -> Run | None:
        """The job, as it stands now."""
        run = None if id in self.cheats.vanished else self.runs.get(id)
        if run is not None:
            run.advance(self.now())
        return run

    def newest(self) -> list[Run]:
        """All jobs, the newest first, as they stand now."""
        found = [run for id in self.runs if (run := self.run_of(id))]
        return sorted(found, key=lambda run: -run.created_at)

    def word(self, run: Run, usual: str) -> str:
        """The status it shows."""
        cheated = self.cheats.word
        return cheated if cheated and run.phase not in OVER else usual

    def app(self) -> ASGIApp:
        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            task = asyncio.create_task(self.background(), name=f"simulated-{self.name}")
            yield
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        routes = [Route("/_cheats", self._cheats, methods=["GET", "PUT"]), *self.routes()]
        return _Misbehaving(self, Starlette(routes=routes, lifespan=lifespan))

    @asynccontextmanager
    async def served(self, port: int = 0) -> AsyncIterator[str]:
        """Serve it on loopback; its URL."""
        async with listening(self.app(), port) as url:
            yield url

    def cheat(self, told: Mapping[str, Any]) -> None:
        """Raises ValueError for a cheat that there is not."""
        known = {one.name for one in dataclasses.fields(Cheats)}
        for name, value in told.items():
            if name not in known:
                raise ValueError(f"There is no cheat {name!r}. Known are {sorted(known)}.")
            setattr(self.cheats, name, value)

    async def _cheats(self, request: Request) -> Response:
        if request.method == "PUT":
            try:
                self.cheat(orjson.loads(await request.body()))
            except ValueError as wrong:
                return json_response({"error": str(wrong)}, 400)
        return json_response(dataclasses.asdict(self.cheats))


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it: of several, the last would take them all."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(app: ASGIApp, port: int = 0) -> AsyncIterator[str]:
    """Serve an application on loopback; its URL."""
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    # It breaks connections on purpose: the server's complaints about that are no news.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True  # not by force: that leaves `background` running
        with contextlib.suppress(asyncio.CancelledError):
            await task


class _Misbehaving:
    """Before the provider's own code gets to see a request."""

    def __init__(self, simulator: Simulator, app: ASGIApp) -> None:
        self._simulator, self._app = simulator, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/_cheats":
            await self._app(scope, receive, send)
            return
        sim, cheats = self._simulator, self._simulator.cheats
        asked = f"{scope['method']} {scope['path']}"
        sim.requests.append(asked)
        if cheats.down:
            await _break_off(send)
            return
        if cheats.hang:
            await asyncio.sleep(cheats.hang)
        if cheats.throttle > 0:
            cheats.throttle -= 1
            refusal = sim.refusal(429, "rate_limit_exceeded", "Too many requests.")
            if cheats.retry_after is not None:
                refusal.headers["retry-after"] = str(cheats.retry_after)
            await refusal(scope, receive, send)
            return
        if cheats.errors > 0:
            cheats.errors -= 1
            await sim.refusal(500, "server_error", "Something broke.")(scope, receive, send)
            return
        creates = scope["method"] == "POST" and scope["path"].endswith(sim.creating)
        if not (creates and sim.creating):
            await self._app(scope, receive, send)
            return
        if cheats.lose_creates > 0:
            cheats.lose_creates -= 1
            await _break_off(send)
            return
        sim.creates += 1
        if cheats.lose_answers > 0:
            cheats.lose_answers -= 1
            await self._app(scope, receive, _unheard)
            await _break_off(send)
            return
        await self._app(scope, receive, send)


async def _unheard(message: Any) -> None:
    pass


async def _break_off(send: Send) -> None:
    """The server closes a connection whose answer is shorter than announced."""
    headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
