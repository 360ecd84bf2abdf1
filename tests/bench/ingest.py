"""How fast metric points come into the log by the worker's own path, while twenty people watch.

    python -m tests.bench ingest [--rows N] [--json]

Fifty training processes (played by one) write reports to their pipes as fast as they are taken. One
worker process holds the fifty claims and runs what `luthier work` runs for each: the reading of the
pipe, the batches, fenced appends, commits that are flushed to the disk. Twenty viewers on an API
process each follow one job over a WebSocket and check that every step comes once and in order.
A row is one step with ten values. The floor, in the same run: the same rows, in batches as large
as the worker's came to be, by one unnest INSERT each of the bare driver, on as many connections.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import orjson

from app.attempts import queue
from app.attempts.queue import Claim
from app.catalog.base_models import BaseModels
from app.core import clock, ids
from app.core.database import Database
from app.core.settings import Settings
from app.events.doorbell import Doorbell
from app.files.store import FolderStore
from app.training import report
from app.worker import reports
from app.worker.lease import Lease
from app.worker.process import TrainingProcess
from app.worker.record import JobRecord, Workshop
from tests.bench.world import PORT, Child, World, postgres_cpu, world
from tests.support import Api, as_owner

JOBS, VIEWERS, ROWS = 50, 20, 2_000
_LEASE = timedelta(minutes=5)
_VALUES = (
    *("training_loss", "validation_loss", "training_accuracy", "validation_accuracy"),
    *("learning_rate", "gradient_norm", "tokens_per_second", "reward", "entropy", "kl"),
)
_WATCH = """subscription ($j: ID!) { jobMetrics(jobId: $j, after: "0") { cursor points {
  step trainingLoss validationLoss trainingAccuracy learningRate gradientNorm reward other } } }"""


@dataclass(frozen=True)
class Figures:
    rows: int
    values: int
    seconds: float
    rows_per_second: float
    values_per_second: float
    commits_per_second: float
    worker_us: float
    postgres_us: float
    api_us: float
    viewers_behind_s: float
    viewers: int
    wrong: int
    floor_rows_per_second: float
    floor_client_us: float
    floor_postgres_us: float
    settings: str


def said(step: int, of: int) -> report.Metrics:
    """What a training process says of one step."""
    values: report.Values = {name: round(1.7 / (n + 1) + step / of, 6) for n, name in
                             enumerate(_VALUES)}  # fmt: skip
    progress = report.Progress(
        step=step,
        total_steps=of,
        epoch=step / of,
        total_epochs=1,
        trained_tokens=step * 512,
        tokens_per_second=1900.5,
        remaining_seconds=of - step,
    )
    return report.Metrics(step=step, epoch=step / of, values=values, progress=progress)


async def measure(rows: int) -> Figures:
    async with world("direct", JOBS, durable=True) as found:
        org = found.tenant.actor.org_id
        async with found.writer.transaction(org) as session:
            for job in found.jobs:
                await queue.open_attempt(session, org, job)
        settings = await durability(found.url)
        with (
            Child("tests.bench.ingest", "viewers") as viewers,
            Child("tests.bench.ingest", "worker", **found.environment) as worker,
        ):
            viewers.say({"key": found.tenant.key, "jobs": found.jobs[:VIEWERS], "last": rows})
            worker.say({"rows": rows})
            assert await viewers.hear() == b"ready\n"
            assert await worker.hear() == b"ready\n"
            before = (worker.cpu, found.server.cpu, postgres_cpu(found.data_dir))
            worker.say("go")
            wrote = json.loads(await worker.hear())
            after = (worker.cpu, found.server.cpu, postgres_cpu(found.data_dir))
            watched = json.loads(await viewers.hear())
        [stored] = await as_owner(
            found.url,
            "SELECT count(*) AS rows, count(DISTINCT xmin::text) AS commits FROM events"
            " WHERE type = 'metrics'",
        )
        assert stored["rows"] == JOBS * rows, stored
        floor = await bare(found, rows, round(stored["rows"] / stored["commits"]))
    total, seconds = JOBS * rows, wrote["ended"] - wrote["began"]
    cpu = [1e6 * (then - now) / total for then, now in zip(after, before, strict=True)]
    return Figures(
        total,
        total * len(_VALUES),
        seconds,
        total / seconds,
        total * len(_VALUES) / seconds,
        stored["commits"] / seconds,
        cpu[0],
        cpu[2],
        cpu[1],
        watched["ended"] - wrote["ended"],
        len(watched["wrong"]),
        sum(watched["wrong"]),
        *floor,
        settings,
    )


async def durability(url: str) -> str:
    names = ("fsync", "synchronous_commit", "full_page_writes")
    [row] = await as_owner(url, "SELECT " + ", ".join(f"current_setting('{n}') {n}" for n in names))
    return ", ".join(f"{name} {value}" for name, value in row.items())


_BARE = """INSERT INTO events (org_id, stream_id, seq, attempt, type, step, at, data)
SELECT $1, $2, $3 + n, 1, 'metrics', step, at, data
  FROM unnest($4::int[], $5::timestamptz[], $6::text[]::jsonb[])
       WITH ORDINALITY AS new(step, at, data, n)"""


async def bare(found: World, rows: int, batch: int) -> tuple[float, float, float]:
    """Rows per second, and CPU µs per row of the client and of Postgres."""
    org, now = found.tenant.actor.org_id, clock.now()
    data = [
        orjson.dumps({"epoch": 0.5, "values": said(n, rows).values}).decode() for n in range(batch)
    ]
    waiting = [(ids.new("floor"), first) for first in range(0, rows, batch) for _ in range(JOBS)]
    total = len(waiting) * batch

    async def write(connection: "asyncpg.Connection[Any]") -> None:
        while waiting:
            stream, first = waiting.pop()
            steps = list(range(first, first + batch))
            await connection.execute(_BARE, org, stream, first, steps, [now] * batch, data)

    connections = [await asyncpg.connect(found.url) for _ in range(Settings().database_pool)]
    client, server, began = time.process_time(), postgres_cpu(found.data_dir), time.monotonic()
    await asyncio.gather(*(write(connection) for connection in connections))
    seconds = time.monotonic() - began
    client, server = time.process_time() - client, postgres_cpu(found.data_dir) - server
    for connection in connections:
        await connection.close()
    return total / seconds, 1e6 * client / total, 1e6 * server / total


async def watch() -> None:
    """The viewers: each checks that it gets 1, 2, 3 … without gap or repeat."""
    load = json.loads(await asyncio.to_thread(sys.stdin.readline))
    ready = asyncio.Barrier(len(load["jobs"]) + 1)

    async def one(api: Api, job: str) -> int:
        expected, wrong = 1, 0
        async with api.subscribe(_WATCH, j=job) as results:
            await ready.wait()
            while expected <= load["last"]:
                async with asyncio.timeout(60):
                    points = (await anext(results))["jobMetrics"]["points"]
                for point in points:
                    wrong += point["step"] != expected
                    expected = point["step"] + 1
        return wrong

    async with Api(f"http://127.0.0.1:{PORT}", load["key"]) as api:
        viewers = [asyncio.create_task(one(api, job)) for job in load["jobs"]]
        await ready.wait()
        _tell("ready")
        wrong = await asyncio.gather(*viewers)
        _tell(json.dumps({"wrong": wrong, "ended": time.monotonic()}))


async def work() -> None:
    """The worker: as `luthier work` does, for claims of fifty jobs and a stand-in's reports."""
    rows = json.loads(await asyncio.to_thread(sys.stdin.readline))["rows"]
    settings, url = Settings(_env_file=None), os.environ["LUTHIER_DATABASE_URL"]
    database = Database(url, "luthier_worker", settings.database_pool)
    doorbell = Doorbell(url)
    database.after_commit = doorbell.ring
    await doorbell.start()
    store = FolderStore(settings.data_dir / "files")
    shop = Workshop(settings, database, store, BaseModels(settings), {}, b"")
    claims: list[Claim] = []
    while len(claims) < JOBS:
        async with database.transaction(None) as session:
            claim = await queue.claim(session, "worker_bench", ids.JOB, [queue.LOCAL], _LEASE)
        assert claim is not None
        claims.append(claim)
    leases = [Lease(database, claim, _LEASE.total_seconds()) for claim in claims]
    jobs = [JobRecord(shop, *held) for held in zip(claims, leases, strict=True)]
    for job in jobs:
        assert await job.begin() is not None
    process, pipes = await _training(rows)
    _tell("ready")
    await asyncio.to_thread(sys.stdin.readline)
    began = time.monotonic()
    process.stdin.write(b"go\n")
    await asyncio.gather(
        *(
            reports.record(job, TrainingProcess(process, pipe).reports(), _no_start)
            for job, pipe in zip(jobs, pipes, strict=True)
        )
    )
    _tell(json.dumps({"began": began, "ended": time.monotonic()}))
    await process.wait()
    for lease in leases:
        await lease.release()
    await doorbell.stop()
    await database.close()


async def _no_start(_: report.Started) -> None:
    raise AssertionError("these processes are in the middle of their work")


async def _training(rows: int) -> tuple[Any, Sequence[asyncio.StreamReader]]:
    ends = [os.pipe() for _ in range(JOBS)]
    writing = [end for _, end in ends]
    process: Any = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.ingest", "training", str(rows), *map(str, writing)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=writing,
    )
    for end in writing:
        os.close(end)
    pipes = []
    for end, _ in ends:
        pipe = asyncio.StreamReader(limit=1 << 20)
        protocol = partial(asyncio.StreamReaderProtocol, pipe)
        await asyncio.get_running_loop().connect_read_pipe(protocol, os.fdopen(end, "rb", 0))
        pipes.append(pipe)
    assert await process.stdout.readline() == b"ready\n"
    return process, pipes


def train(rows: int, ends: Sequence[int]) -> None:
    """The training processes: each line as it is written by a real one, one write per line."""
    lines = [said(n, rows).model_dump_json().encode() + b"\n" for n in range(1, rows + 1)]

    def one(end: int) -> None:
        for line in lines:
            os.write(end, line)
        os.close(end)

    _tell("ready")
    sys.stdin.readline()
    for end in ends:
        threading.Thread(target=one, args=(end,)).start()


def shown(f: Figures, as_json: bool) -> str:
    if as_json:
        return json.dumps(asdict(f), indent=2)
    return "\n".join(
        [
            f"{JOBS} jobs, {f.viewers} viewers, {f.rows:,} rows of {len(_VALUES)} values"
            f" in {f.seconds:.1f} s ({f.settings})",
            f"rows/s       {f.rows_per_second:10,.0f}   floor {f.floor_rows_per_second:10,.0f}",
            f"values/s     {f.values_per_second:10,.0f}",
            f"commits/s    {f.commits_per_second:10,.0f}",
            f"CPU µs/row: worker {f.worker_us:.1f} (floor's client {f.floor_client_us:.1f}),"
            f" Postgres {f.postgres_us:.1f} (floor {f.floor_postgres_us:.1f}), API {f.api_us:.1f}",
            f"viewers had it all {f.viewers_behind_s:.2f} s after the last commit;"
            f" missing, repeated or out of order: {f.wrong}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="for each job")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    print(shown(asyncio.run(measure(given.rows)), given.json))  # noqa: T201


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["viewers"]:
            asyncio.run(watch())
        case ["worker"]:
            asyncio.run(work())
        case ["training", number, *places]:
            train(int(number), [int(place) for place in places])
        case _:
            main()
