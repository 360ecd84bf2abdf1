"""One stack for all flows: an API and one worker, with the tiny model to train."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.core.postgres import EmbeddedPostgres
from app.simulators.simulator import Simulator
from tests.flows.simulated import origins, simulated
from tests.flows.stack import TINY, Stack
from tests.support import Api


@pytest.fixture(scope="session")
async def simulators() -> AsyncIterator[dict[str, tuple[Simulator, str]]]:
    """Every provider's simulator, with its URL."""
    async with simulated() as found:
        yield found


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    simulators: dict[str, tuple[Simulator, str]],
) -> Iterator[Stack]:
    """An API and one worker, with the tiny model to train; providers are simulated."""
    folder = tmp_path_factory.mktemp("stack")
    shutil.copytree(tiny_model, folder / "own" / TINY)
    embedded = EmbeddedPostgres(folder, fsync=False)
    embedded.start()
    running = Stack(folder, embedded.url, origins(simulators))
    try:
        running.start_api()
        running.start_worker()
        yield running
    finally:
        running.stop()
        embedded.stop()


@pytest.fixture
async def owner(stack: Stack) -> AsyncIterator[Api]:
    """The API of the stack as its first owner."""
    async with Api(stack.url, stack.key) as client:
        yield client
