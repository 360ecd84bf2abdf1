"""Hostile graders in each sandbox that holds a whole Python: no effect outside, a typed end, and
afterwards the process grades on and nothing is left."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from app.graders.client import Graders, Options
from app.graders.protocol import GradeCase
from app.graders.result import GraderResult
from tests.graders.hostile import HOSTILE, RAISED, SCORED

SECONDS = 1.5
WELL_MEANT = "import json, re\ndef grade(sample, item):\n    return len(sample['output_text']) / 4"


@dataclass
class Campaign:
    """All of them at once, each as a tenant of its own, and what was seen of it outside."""

    results: dict[str, GraderResult]
    graders: Graders
    pid: int
    connections: int


def python(source: str) -> dict[str, str]:
    return {"type": "python", "name": "g", "source": source}


async def start(sandbox: str) -> Graders:
    graders = Graders(Options(sandbox=sandbox, memory=400 << 20, seconds=SECONDS, boxes=6))
    ready = await graders.start()
    if ready.sandbox != sandbox:
        await graders.close()
        pytest.skip(f"{sandbox} does not work on this machine: {ready.refused.get(sandbox)}")
    return graders


@pytest.fixture(scope="module")
def listeners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[socket.socket]]:
    """On loopback, at a path and under an abstract name; nobody is expected."""
    path = str(tmp_path_factory.mktemp("sockets") / "s")
    with (
        socket.socket() as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        tcp.bind(("127.0.0.1", 0))
        unix.bind(path)
        abstract.bind(f"\0{path}")
        for listener in (tcp, unix, abstract):
            listener.listen()
            listener.setblocking(False)
        yield [tcp, unix, abstract]


@pytest.fixture(
    scope="module", params=["bubblewrap", pytest.param("landlock", marks=pytest.mark.soak)]
)
async def campaign(
    request: pytest.FixtureRequest,
    listeners: list[socket.socket],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Campaign]:
    graders = await start(request.param)
    pid = graders.pid
    assert pid is not None
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.write_text("nobody's business")
    secret.chmod(0o644)
    tcp, unix, _ = listeners
    item = {
        "port": tcp.getsockname()[1],
        "unix": unix.getsockname(),
        "abstract": unix.getsockname(),
        "secret": str(secret),
        "pid": pid,
    }

    async def one(name: str) -> tuple[str, GraderResult]:
        case = GradeCase(item=item, sample="text")
        grader = python(HOSTILE[name].source)
        (result,) = await graders.grade(grader, [case], tenant=name, seconds=100)
        return name, result

    results = dict(await asyncio.gather(*map(one, HOSTILE)))
    yield Campaign(results, graders, pid, sum(map(_visitors, listeners)))
    await graders.close()


def _visitors(listener: socket.socket) -> int:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return 0
    return 1


def ending(result: GraderResult) -> str | None:
    errors = result.metadata.errors
    if errors.python_grader_runtime_error:
        return RAISED
    return errors.python_grader_server_error_type if result.failed else SCORED


@pytest.mark.parametrize("name", HOSTILE)
def test_it_ends_as_it_must(campaign: Campaign, name: str) -> None:
    result, expected = campaign.results[name], HOSTILE[name]
    assert ending(result) in expected.ends, result
    if result.failed:
        assert result.reward == 0
        assert result.metadata.errors.details
        assert len(result.metadata.errors.details) < 2_500
    assert expected.says in (result.metadata.errors.details or "")


def test_no_secret_is_in_its_environment(campaign: Campaign) -> None:
    details = campaign.results["own environment"].metadata.errors.details or ""
    assert "LUTHIER" not in details
    assert "PATH" not in details


def test_nobody_called_outside(campaign: Campaign) -> None:
    assert campaign.connections == 0
    assert not Path("/tmp/x").exists()
    assert not Path("/tmp/link").exists()
    assert not Path("/tmp/0").exists()


async def test_the_process_is_unharmed_and_grades_on(campaign: Campaign) -> None:
    assert campaign.graders.pid == campaign.pid
    case = GradeCase(sample="text")
    results = await asyncio.gather(  # for the very tenants that did it
        *(
            campaign.graders.grade(python(WELL_MEANT), [case], tenant=name, seconds=60)
            for name in list(HOSTILE)[::4]
        )
    )
    assert {result.reward for (result,) in results} == {1.0}


async def test_nothing_is_left(campaign: Campaign) -> None:
    """Of the boxes only idle ones remain, frozen; and none when the process is closed."""
    inside = psutil.Process(campaign.pid).children(recursive=True)
    assert len(inside) <= 6 * 3  # bubblewrap's two processes and the runner
    runners = [process for process in inside if not process.children()]
    assert {process.status() for process in runners} <= {psutil.STATUS_STOPPED}
    await campaign.graders.close()
    _, alive = psutil.wait_procs(inside, timeout=10)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
