"""One stack for all flows: an API and one worker, with the tiny model to train."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from app.core.postgres import EmbeddedPostgres
from app.simulators.simulator import Simulator
from tests.flows.simulated import origins, simulated
from tests.flows.stack import TINY, Stack
from tests.support import Api

ON_CI = os.environ.get("CI") == "true"


def torch_is_missing() -> bool:
    try:
        import torch  # noqa: F401, PLC0415
    except ImportError:
        return True
    return False


@pytest.fixture(scope="session")
async def simulators() -> AsyncIterator[dict[str, tuple[Simulator, str]]]:
    """Every provider's simulator, with its URL."""
    async with simulated() as found:
        yield found


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, simulators: dict[str, tuple[Simulator, str]]
) -> Iterator[Stack]:
    """An API and one worker, with the tiny model to train; providers are simulated."""
    if torch_is_missing():
        assert not ON_CI, "the training stack must be installed on CI"
        pytest.skip("needs the training stack: pip install luthier[train]")
    folder = tmp_path_factory.mktemp("stack")
    subprocess.run(
        [sys.executable, "-m", "app.training.tiny", "--to", str(folder / "own" / TINY)],
        check=True,
        capture_output=True,
    )
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
