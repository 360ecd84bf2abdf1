"""What one key may take of a process: work per minute, and how much it holds at once.

Each process counts for itself, in memory: a limit protects the process, and is no quota to bill by.
"""

import math
import time
from collections import OrderedDict
from typing import Any

from app.core.errors import Limited
from app.core.settings import Settings

EACH = 10  # points that a request counts, whatever it asks for
BURST = 10  # seconds whose messages a WebSocket may send at once

_MOST_KEYS = 10_000


class RateLimited(Limited):
    """`retry_after` is in seconds."""

    code = "RATE_LIMITED"

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(
            f"This API key may spend {limit} points a minute here. Ask again in {retry_after} s, "
            "for less at once or less often; extensions.cost of each answer says what it took.",
            limit=limit,
        )
        self.retry_after = retry_after

    @property
    def extensions(self) -> dict[str, Any]:
        return super().extensions | {"retryAfter": self.retry_after}


class Bucket:
    """Tokens that come back with time."""

    __slots__ = ("_at", "level")

    def __init__(self, most: float) -> None:
        self.level, self._at = most, time.monotonic()

    def missing(self, tokens: float, most: float, per_second: float) -> float:
        """Take tokens, unless some are missing: their number. More than `most` are taken from a
        full bucket, as a debt."""
        now = time.monotonic()
        self.level = min(most, self.level + (now - self._at) * per_second)
        self._at = now
        missing = min(tokens, most) - self.level
        if missing > 0:
            return missing
        self.level -= tokens
        return 0


class Rates:
    """A token bucket per key, which holds a minute's points. The keys longest unused leave first,
    and find a full one if they come back."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def spend(self, key_id: str, points: int) -> int:
        """Take points; the number that is left. Raises RateLimited, and takes none then.

        What counts more than a whole minute's points waits for a full bucket, and leaves a debt.
        """
        most, per_second = self.per_minute, self.per_minute / 60
        bucket = self._buckets.get(key_id)
        if bucket is None:
            bucket = self._buckets[key_id] = Bucket(most)
            if len(self._buckets) > _MOST_KEYS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key_id)
        if missing := bucket.missing(points, most, per_second):
            raise RateLimited(most, max(1, math.ceil(missing / per_second)))
        return max(0, int(bucket.level))


class Places:
    """How many of something each key holds now."""

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what = most, what
        self._held: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(self._held.values())

    def take(self, key_id: str) -> None:
        """Raises Limited; else `leave` once what was taken is over."""
        held = self._held.get(key_id, 0)
        if held >= self._most:
            raise Limited(
                f"This API key has {self._most} {self._what} here, the most that one may have. "
                "Close some, or use another key.",
                limit=self._most,
            )
        self._held[key_id] = held + 1

    def leave(self, key_id: str) -> None:
        left = self._held[key_id] - 1
        if left:
            self._held[key_id] = left
        else:
            del self._held[key_id]


class Limits:
    """The limits by key of one process."""

    def __init__(self, settings: Settings) -> None:
        self.rates = Rates(settings.rate_per_minute)
        self.connections = Places(settings.max_connections_per_key, "open connections")
        self.subscriptions = Places(settings.max_subscriptions_per_key, "running operations")
