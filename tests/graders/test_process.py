"""The graders' process: it dies with its parent, comes back after a crash, and can be left."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.graders import protocol
from app.graders.client import Graders, Options
from app.graders.errors import GradersUnavailable
from app.graders.protocol import GradeCase, Ready

ROOT = Path(__file__).parents[2]
CHECK: dict[str, Any] = {
    "type": "string_check",
    "name": "check",
    "input": "{{ sample.output_text }}",
    "reference": "x",
    "operation": "eq",
}
SLEEP = "import time\ndef grade(sample, item):\n    time.sleep(item['seconds'])\n    return 1"
SLEEPER: dict[str, Any] = {"type": "python", "name": "sleeper", "source": SLEEP}


async def check(graders: Graders, count: int = 1) -> list[float]:
    cases = [GradeCase(sample="x" if number % 2 == 0 else "y") for number in range(count)]
    results = await graders.grade(CHECK, cases, tenant="org", seconds=30)
    return [result.reward for result in results]


def nap(seconds: float) -> GradeCase:
    return GradeCase(item={"seconds": seconds}, sample="")


async def test_results_come_in_the_order_of_the_cases(graders: Graders) -> None:
    assert await check(graders, 100) == [1, 0] * 50
    naps = [nap(seconds) for seconds in (0.2, 0.0, 0.1)]
    results = await graders.grade(SLEEPER, naps, tenant="org", seconds=30)
    assert [result.reward for result in results] == [1, 1, 1]
    assert await graders.grade(CHECK, [], tenant="org", seconds=30) == []


async def test_requests_do_not_wait_for_each_other(graders: Graders) -> None:
    slow = asyncio.create_task(graders.grade(SLEEPER, [nap(20)], tenant="slow", seconds=60))
    async with asyncio.timeout(15):
        assert await check(graders) == [1]
    assert not slow.done()
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow


async def test_a_case_out_of_time_says_so_and_the_rest_are_scored(graders: Graders) -> None:
    soon, late = await graders.grade(SLEEPER, [nap(0), nap(20)], tenant="time", seconds=3)
    assert late.metadata.errors.unresponsive_reward_error
    assert "no reward after" in (late.metadata.errors.details or "")
    assert soon.reward == 1


async def test_a_cancelled_request_ends_its_box() -> None:
    graders = Graders(Options(boxes=2))
    await graders.start()
    task = asyncio.create_task(graders.grade(SLEEPER, [nap(25)], tenant="org", seconds=60))
    assert graders.pid is not None
    process = psutil.Process(graders.pid)
    async with asyncio.timeout(20):
        while not process.children():  # noqa: ASYNC110 - psutil tells it in no other way
            await asyncio.sleep(0.02)
        box = process.children()[0]
        await asyncio.sleep(0.2)  # by now the grader is asleep, or just about to be
        task.cancel()
        while box.is_running():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await check(graders) == [1]
    await graders.close()


async def test_a_crashed_process_is_started_again() -> None:
    graders = Graders(Options(sandbox="off"))
    assert await check(graders) == [1]
    first = graders.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert await check(graders) == [1]
    assert graders.pid != first
    await graders.close()


async def test_a_request_under_way_survives_one_crash_and_not_two() -> None:
    graders = Graders()
    await graders.start()
    asked = asyncio.create_task(graders.grade(SLEEPER, [nap(2)], tenant="org", seconds=60))
    await asyncio.sleep(0.3)
    assert graders.pid is not None
    os.kill(graders.pid, signal.SIGKILL)
    assert (await asked)[0].reward == 1

    asked = asyncio.create_task(graders.grade(SLEEPER, [nap(20)], tenant="org", seconds=60))
    killed: set[int] = set()
    async with asyncio.timeout(40):
        while len(killed) < 2:
            await asyncio.sleep(0.05)
            pid = graders.pid
            if pid is not None and pid not in killed and psutil.Process(pid).children():
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(GradersUnavailable, match="twice"):
            await asked
    await graders.close()


async def test_closing_ends_what_is_under_way() -> None:
    graders = Graders()
    ready = await graders.start()
    if ready.sandbox is None:
        pytest.skip("no sandbox here")
    pid = graders.pid
    assert pid is not None
    asked = asyncio.create_task(graders.grade(SLEEPER, [nap(20)], tenant="org", seconds=60))
    async with asyncio.timeout(20):
        while not psutil.Process(pid).children():  # noqa: ASYNC110 - psutil tells it only so
            await asyncio.sleep(0.02)
        await graders.close()
        with pytest.raises(GradersUnavailable, match="ended"):
            await asked
    assert not psutil.pid_exists(pid)


STARTER = """
import asyncio, os
from app.graders.client import Graders
from app.graders.protocol import GradeCase
async def main():
    graders = Graders()
    await graders.start()
    source = "import time\\ndef grade(sample, item):\\n    time.sleep(100)"
    grader = {"type": "python", "name": "s", "source": source}
    asked = asyncio.create_task(
        graders.grade(grader, [GradeCase(sample="")], tenant="o", seconds=100))
    print(graders.pid, flush=True)
    await asked
asyncio.run(main())
"""


def test_it_dies_with_its_parent_and_so_do_its_boxes() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    graders = psutil.Process(int(parent.stdout.readline()))
    deadline = time.monotonic() + 20
    while not graders.children() and time.monotonic() < deadline:
        pass
    family = [graders, *graders.children(recursive=True)]
    assert len(family) > 1
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("how", ["end of input", "SIGTERM"])
def test_it_leaves_when_asked(how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "app.graders", "--sandbox", "off"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert isinstance(protocol.read_reply(process.stdout.readline()), Ready)
    process.stdin.write(b"no request\n")  # is passed over
    process.stdin.flush()
    if how == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    else:
        process.stdin.close()
    assert process.wait(20) == 0
    process.stdin.close()
    process.stdout.close()


async def test_it_knows_nothing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_MASTER_KEYS", "v1:secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    graders = Graders(Options(sandbox="off"))
    await graders.start()
    assert graders.pid is not None
    assert not [v for v in psutil.Process(graders.pid).environ().values() if "secret" in v]
    await graders.close()
