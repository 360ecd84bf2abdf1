"""`luthier up`: everything on one machine, which survives the death of its parts."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

pytestmark = pytest.mark.timeout(120)


class Up:
    """A running `luthier up`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        env = {name: value for name, value in os.environ.items() if "LUTHIER" not in name}
        env |= {"LUTHIER_DATA_DIR": str(folder), "LUTHIER_PORT": str(self.port)}
        self.output = folder.parent / "up.log"
        with self.output.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", "up"], stdout=log, stderr=log, env=env
            )

    def ready(self, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        with httpx.Client(trust_env=False, timeout=5) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"{self.url}/readyz").status_code == 200:
                        return
                time.sleep(0.1)
        raise TimeoutError(self.output.read_text()[-2000:])

    def child(self, verb: str) -> psutil.Process:
        for child in psutil.Process(self.process.pid).children():
            if child.cmdline()[-1] == verb:
                return child
        raise LookupError(verb)

    def family(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up") / "data")
    try:
        running.ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.process.terminate()
            running.process.wait(60)


def test_the_owner_key_is_shown_and_kept_for_its_owner_alone(up: Up) -> None:
    key_file = up.folder / "owner-key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    key = key_file.read_text().strip()
    assert f"{up.url}/graphql#key={key}" in up.output.read_text()
    answer = httpx.post(
        f"{up.url}/graphql",
        json={"query": "{ viewer { role } }"},
        headers={"authorization": f"Bearer {key}"},
        trust_env=False,
    )
    assert answer.json()["data"] == {"viewer": {"role": "OWNER"}}


def test_a_browser_gets_graphiql_and_a_program_does_not(up: Up) -> None:
    with httpx.Client(trust_env=False, base_url=up.url) as client:
        page = client.get("/graphql", headers={"accept": "text/html"})
        assert page.status_code == 200
        assert "text/html" in page.headers["content-type"]
        assert client.get("/graphql?query={viewer{role}}").status_code == 401
        assert client.get("/healthz").text == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_idle_it_needs_under_500_megabytes_and_the_api_has_no_torch(up: Up) -> None:
    time.sleep(2)
    total = sum(process.memory_full_info().pss for process in up.family())
    print(f"idle: {total / 1e6:.0f} MB in {len(up.family())} processes")  # noqa: T201
    assert total < 500e6
    for verb in ("serve", "work"):
        maps = Path(f"/proc/{up.child(verb).pid}/maps").read_text()
        assert "libtorch" not in maps


@pytest.mark.parametrize("verb", ["serve", "work"])
def test_a_killed_part_is_started_again(up: Up, verb: str) -> None:
    before = up.child(verb)
    before.kill()
    psutil.wait_procs([before], timeout=10)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(LookupError, psutil.NoSuchProcess):
            if up.child(verb).pid != before.pid:
                break
        time.sleep(0.1)
    up.ready()
    assert up.child(verb).pid != before.pid


def test_a_killed_database_is_started_again(up: Up) -> None:
    postmaster = next(
        child
        for child in psutil.Process(up.process.pid).children(recursive=True)
        if child.name() == "postgres" and "-D" in child.cmdline()
    )
    postmaster.kill()
    psutil.wait_procs([postmaster], timeout=10)
    time.sleep(1)
    up.ready()


def test_a_signal_stops_everything_in_order_and_the_data_stays(tmp_path: Path) -> None:
    first = Up(tmp_path / "data")
    first.ready()
    key = (first.folder / "owner-key").read_text()
    family = first.family()
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(30) == 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    second = Up(tmp_path / "data")
    try:
        second.ready()
        assert (second.folder / "owner-key").read_text() == key
        answer = httpx.post(
            f"{second.url}/graphql",
            json={"query": "{ viewer { role } }"},
            headers={"x-api-key": key.strip()},
            trust_env=False,
        )
        assert answer.status_code == 200
    finally:
        second.process.terminate()
        second.process.wait(60)


def test_nothing_outlives_a_killed_keeper(tmp_path: Path) -> None:
    running = Up(tmp_path / "data")
    running.ready()
    family = running.family()[1:]
    running.process.kill()
    running.process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive, [process.cmdline() for process in alive]
