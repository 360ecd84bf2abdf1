"""`luthier up`: everything on one machine, which survives the death of its parts."""

import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cli.running import Running

pytestmark = pytest.mark.timeout(120)


def _up(folder: Path) -> Running:
    return Running("up", output=folder.parent / "up.log", data_dir=str(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up") / "data"


@pytest.fixture(scope="module")
def up(folder: Path) -> Iterator[Running]:
    with _up(folder) as running:
        running.ready()
        yield running


def test_the_owner_key_is_shown_and_kept_for_its_owner_alone(up: Running, folder: Path) -> None:
    key_file = folder / "owner-key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    key = key_file.read_text().strip()
    assert f"{up.url}/graphql#key={key}" in up.said()
    answer = httpx.post(
        f"{up.url}/graphql",
        json={"query": "{ viewer { role } }"},
        headers={"authorization": f"Bearer {key}"},
        trust_env=False,
    )
    assert answer.json()["data"] == {"viewer": {"role": "OWNER"}}


def test_a_browser_gets_graphiql_and_a_program_does_not(up: Running) -> None:
    with httpx.Client(trust_env=False, base_url=up.url) as client:
        page = client.get("/graphql", headers={"accept": "text/html"})
        assert page.status_code == 200
        assert "text/html" in page.headers["content-type"]
        assert client.get("/graphql?query={viewer{role}}").status_code == 401
        assert client.get("/healthz").text == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_idle_it_needs_under_500_megabytes_and_the_api_has_no_torch(up: Running) -> None:
    time.sleep(2)
    total = sum(process.memory_full_info().pss for process in up.family())
    print(f"idle: {total / 1e6:.0f} MB in {len(up.family())} processes")  # noqa: T201
    assert total < 500e6
    for verb in ("serve", "work"):
        maps = Path(f"/proc/{up.kept(verb)[0].pid}/maps").read_text()
        assert "libtorch" not in maps


@pytest.mark.parametrize("verb", ["serve", "work"])
def test_a_killed_part_is_started_again(up: Running, verb: str) -> None:
    [before] = up.kept(verb)
    before.kill()
    psutil.wait_procs([before], timeout=10)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if any(child.pid != before.pid for child in up.kept(verb)):
            break
        time.sleep(0.1)
    up.ready()
    assert up.kept(verb)[0].pid != before.pid


def test_a_killed_database_is_started_again(up: Running) -> None:
    postmaster = next(
        child
        for child in psutil.Process(up.process.pid).children(recursive=True)
        if child.name() == "postgres" and "-D" in child.cmdline()
    )
    postmaster.kill()
    psutil.wait_procs([postmaster], timeout=10)
    time.sleep(1)
    up.ready()


def test_a_signal_stops_everything_in_order_and_the_data_stays(up: Running, folder: Path) -> None:
    """The last one that uses what was started for all; nothing outlives the next one's keeper."""
    key = (folder / "owner-key").read_text()
    family = up.family()
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(30) == 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    with _up(folder) as second:
        second.ready()
        assert (folder / "owner-key").read_text() == key
        answer = httpx.post(
            f"{second.url}/graphql",
            json={"query": "{ viewer { role } }"},
            headers={"x-api-key": key.strip()},
            trust_env=False,
        )
        assert answer.status_code == 200
        family = second.family()[1:]
        second.process.kill()
        second.process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive, [process.cmdline() for process in alive]
