"""Wall-clock time in one place, so that tests can move it.

Leases use the database's own clock (`clock_timestamp()`), never this one: skew between machines
must not break ownership. Polling, staleness, expiry and retention take `now()` from here.
"""

from datetime import UTC, datetime, timedelta

import orjson

_offset = timedelta()


def now() -> datetime:
    return datetime.now(UTC) + _offset


def move(by: timedelta) -> None:
    """Shift this process's idea of now. For tests."""
    global _offset
    _offset += by


def rfc3339(moment: datetime) -> str:
    """UTC, milliseconds, `Z`."""
    if moment.tzinfo is UTC and moment.microsecond:  # as the database gives it
        return f"{orjson.dumps(moment)[1:24].decode()}Z"  # a third of what isoformat takes
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
