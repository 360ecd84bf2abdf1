"""What one page of 50 jobs with 20 fields costs the server: ours, with key, tenant and guard,
against stock Strawberry over SQLModel objects, on the same rows and without any of those.

    python -m tests.bench.page [--requests N]

Both run as processes of their own, are asked in turn over one kept-open connection, and are judged
by the CPU time that the server's process used: a busy machine changes that far less than latency.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import strawberry
import strawberry.tools
import uvicorn
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from strawberry.asgi import GraphQL
from strawberry.scalars import JSON

from app.cli import processes
from app.core.database import Database
from app.core.postgres import EmbeddedPostgres
from app.core.settings import Settings
from app.jobs import tables
from tests.jobs.rows import EPOCH, Rows
from tests.support import Api, new_tenant

SIZE = 50
FIELDS = (
    "id name description status requestedAction provider providerJobId baseModel method "
    "hyperparameters suffix seed metadata hardware estimatedCost cost ownerId projectId "
    "createdAt updatedAt"
)
QUERY = (
    f"query Page($n: Int!) {{ jobs(first: $n) {{ nodes {{ {FIELDS} }}"
    " pageInfo { hasNextPage endCursor } } }"
)
_ROUND = 50
_PORTS = {"ours": 18471, "stock": 18472}


@dataclass(frozen=True)
class Cost:
    cpu_ms: float
    wall_ms: float


@strawberry.type
class Job:
    id: strawberry.ID
    name: str
    description: str | None
    status: str
    requested_action: str | None
    provider: str
    provider_job_id: str | None
    base_model: str
    method: str
    hyperparameters: JSON
    suffix: str | None
    seed: int
    hardware: str | None
    estimated_cost: float | None
    cost: float | None
    owner_id: strawberry.ID
    project_id: strawberry.ID
    created_at: datetime
    updated_at: datetime
    labels: strawberry.Private[object]

    @strawberry.field
    def metadata(self) -> JSON:
        return JSON(self.labels)


@strawberry.type
class PageInfo:
    has_next_page: bool
    end_cursor: str


@strawberry.type
class Jobs:
    nodes: list[Job]
    page_info: PageInfo


def stock(url: str) -> None:
    """What the documentation of Strawberry and of SQLModel leads to."""
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:", 1))
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)

    async def jobs(first: int = 20) -> Jobs:
        async with sessions() as session:
            query = select(tables.Job).order_by(
                col(tables.Job.created_at).desc(), col(tables.Job.id).desc()
            )
            rows = list(await session.exec(query.limit(first + 1)))
        found = PageInfo(has_next_page=len(rows) > first, end_cursor=rows[first - 1].id)
        nodes: Any = rows[:first]
        return Jobs(nodes=nodes, page_info=found)

    query = strawberry.tools.create_type("Query", [strawberry.field(jobs, name="jobs")])
    uvicorn.run(
        GraphQL(strawberry.Schema(query)),
        port=_PORTS["stock"],
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


@contextmanager
def running(name: str, url: str, data_dir: Path) -> Iterator[psutil.Process]:
    """One of the two servers, as a process of its own."""
    environment = os.environ | {
        "LUTHIER_DATA_DIR": str(data_dir),
        "LUTHIER_DATABASE_URL": url,
        "LUTHIER_PORT": str(_PORTS[name]),
        "LUTHIER_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "tests.bench.page", f"--{name}"]
    process = subprocess.Popen(command, env=environment)
    try:
        for _ in range(100):
            try:
                httpx.get(f"http://127.0.0.1:{_PORTS[name]}/graphql", trust_env=False)  # noqa: TID251
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def ask(client: httpx.Client, name: str, key: str) -> Any:
    response = client.post(
        f"http://127.0.0.1:{_PORTS[name]}/graphql",
        json={"query": QUERY, "variables": {"n": SIZE}},
        headers={"x-api-key": key},
    )
    return response.json()["data"]["jobs"]["nodes"]


def measure(requests: int) -> dict[str, Cost]:
    """Milliseconds per request; the two are asked in turn, in small rounds."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        embedded = EmbeddedPostgres(data_dir, fsync=False)
        embedded.start()
        try:
            settings = Settings(data_dir=data_dir, _env_file=None)
            asyncio.run(processes.prepare(settings, embedded.url))
            with (
                running("ours", embedded.url, data_dir) as ours,
                running("stock", embedded.url, data_dir) as plain,
                httpx.Client(trust_env=False) as client,
            ):
                key = asyncio.run(fill(settings, embedded.url))
                return compare({"ours": ours, "stock": plain}, client, key, requests)
        finally:
            embedded.stop()


def compare(
    servers: dict[str, psutil.Process], client: httpx.Client, key: str, requests: int
) -> dict[str, Cost]:
    cpu, wall = dict.fromkeys(servers, 0.0), dict.fromkeys(servers, 0.0)
    for name in servers:
        nodes = ask(client, name, key)
        assert len(nodes) == SIZE
        assert len(nodes[0]) == len(FIELDS.split()) == 20
        for _ in range(_ROUND):
            ask(client, name, key)
    rounds = max(1, requests // _ROUND)
    for _ in range(rounds):
        for name, process in servers.items():
            before, began = used(process), time.perf_counter()
            for _ in range(_ROUND):
                ask(client, name, key)
            cpu[name] += used(process) - before
            wall[name] += time.perf_counter() - began
    share = 1000 / (rounds * _ROUND)
    return {name: Cost(cpu[name] * share, wall[name] * share) for name in servers}


def used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def fill(settings: Settings, url: str) -> str:
    """Sixty jobs of one tenant; its key."""
    database = Database(url, "luthier_app", 2)
    try:
        tenant = await new_tenant(database, settings)
        async with Api(f"http://127.0.0.1:{_PORTS['ours']}", tenant.key) as api:
            rows = await Rows.of(api, database, tenant)
        await rows.add(
            *(
                {
                    "name": f"job {n}",
                    "description": "Route support tickets to the right queue.",
                    "suffix": f"v{n}",
                    "hyperparameters": {"nEpochs": "auto", "learningRate": 1e-4, "batchSize": 8},
                    "labels": {"team": "support", "run": str(n)},
                    "estimated_cost": 1.25,
                    "created_at": EPOCH + timedelta(minutes=n),
                }
                for n in range(60)
            )
        )
        return tenant.key
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--stock", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ours:
        processes.serve(Settings(_env_file=None), os.environ["LUTHIER_DATABASE_URL"])
    elif given.stock:
        stock(os.environ["LUTHIER_DATABASE_URL"])
    else:
        for name, cost in measure(given.requests).items():
            print(f"{name:6} {cost.cpu_ms:6.2f} ms CPU  {cost.wall_ms:6.2f} ms wall")  # noqa: T201


if __name__ == "__main__":
    main()
