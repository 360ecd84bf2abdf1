"""What happened to a job, as a log."""

from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from enum import StrEnum
from typing import Any

from app.cli import documents
from app.client import ApiError, Client

# Everything but the values of single steps.
_LOGGED = [
    "STATUS", "REQUESTED", "DELETED", "ATTEMPT_STARTED", "ATTEMPT_ENDED", "CHECKPOINT", "MESSAGE",
    "MODEL", "RESULT",
]  # fmt: skip


class Level(StrEnum):
    """Each includes the ones after it."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


async def read(
    client: Client,
    id: str,
    put: Callable[[dict[str, Any]], None],
    level: Level,
    tail: int | None,
    metrics: bool,
    follow: bool,
) -> None:
    """The events so far (or the last `tail` of them), then the live ones until the job is over."""
    types = [*_LOGGED, "METRICS"] if metrics else _LOGGED
    past, cursor = await _past(client, id, level, types, tail)
    for event in past:
        put(event)
    if not follow:
        return
    wanted = list(Level)[list(Level).index(level) :]
    async with aclosing(client.watch_job(id, cursor, types=types)) as events:
        async for event in events:
            if event["level"].lower() in wanted:
                put(event)


async def _past(
    client: Client, id: str, level: Level, types: list[str], tail: int | None
) -> tuple[deque[dict[str, Any]], str]:
    """The events so far, or the last of them, and the cursor after which the rest comes."""
    kept: deque[dict[str, Any]] = deque(maxlen=tail)
    variables: dict[str, Any] = {"id": id, "level": level.name, "types": types, "after": None}
    cursor = "0"
    while True:
        job = (await client.execute(documents.JOB_EVENTS, variables))["job"]
        if job is None:
            raise ApiError(f"There is no job {id}.", "JOB_NOT_FOUND")
        page = job["events"]
        kept.extend(page["nodes"])
        if page["nodes"]:
            cursor = page["nodes"][-1]["cursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return kept, cursor
        variables["after"] = page["pageInfo"]["endCursor"]
