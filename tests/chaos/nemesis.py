"""Who breaks things: at random, from one seed, everything that can be killed."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import asyncpg
import psutil

from app.core.database import CONNECTION_ERRORS
from tests.chaos.stage import Program, Stage
from tests.events.redis_server import RedisServer

_OURS = ("luthier_app", "luthier_worker")
_LISTENERS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name = 'luthier_doorbell'"
)
_CONNECTIONS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name = ANY($1) AND random() < $2"
)

Fault = Callable[[], Awaitable[int]]


class Nemesis:
    """`done` counts what it did, by kind."""

    def __init__(
        self,
        stage: Stage,
        writer: Program,
        audience: list[Program],
        seed: int,
        redis: RedisServer | None,
    ) -> None:
        self._stage, self._writer, self._audience = stage, writer, audience
        self._dice = random.Random(f"nemesis {seed}")
        self.done: Counter[str] = Counter()
        self._redis_is_down = False
        # What, and how often beside the others.
        self._faults: dict[str, tuple[Fault, float]] = {
            "doorbell connections cut": (self._cut_listeners, 3),
            "pool connections cut": (self._cut_connections, 3),
            "API processes killed": (self._kill_api, 2),
            "API processes frozen": (self._freeze_api, 1.5),
            "Postgres killed": (self._kill_postgres, 0.7),
            "viewers' processes killed": (self._kill_audience, 1),
            "writers killed": (self._kill_writer, 0.5),
        }
        if redis is not None:
            del self._faults["doorbell connections cut"]
            self._faults["Redis killed"] = (lambda: self._kill_redis(redis), 3)

    async def rage(self, seconds: float) -> None:
        """Each kind at least once if there is time, then at random. Afterwards everything runs."""
        first = list(self._faults)
        self._dice.shuffle(first)
        weights = [weight for _, weight in self._faults.values()]
        async with asyncio.TaskGroup() as group:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while True:
                        await asyncio.sleep(self._dice.uniform(0.3, 3))
                        name = (
                            first.pop()
                            if first
                            else self._dice.choices(list(self._faults), weights)[0]
                        )
                        group.create_task(self._strike(name))

    async def _strike(self, name: str) -> None:
        self.done[name] += await self._faults[name][0]()

    async def _cut_listeners(self) -> int:
        return await self._ask(_LISTENERS)

    async def _cut_connections(self) -> int:
        return await self._ask(_CONNECTIONS, list(_OURS), self._dice.choice([0.2, 0.5, 1.0]))

    async def _ask(self, query: str, *values: object) -> int:
        with contextlib.suppress(*CONNECTION_ERRORS, asyncpg.PostgresError):
            owner = await asyncpg.connect(self._stage.postgres.url, timeout=5)
            try:
                return int(await owner.fetchval(query, *values, timeout=5) or 0)
            finally:
                await owner.close(timeout=2)
        return 0  # it is dead already

    async def _kill_api(self) -> int:
        if self._dice.random() < 1 / 3:
            return await self._bounce(self._stage.asgi, self._dice.uniform(0, 1.5))
        kept = self._stage.kept()
        with contextlib.suppress(IndexError, psutil.NoSuchProcess):  # its keeper starts it again
            self._dice.choice(kept).kill()
            return 1
        return 0

    async def _kill_audience(self) -> int:
        return await self._bounce(self._dice.choice(self._audience), self._dice.uniform(0, 1))

    async def _kill_writer(self) -> int:
        return await self._bounce(self._writer, self._dice.uniform(0, 1))

    async def _bounce(self, program: Program, pause: float) -> int:
        if not program.runs:
            return 0
        program.kill()
        await asyncio.sleep(pause)
        program.start()
        return 1

    async def _freeze_api(self) -> int:
        with contextlib.suppress(psutil.NoSuchProcess):
            api = self._dice.choice([*self._stage.kept(), psutil.Process(self._stage.asgi.pid)])
            api.suspend()
            await asyncio.sleep(2)
            api.resume()
            return 1
        return 0

    async def _kill_postgres(self) -> int:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self._stage.kill_postgres()
            return 1
        return 0

    async def _kill_redis(self, redis: RedisServer) -> int:
        if self._redis_is_down:
            return 0
        self._redis_is_down = True
        redis.kill()
        await asyncio.sleep(self._dice.uniform(0, 4))
        await asyncio.to_thread(redis.start)
        self._redis_is_down = False
        return 1
