"""The program inside the box: it gives up every right it has, then runs a customer's grader.

Started as `python -I -S -B runner.py` and importable nowhere else: the box holds Python's own
library, the packages of this installation, and this file. The first line on standard input is the
configuration (see `box.py`), each further line one case; each reply is a line on what was standard
output.
"""

import base64
import ctypes
import json
import linecache
import math
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterable
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 22, 38, 47
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 1, 1 << 2, 1 << 3
_LONGEST_DETAIL = 2_000

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filters", ctypes.c_void_p)]


class _Ruleset(ctypes.Structure):
    _fields_ = [
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scope", ctypes.c_uint64),
    ]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def main() -> None:
    config = json.loads(_first_line(0))
    requests, replies = os.dup(0), os.dup(1)
    for fd in (0, 1):
        os.dup2(2, fd)  # /dev/null: nobody reads what a grader prints
    os.closerange(3, requests)
    os.closerange(replies + 1, 4096)
    sys.path += config["packages"]
    _lock_down(config)
    _serve(config["source"], os.fdopen(requests, "rb"), replies)


def _first_line(fd: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(fd, 1 << 20)
        if not part:
            os._exit(1)
        line += part
    return line


def _lock_down(config: dict[str, Any]) -> None:
    """In this order: each step needs a right that a later one takes away."""
    for name, limit in config["limits"].items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if config["landlock"]:
        _confine(config["landlock"], config["readable"])
    if os.geteuid() == 0:
        _step_down(config["uid"], config["stay_effective"])
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if config["parent"] and os.getppid() != config["parent"]:
        os._exit(1)  # it died before it could take this one along
    program = base64.b64decode(config["filter"])
    memory = ctypes.create_string_buffer(program, len(program))
    filters = _Program(len(program) // 8, ctypes.addressof(memory))
    _prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(filters))


def _confine(version: int, readable: list[str]) -> None:
    """Landlock: nothing but these folders can be opened, and those only to read."""
    files = (1 << 13) - 1
    for since, right in ((2, 13), (3, 14), (5, 15)):
        files |= (version >= since) << right
    rules = _Ruleset(files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _call(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    for path in readable:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = _READ_FILE | (_READ_FOLDER if os.path.isdir(path) else 0)
        allowed |= _WRITE_FILE if path.startswith("/dev/") else 0
        _call(_ADD_RULE, ruleset, 1, ctypes.byref(_Beneath(allowed, folder)), 0)
        os.close(folder)
    _call(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _step_down(uid: int, stay_effective: bool) -> None:
    """From root to a user of its own without any capability.

    `stay_effective` keeps root's name for opening files, where the interpreter lies in a folder
    that only root may enter; the real user is counted for RLIMIT_NPROC all the same.
    """
    capability = 0
    while _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    _prctl(_PR_CAP_AMBIENT, 4)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, 0 if stay_effective else uid, uid)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _call(_CAPSET[os.uname().machine], header, none)


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    if _libc.prctl(option, *padded) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _call(number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"syscall {number}")
    return int(result)


def _serve(source: str, requests: Iterable[bytes], replies: int) -> None:
    grade: Any = None
    trouble = None
    try:
        linecache.cache["grader.py"] = (len(source), None, source.splitlines(True), "grader.py")
        names: dict[str, Any] = {"__name__": "grader", "__file__": "grader.py"}
        exec(compile(source, "grader.py", "exec"), names)  # noqa: S102
        grade = names["grade"]
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the grader's
        trouble = _explain(error)
    _send(replies, {"case": 0})
    for line in requests:
        case = json.loads(line)
        reply = {"case": case["case"]}
        if trouble is not None:
            reply["error"] = trouble
        else:
            try:
                reply["value"] = _number(grade(case["sample"], case["item"]))
            except BaseException as error:  # noqa: BLE001
                reply["error"] = _explain(error)
        reply["cpu"] = sum(os.times()[:2])
        _send(replies, reply)


def _number(given: object) -> float:
    if isinstance(given, (str, bytes)) or not hasattr(given, "__float__"):
        raise TypeError(f"grade returned {type(given).__name__}, not a number")
    value = float(given)
    if not math.isfinite(value):
        raise ValueError(f"grade returned {value}, not a finite number")
    return value


def _explain(error: BaseException) -> str:
    """The end of the traceback, as far as it is the grader's own lines."""
    try:
        found = traceback.TracebackException.from_exception(error)
        own = [frame for frame in found.stack if frame.filename == "grader.py"]
        found.stack = traceback.StackSummary.from_list(own[-5:])
        text = "".join(found.format(chain=False))
    except BaseException:  # noqa: BLE001 - even saying what went wrong is the grader's code
        text = type(error).__name__
    return text[-_LONGEST_DETAIL:].strip()


def _send(fd: int, reply: dict[str, Any]) -> None:
    line = json.dumps(reply).encode() + b"\n"
    while line:
        line = line[os.write(fd, line) :]


if __name__ == "__main__":
    main()
