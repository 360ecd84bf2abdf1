"""How long to wait for what."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds. `reconnect` None: a stream that once worked is waited for without end."""

    answer: float = 300.0  # the longest silence within one HTTP answer: big files are validated
    connect: float = 10.0  # to open a connection, and to be let in
    first_connect: float = 30.0  # in all, until a stream works for the first time
    reconnect: float | None = None  # in all, until a lost stream works again
    retry_first: float = 0.2
    retry_most: float = 10.0
    ping_every: float = 15.0  # a server that answers no ping within as long is taken for dead


class Backoff:
    """Growing pauses, each cut by chance so that a thousand clients do not come back at once."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def pause(self) -> float:
        longest = min(self._timing.retry_most, self._timing.retry_first * 2.0**self._failures)
        self._failures = min(self._failures + 1, 30)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
