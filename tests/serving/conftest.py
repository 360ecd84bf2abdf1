"""A serving process with small models of its own."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.serving.weights import build_adapter, build_model
from tests.serving.world import Server, serve

# Without the training stack there is nothing to serve with.
collect_ignore_glob = [] if find_spec("torch") and find_spec("peft") else ["test_*.py"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("serving") / "model")


@pytest.fixture(scope="session")
def adapters(model: Path) -> dict[str, str]:
    return {
        name: str(build_adapter(model, model.parent / f"adapter{seed}", seed))
        for seed, name in enumerate(("ft:tiny:one.v1", "ft:tiny:two"), start=1)
    }


@pytest.fixture(scope="session")
def server(model: Path, adapters: dict[str, str]) -> Iterator[Server]:
    with serve(model, adapters=adapters) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> Any:
    async with server.client() as http:
        yield http


@pytest.fixture(scope="session")
def nan_adapter(model: Path) -> str:
    return str(build_adapter(model, model.parent / "nan", 9, broken=True))


@pytest.fixture(scope="session")
def narrow(model: Path) -> Iterator[Server]:
    with serve(model, "--max-num-seqs", "1", "--max-waiting", "2") as running:
        yield running
