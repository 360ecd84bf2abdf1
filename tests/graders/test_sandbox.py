"""Which sandbox is chosen, what it says when another was not, and who shares a box with whom."""

import asyncio
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from app.graders import protocol
from app.graders.client import Graders, Options
from app.graders.protocol import GradeCase, Ready

ROOT = Path(__file__).parents[2]


def python(source: str) -> dict[str, Any]:
    return {"type": "python", "name": "code", "source": source}


def ready_without(missing: str, *arguments: str, python: str | Path = sys.executable) -> Ready:
    """What the graders' process says of itself on a machine that lacks these."""
    command = [python, "-m", "app.graders", *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "tests.graders.denied", missing, *command],
        cwd=ROOT,
        input=b"",
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    ready = protocol.read_reply(done.stdout)
    assert isinstance(ready, Ready)
    return ready


def works_here(sandbox: str) -> bool:
    return ready_without("nothing", "--sandbox", sandbox).sandbox == sandbox


def test_in_a_container_without_namespaces_landlock_is_chosen() -> None:
    if not works_here("landlock"):
        pytest.skip("this kernel has no Landlock")
    ready = ready_without("namespaces")
    assert ready.sandbox == "landlock"
    assert "does not start here" in ready.refused["bubblewrap"]


def test_without_either_monty_is_chosen_and_says_what_it_lacks() -> None:
    ready = ready_without("namespaces,landlock")
    assert ready.sandbox == "monty"
    assert "numpy" in ready.description
    assert "no Landlock" in ready.refused["landlock"]


def test_it_does_not_matter_that_python_lies_below_a_folder_that_is_not_to_be_seen(
    tmp_path: Path,
) -> None:
    if not works_here("bubblewrap"):
        pytest.skip("this machine lets nobody make namespaces")
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [packages] = environment.glob("lib/*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib"))
    python = environment / "bin" / "python"
    ready = ready_without("nothing", "--sandbox", "bubblewrap", python=python)
    assert ready.sandbox == "bubblewrap", ready.description


def test_a_sandbox_that_was_asked_for_is_not_replaced() -> None:
    ready = ready_without("namespaces", "--sandbox", "bubblewrap")
    assert ready.sandbox is None
    assert "does not start here" in ready.description


async def test_without_a_sandbox_python_graders_are_refused_and_others_work() -> None:
    graders = Graders(Options(sandbox="off"))
    check = {
        "type": "string_check", "name": "c", "operation": "eq",
        "input": "{{ sample.output_text }}", "reference": "x",
    }  # fmt: skip
    case = GradeCase(sample="x")
    (result,) = await graders.grade(
        python("def grade(sample, item): return 1"), [case], tenant="org", seconds=30
    )
    assert result.metadata.errors.python_grader_server_error_type == "unavailable"
    assert "switched off" in (result.metadata.errors.details or "")
    (result,) = await graders.grade(check, [case], tenant="org", seconds=30)
    assert result.reward == 1
    await graders.close()


async def test_monty_runs_simple_graders_and_holds_the_others() -> None:
    graders = Graders(Options(sandbox="monty", seconds=1))

    async def grade(source: str) -> tuple[float, str]:
        (result,) = await graders.grade(
            python(source), [GradeCase(item={"n": 2}, sample="abcd")], tenant="org", seconds=30
        )
        return result.reward, result.metadata.errors.details or ""

    simple = (
        "import re\ndef grade(sample, item):\n    return len(sample['output_text']) / item['n']"
    )
    assert await grade(simple) == (2.0, "")
    for body, says in {
        "return len(open('/etc/passwd').read())": "PermissionError",
        "import numpy\n    return 1": "numpy",
        "import socket\n    return 1": "socket",
        "while True: pass": "took",
        "return len('x' * (1 << 34))": "MemoryError",
        "return grade(sample, item)": "RecursionError",
        "return 'a'": "not a finite number",
    }.items():
        reward, details = await grade(f"def grade(sample, item):\n    {body}")
        assert reward == 0
        assert says in details
    await graders.close()


COUNTING = "seen = []\ndef grade(sample, item):\n    seen.append(1)\n    return len(seen)"


async def test_a_box_is_kept_for_its_tenant_alone(graders: Graders) -> None:
    async def count(tenant: str) -> float:
        (result,) = await graders.grade(
            python(COUNTING), [GradeCase(sample="")], tenant=tenant, seconds=30
        )
        return result.reward

    assert [await count("one"), await count("one")] == [1, 2]
    assert await count("two") == 1
    assert await count("one") == 3


async def test_a_tenant_s_flood_does_not_hold_another_up() -> None:
    graders = Graders(Options(boxes=4, seconds=20))
    await graders.start()
    slow = python("import time\ndef grade(sample, item):\n    time.sleep(15)\n    return 1")
    flood = asyncio.create_task(
        graders.grade(slow, [GradeCase(sample="")] * 200, tenant="many", seconds=600)
    )
    quick = python("def grade(sample, item): return 1")
    async with asyncio.timeout(10):
        (result,) = await graders.grade(quick, [GradeCase(sample="")], tenant="few", seconds=10)
    assert result.reward == 1
    flood.cancel()
    await asyncio.gather(flood, return_exceptions=True)
    await graders.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
async def test_under_root_each_box_is_another_user(graders: Graders) -> None:
    if (await graders.start()).sandbox not in ("bubblewrap", "landlock"):
        pytest.skip("no sandbox here that holds a whole Python")
    source = "import os\ndef grade(sample, item): return os.getuid()"
    uids = set()
    for tenant in ("a", "b"):
        (result,) = await graders.grade(
            python(source), [GradeCase(sample="")], tenant=tenant, seconds=30
        )
        uids.add(result.reward)
    assert len(uids) == 2
    assert min(uids) >= 60_000
