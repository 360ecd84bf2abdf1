"""One round: everything is started, used, broken for a while, and then held against the log."""

import asyncio
import json
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg
import orjson

from app.events.log import LoggedEvent
from tests.chaos import report, seats, verdict
from tests.chaos.customer import Customer
from tests.chaos.nemesis import Nemesis
from tests.chaos.seats import Seat, Transport
from tests.chaos.stage import Stage, stage
from tests.events.redis_server import RedisServer

_HOUSES = 2
_JOBS = 4
_DRAIN = 60.0
_EVENTS = "SELECT stream_id, seq, attempt, type, step, at, data FROM events ORDER BY stream_id, seq"
_PLACE = (
    "query ($i: ID!) { job(id: $i) { cursor }"
    " viewer { organization { id cursor } } }"
)  # fmt: skip


@dataclass(frozen=True)
class Campaign:
    """How long and how many. The seed is printed; LUTHIER_CHAOS_SEED repeats its choices, and
    LUTHIER_CHAOS_SECONDS sets the length."""

    seconds: float
    seed: int
    times: int = 1

    @staticmethod
    def of(seconds: float, times: int = 1) -> "Campaign":
        seed = int(os.environ.get("LUTHIER_CHAOS_SEED") or random.randrange(2**32))
        print(f"LUTHIER_CHAOS_SEED={seed}")  # noqa: T201
        return Campaign(float(os.environ.get("LUTHIER_CHAOS_SECONDS") or seconds), seed, times)


async def play(campaign: Campaign, folder: Path, redis: RedisServer | None = None) -> list[str]:
    """Everything that went wrong. The rings travel through `redis`, or else the database."""
    env = {"LUTHIER_BROADCAST_URL": redis.url} if redis else {}
    async with stage(folder, **env) as found:
        return await _Round(campaign, found, redis).play()


class _Round:
    def __init__(self, campaign: Campaign, stage: Stage, redis: RedisServer | None) -> None:
        self._campaign, self._stage, self._folder = campaign, stage, stage.folder
        self._redis = redis
        self._dice = random.Random(f"round {campaign.seed}")
        self._customer = Customer(
            [stage.address, stage.asgi_address], stage.key, random.Random(campaign.seed)
        )
        self._seats: list[Seat] = []
        self._faults: list[str] = []

    async def play(self) -> list[str]:
        heads = {}
        for number in range(_JOBS):
            job = await self._customer.submit(f"long {number}")
            answer = await self._customer.ask(_PLACE, i=job)
            heads[job] = answer["job"]["cursor"]
        organization = answer["viewer"]["organization"]
        self._seats = seats.arrange(self._dice, heads, organization["cursor"], self._campaign.times)
        self._write("plan.json", self._plan(list(heads), organization["id"]))
        folder = str(self._folder)
        writer = self._stage.program("writer", "tests.chaos.writer", folder)
        audience = [
            self._stage.program(f"audience-{n}", "tests.chaos.audience", folder, str(n))
            for n in range(_HOUSES)
        ]
        nemesis = Nemesis(self._stage, writer, audience, self._campaign.seed, self._redis)
        await self._during(nemesis.rage(self._campaign.seconds))
        await self._stage.ready()
        (self._folder / "finish").touch()
        await self._wait("the writer", writer.ended)
        streams = await self._streams()
        self._write("finale.json", self._finale(streams))
        deadline = time.monotonic() + _DRAIN
        for house in audience:
            left = max(1.0, deadline - time.monotonic())
            await self._wait(house.name, house.ended, left)
        for program in self._stage.programs:
            if program.broke:
                self._faults.append(f"{program.name} ended by itself: {program.broke}")
        self._judge(streams, nemesis)
        return self._faults

    async def _during(self, storm: Awaitable[None]) -> None:
        """The customer lives as long as the storm."""
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._customer.live(1.0, enough))
            await storm
            enough.set()
        await self._customer.close()

    async def _wait(
        self, name: str, ended: Callable[[float], Awaitable[bool]], within: float = _DRAIN
    ) -> None:
        if not await ended(within):
            self._faults.append(f"{name} did not come to its end within {within:.0f} s")

    def _plan(self, jobs: list[str], org_id: str) -> dict[str, object]:
        direct, asgi = self._stage.address, self._stage.asgi_address
        return {
            "seed": self._campaign.seed,
            "seconds": self._campaign.seconds,
            "began": time.time(),
            "key": self._stage.key,
            "org_id": org_id,
            "jobs": jobs,
            "addresses": {
                Transport.SOCKET: [direct],
                Transport.ASGI_SOCKET: [asgi],
                Transport.EVENTS: [direct, asgi],
                Transport.PARTS: [direct, asgi],
                Transport.CLIENT: [direct, asgi],
            },
            "houses": [[asdict(seat) for seat in self._seats[n::_HOUSES]] for n in range(_HOUSES)],
        }

    def _finale(self, streams: dict[str, list[LoggedEvent]]) -> dict[str, int]:
        """The last place of the ledger that each of its viewers is owed."""
        places = {}
        for seat in self._seats:
            if seat.field == "jobChanges":
                due = verdict.owed(seat, self._stream_of(seat, streams))
                places[seat.name] = int(due[-1][0].removeprefix("s")) if due else 0
        return places

    def _stream_of(self, seat: Seat, streams: dict[str, list[LoggedEvent]]) -> list[LoggedEvent]:
        job = seat.variables.get("jobId")
        if job:
            return streams[job]
        [ledger] = [events for id, events in streams.items() if id.startswith("org_")]
        return ledger

    async def _streams(self) -> dict[str, list[LoggedEvent]]:
        connection = await asyncpg.connect(self._stage.postgres.url)
        try:
            rows = await connection.fetch(_EVENTS)
        finally:
            await connection.close()
        streams: dict[str, list[LoggedEvent]] = {}
        for row in rows:
            event = LoggedEvent(**dict(row) | {"data": orjson.loads(row["data"])})
            streams.setdefault(event.stream_id, []).append(event)
        return streams

    def _judge(self, streams: dict[str, list[LoggedEvent]], nemesis: Nemesis) -> None:
        histories = [verdict.history(seat, self._folder) for seat in self._seats]
        for found in histories:
            self._faults += verdict.judge(found, self._stream_of(found.seat, streams))
        self._faults += verdict.judge_log(streams, self._folder)
        if not any(found.cuts for found in histories):
            self._faults.append("nothing happened to anybody: the storm proves nothing")
        jobs = [id for id in streams if not id.startswith("org_")]
        if sorted(jobs) != sorted(self._customer.jobs.values()):
            self._faults.append("the jobs in the log are not those that were submitted")
        appended = sum(len(events) for events in streams.values())
        print(report.table(histories, nemesis.done, appended, len(jobs)))  # noqa: T201

    def _write(self, name: str, value: object) -> None:
        draft = self._folder / f"{name}.new"
        draft.write_text(json.dumps(value))
        draft.rename(self._folder / name)
