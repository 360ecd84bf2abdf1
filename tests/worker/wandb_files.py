"""The process that speaks to W&B, and reading what its library wrote, by its own record type."""

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

_BLOCK, _HEADER = 32_768, 7
_WHOLE, _LAST = 1, 4


def records(file: Path) -> Iterator[Any]:
    """The file is a LevelDB log: chunks with a header (checksum, size, kind), none of which
    crosses a block's end."""
    from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415 - takes seconds

    data, at, parts = file.read_bytes(), _HEADER, b""
    while at + _HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + _HEADER])
        parts += data[at + _HEADER : at + _HEADER + size]
        at += _HEADER + size
        if kind in (_WHOLE, _LAST):
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def history(file: Path) -> list[dict[str, Any]]:
    """The points, without the library's own clocks."""
    return [
        {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
            if not (item.key or item.nested_key[0]).startswith("_")
        }
        for record in records(file)
        if record.WhichOneof("record_type") == "history"
    ]


def run_of(file: Path) -> Any:
    return next(r.run for r in records(file) if r.WhichOneof("record_type") == "run")


def exit_code(file: Path) -> int:
    (found,) = (r.exit.exit_code for r in records(file) if r.WhichOneof("record_type") == "exit")
    return int(found)


def tracking_processes(parent: int) -> set[int]:
    """Those that this process has started and that live."""
    found = set()
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.Error):
            if "app.tracking" in child.cmdline():
                found.add(child.pid)
    return found
