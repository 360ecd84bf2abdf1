"""What a box is tried with before it is trusted: none of this may work in it."""

import asyncio

from app.graders.sandbox import paths
from app.graders.sandbox.box import BoxBroken, GraderRaised, Limits
from app.graders.sandbox.engines import Engine

# Each line is tried by itself. That it raises is the only good end.
_FORBIDDEN = (
    "open('/etc/passwd').read()",
    "open('/etc/hostname').read()",
    "open('/proc/1/environ').read()",
    "open('/proc/self/environ').read()",
    "beyond('/home')",
    "beyond('/tmp')",
    "open('/tmp/x', 'w')",
    "open(os.__file__ + '.x', 'w')",
    "open('x', 'w')",
    "os.mkdir('/x')",
    "os.symlink('/etc/passwd', '/x')",
    "os.fork()",
    "os.execv(sys.executable, ['python'])",
    "subprocess.run(['/bin/sh', '-c', 'true'])",
    "socket.socket()",
    "socket.socket(socket.AF_UNIX)",
    "socket.socketpair()",
    "os.kill(os.getppid(), 0)",
    "os.kill(1, 0)",
    "os.setuid(0)",
    "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "resource.prlimit(1, resource.RLIMIT_NOFILE)",
    "bytearray(1 << 40)",
    "call(101, 0, 0, 0, 0)",  # ptrace
    "call(165, 0, 0, 0, 0)",  # mount
    "call(272, 0x10000000, 0, 0, 0)",  # unshare a user namespace
    "call(250, 0, 0, 0, 0)",  # keyctl
    "call(321, 0, 0, 0, 0)",  # bpf
    "call(425, 1, 0, 0, 0)",  # io_uring
)
_PLAIN = "import json, math\ndef grade(sample, item):\n    return math.sqrt(item['n'])\n"
_MONTY = "def grade(sample, item):\n    open('/etc/passwd')\n    return 1\n"
_ENDLESS = "def grade(sample, item):\n    while True:\n        pass\n"
_PATIENCE = 15.0  # seconds; a busy machine starts processes slowly


def _source() -> str:
    read = [str(path) for path in paths.readable().paths]
    return f"""
import ctypes, os, platform, resource, socket, subprocess, sys

def call(number, *arguments):
    if platform.machine() == "x86_64" and ctypes.CDLL(None).syscall(number, *arguments) >= 0:
        return
    raise OSError

def beyond(folder):
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if not any((read + "/").startswith(path + "/") for read in {read!r}):
            return
    raise OSError

def grade(sample, item):
    for forbidden in {_FORBIDDEN!r}:
        try:
            eval(forbidden)
        except Exception:
            continue
        raise RuntimeError(forbidden)
    if set(os.environ) - {{"HOME", "LANG", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "PWD"}}:
        raise RuntimeError("os.environ")
    return 1
"""


async def weakness(engine: Engine, limits: Limits) -> str | None:
    """Why this engine is not to be used here; None when everything was held."""
    try:
        if await _graded(engine, _PLAIN, limits) != 3.0:
            return "a plain grader gave a wrong value"
        if engine.name == "monty":
            return await _refusal(engine, _MONTY, limits)
        if await _graded(engine, _source(), limits) != 1.0:
            return "the probes gave no clear answer"
        return await _endless(engine, limits)
    except GraderRaised as let_through:
        return f"it did not hold: {str(let_through).splitlines()[-1]}"
    except (BoxBroken, OSError) as broken:
        return f"it does not start here: {broken}"


async def _graded(engine: Engine, source: str, limits: Limits, seconds: float = _PATIENCE) -> float:
    box = await engine.open(source, limits, 0)
    try:
        return await box.grade({"output_text": ""}, {"n": 9}, seconds)
    finally:
        await box.close()


async def _refusal(engine: Engine, source: str, limits: Limits) -> str | None:
    try:
        await _graded(engine, source, limits)
    except GraderRaised:
        return None
    return "it did not hold: a file was opened"


async def _endless(engine: Engine, limits: Limits) -> str | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            await _graded(engine, _ENDLESS, limits, 0.1)
    except BoxBroken as ended:
        return None if ended.kind == "timeout" else str(ended)
    except TimeoutError:
        pass
    return "an endless loop could not be ended"
