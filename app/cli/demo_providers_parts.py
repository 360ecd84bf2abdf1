"""The parts that the demonstration of providers runs on: all embedded, none of them kept."""

import asyncio
import json
import os
import socket
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from app.cli import processes
from app.cli.demo_providers import PLAN, POLL_SECONDS, demo
from app.core.logging import configure
from app.core.settings import Settings
from app.simulators.registry import SIMULATED
from app.simulators.simulator import Simulator


def run() -> int:
    """Everything, from the database to the last line; the status to exit with."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="luthier-demo-") as folder:
        own = Settings(data_dir=Path(folder), database_url=None, log_level="error")
        configure(own.log_level, own.log_format)
        with processes.database_url(own) as url:
            _become(url, folder)
            asyncio.run(processes.prepare(own, url))
            return asyncio.run(_played(began))


def _become(database_url: str, folder: str) -> None:
    """Settings reach the processes through the environment. A ledger of its own: simulated
    credentials must not take the place of real ones."""
    os.environ |= {
        "LUTHIER_DATABASE_URL": database_url,
        "LUTHIER_BROADCAST_URL": database_url,
        "LUTHIER_DATA_DIR": folder,
        "LUTHIER_HOST": "127.0.0.1",
        "LUTHIER_PORT": str(_free_port()),
        "LUTHIER_PROCESSES": "1",
        "LUTHIER_LOG_LEVEL": "error",
        "LUTHIER_WORKER_SLOTS": "0",
        "LUTHIER_PROVIDER_POLL_SECONDS": str(POLL_SECONDS),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _played(began: float) -> int:
    async with AsyncExitStack() as stack:
        places: dict[str, tuple[Simulator, str]] = {}
        origins: list[str] = []
        for number, (name, one) in enumerate(SIMULATED.items()):
            simulator = one.simulator(PLAN, seed=number)
            url = await stack.enter_async_context(simulator.served())
            places[name] = (simulator, url)
            origins += [url, *simulator.origins]
        os.environ["LUTHIER_PROVIDER_ORIGINS"] = json.dumps(origins)

        async def show(url: str, key: str) -> int:
            return await demo(url, key, places, began=began)

        return await processes.beside(Settings(), show)
