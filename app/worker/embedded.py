"""Having the embedded base model converted, once, by a process of its own."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from app.training import embedded
from app.training.environment import environment
from app.worker.process import bare_environment


@dataclass(frozen=True)
class Said:
    message: str
    percent: int | None = None
    failed: bool = False


async def prepare_embedded(folder: Path) -> AsyncIterator[Said]:
    """Convert the embedded model into `folder` if that is not done; yields what happens."""
    if await asyncio.to_thread(embedded.is_prepared, folder):
        return
    if reason := embedded.unavailable_reason():
        yield Said(reason, failed=True)
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app.training.convert",
        "--to",
        str(folder),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=bare_environment() | environment(),
    )
    assert process.stdout is not None  # noqa: S101 - asked for above
    try:
        async for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if said.get("type") == "progress":
                yield Said(said["message"], said["percent"])
            elif said.get("type") == "failed":
                yield Said(said["message"], failed=True)
                return
        if await process.wait() != 0:
            yield Said("The embedded model could not be converted.", failed=True)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
