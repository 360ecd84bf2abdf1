"""Asking the graders' process from the training thread, which stays free to leave."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from app.graders.client import Graders, Options
from app.graders.protocol import ModelEndpoint

T = TypeVar("T")
LOOK_EVERY = 0.25  # seconds between two looks whether to give up


class GivenUp(Exception):
    """Whoever asked waits no longer."""


class Asker:
    """Owns a graders' process, started when it is first asked. To be closed.

    `endpoint` is the only one at which its graders may ask models.
    """

    def __init__(self, endpoint: ModelEndpoint | None) -> None:
        self._graders = Graders(Options(model_urls=[endpoint.base_url] if endpoint else []))
        # The loop runs only while something is asked, in this very thread: the graders' process is
        # to die with it.
        self._runner = asyncio.Runner()

    def close(self) -> None:
        self._runner.run(self._graders.close())
        self._runner.close()

    def ask(
        self, work: Callable[[Graders], Coroutine[Any, Any, T]], may_go_on: Callable[[], bool]
    ) -> T:
        """What comes of it. Raises what `work` raises, and GivenUp once it may not go on."""
        return self._runner.run(self._ask(work, may_go_on))

    async def _ask(
        self, work: Callable[[Graders], Coroutine[Any, Any, T]], may_go_on: Callable[[], bool]
    ) -> T:
        asked = asyncio.ensure_future(work(self._graders))
        while not asked.done() and may_go_on():
            await asyncio.wait({asked}, timeout=LOOK_EVERY)
        if not asked.done():
            asked.cancel()
            await asyncio.wait({asked})
            raise GivenUp
        return asked.result()
