"""What passes between the event loop and the model thread."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from app.serving.protocol import ApiError, FinishReason
from app.serving.sampling import Sampling


@dataclass(frozen=True)
class Delta:
    index: int
    text: str
    finish_reason: FinishReason | None
    tokens: int  # written so far by this choice, its end token included


@dataclass(eq=False)
class Adapter:
    name: str
    path: str
    key: str
    created: int
    users: int = 0  # jobs that still need the weights


@dataclass(eq=False)
class Job:
    """One request. Its inbox needs no bound: it can never hold more than `n * max_tokens` short
    strings, and a job dies with its client."""

    model: str
    prompt: list[int]
    adapter: Adapter | None
    sampling: Sampling
    n: int
    post: Callable[["Job", Delta | ApiError], None]
    inbox: asyncio.Queue[Delta | ApiError] = field(default_factory=asyncio.Queue)
    open_choices: int = 0
    closed: bool = False  # finished, failed or abandoned: no row of it goes on

    def __post_init__(self) -> None:
        self.open_choices = self.n

    @property
    def key(self) -> str:
        """The adapter's key in the model; "" is the base."""
        return self.adapter.key if self.adapter else ""

    def send(self, delta: Delta) -> None:
        if delta.finish_reason:
            self.open_choices -= 1
        self.post(self, delta)
        if not self.open_choices:
            self.closed = True

    def fail(self, error: ApiError) -> None:
        if not self.closed:
            self.closed = True
            self.post(self, error)
