"""How many changes of state a second the service records: pausing and resuming, as a customer asks.

    python -m tests.bench changes [--seconds N] [--json]

Each change is one transaction through `jobs.control`: the job locked, its status moved, an attempt
opened or ended, an audit row, an event in the job's stream and one in the organization's ledger,
flushed to the disk. Ten callers in one process; once with all jobs in one organization, whose
ledger they queue for, and once in ten. The floor, in the same run: the bare driver updating one job
and inserting one event per commit, on as many connections.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

import asyncpg
import uvloop

from app.attempts import queue
from app.core import clock, ids
from app.core.actor import Actor
from app.core.database import Database
from app.core.settings import Settings
from app.events import log
from app.events.doorbell import Doorbell
from app.jobs import control
from tests.bench.ingest import durability
from tests.bench.world import PORT, World, postgres_cpu, world
from tests.jobs.rows import Rows
from tests.support import Api, as_owner, new_tenant

CALLERS = 10
_EACH = 5  # jobs of one caller
_BARE = (
    "UPDATE jobs SET status = $2, updated_at = $3 WHERE id = $1",
    "INSERT INTO events (org_id, stream_id, seq, type, at, data)"
    " VALUES ('floor', $1, $2, 'job.status', $3, $4)",
)

Change = Callable[[int], Awaitable[object]]


@dataclass(frozen=True)
class Figures:
    scenario: str
    changes: int
    per_second: float
    p50_ms: float
    p99_ms: float
    client_us: float
    postgres_us: float


@dataclass(frozen=True)
class Job:
    actor: Actor
    id: str


async def measure(seconds: float) -> tuple[str, list[Figures]]:
    async with world("direct", 0, durable=True) as found:
        one = await _jobs(found, 1)
        ten = await _jobs(found, CALLERS)
        database = Database(found.url, "luthier_app", CALLERS)
        doorbell = Doorbell(found.url)
        database.after_commit = doorbell.ring
        await doorbell.start()
        bare = [await asyncpg.connect(found.url) for _ in range(CALLERS)]
        try:
            figures = [
                await _timed(found, "one organization", _service(database, one), seconds),
                await _timed(found, "ten organizations", _service(database, ten), seconds),
                await _timed(found, "floor", _floor(bare, ten), seconds),
            ]
            await _check(found, figures)
        finally:
            for connection in bare:
                await connection.close()
            await doorbell.stop()
            await database.close()
        return await durability(found.url), figures


async def _jobs(found: World, tenants: int) -> list[list[Job]]:
    """Queued jobs, for each caller those of one tenant."""
    settings = Settings(data_dir=found.data_dir, _env_file=None)
    made: list[list[Job]] = []
    for _ in range(tenants):
        tenant = await new_tenant(found.writer, settings)
        async with Api(f"http://127.0.0.1:{PORT}", tenant.key) as api:
            rows = await Rows.of(api, found.writer, tenant)
        share = CALLERS // tenants
        jobs = await rows.add(*({"status": "queued"} for _ in range(_EACH * share)))
        async with found.writer.transaction(tenant.actor.org_id) as session:
            for job in jobs:
                await log.open_stream(session, job.org_id, job.id)
                await queue.open_attempt(session, job.org_id, job.id)
        given = [Job(tenant.actor, job.id) for job in jobs]
        made += [given[n::share] for n in range(share)]
    return made


def _service(database: Database, callers: list[list[Job]]) -> list[Change]:
    def caller(jobs: list[Job]) -> Change:
        async def change(number: int) -> None:
            turn, place = divmod(number, len(jobs))
            job = jobs[place]
            verb = control.resume if turn % 2 else control.pause
            async with database.transaction(job.actor.org_id) as session:
                await verb(session, job.actor, job.id)

        return change

    return [caller(jobs) for jobs in callers]


def _floor(
    connections: "list[asyncpg.Connection[asyncpg.Record]]", callers: list[list[Job]]
) -> list[Change]:
    def caller(connection: "asyncpg.Connection[asyncpg.Record]", jobs: list[Job]) -> Change:
        stream = ids.new("floor")

        async def change(number: int) -> None:
            job, now = jobs[number % len(jobs)], clock.now()
            async with connection.transaction():
                await connection.execute(_BARE[0], job.id, "queued", now)
                await connection.execute(_BARE[1], stream, number, now, '{"after": "queued"}')

        return change

    return [caller(*pair) for pair in zip(connections, callers, strict=True)]


async def _timed(found: World, scenario: str, callers: list[Change], seconds: float) -> Figures:
    clock_now = asyncio.get_running_loop().time
    took: list[float] = []
    counts = [0] * len(callers)

    async def repeat(number: int, end: float) -> None:
        change = callers[number]
        while (began := clock_now()) < end:
            await change(counts[number])
            counts[number] += 1
            took.append(clock_now() - began)

    everyone = range(len(callers))
    await asyncio.gather(*(repeat(n, clock_now() + 1) for n in everyone))  # statements are prepared
    took.clear()
    client, server, began = time.process_time(), postgres_cpu(found.data_dir), clock_now()
    await asyncio.gather(*(repeat(n, began + seconds) for n in everyone))
    lasted = clock_now() - began
    client, server = time.process_time() - client, postgres_cpu(found.data_dir) - server
    took.sort()
    return Figures(
        scenario,
        sum(counts),
        len(took) / lasted,
        1000 * took[len(took) // 2],
        1000 * took[len(took) * 99 // 100],
        1e6 * client / len(took),
        1e6 * server / len(took),
    )


async def _check(found: World, figures: list[Figures]) -> None:
    """Every change is in the log once, and in its ledger once."""
    [stored] = await as_owner(
        found.url,
        "SELECT count(*) AS events, count(*) FILTER (WHERE starts_with(stream_id, 'org_')) AS told"
        " FROM events WHERE type = 'job.status' AND org_id <> 'floor'",
    )
    changes = sum(one.changes for one in figures if one.scenario != "floor")
    assert stored == {"events": 2 * changes, "told": changes}, (stored, changes)


def shown(settings: str, figures: list[Figures], as_json: bool) -> str:
    if as_json:
        found = {"settings": settings, "figures": [asdict(one) for one in figures]}
        return json.dumps(found, indent=2)
    lines = [
        f"{CALLERS} callers; {settings}",
        f"{'':18} {'changes/s':>9} {'p50 ms':>7} {'p99 ms':>7} {'CPU µs: client':>14}"
        f" {'Postgres':>8}",
    ]
    lines += [
        f"{f.scenario:18} {f.per_second:9.0f} {f.p50_ms:7.1f} {f.p99_ms:7.1f} {f.client_us:14.0f}"
        f" {f.postgres_us:8.0f}"
        for f in figures
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="for each scenario")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    settings, figures = uvloop.run(measure(given.seconds))
    print(shown(settings, figures, given.json))  # noqa: T201


if __name__ == "__main__":
    main()
