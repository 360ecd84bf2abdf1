"""The last resort: Monty, an interpreter of its own for a part of Python, in a worker process."""

import asyncio
import contextlib
import math
from typing import Any, Self

from app.graders.sandbox.box import Box, BoxBroken, GraderRaised, Limits
from app.graders.sandbox.engines import EngineUnavailable

_MEMORY = 256 << 20  # bytes of its heap, at most


class Monty:
    """It has no files, sockets, programs or environment to begin with."""

    name = "monty"
    description = (
        "A part of Python only: classes, re, json, math, collections and datetime work;"
        " difflib, string, statistics and every installed package (numpy, rapidfuzz …) do not."
        " Install bubblewrap, or a kernel with Landlock, for all of Python."
    )

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @classmethod
    async def find(cls, boxes: int) -> Self:
        """Raises EngineUnavailable."""
        try:
            from pydantic_monty import AsyncMonty
        except ImportError as missing:
            raise EngineUnavailable("Monty is not installed (package pydantic-monty).") from missing
        try:
            pool = AsyncMonty(min_processes=0, max_processes=boxes + 1)
            await pool.__aenter__()
        except Exception as trouble:
            raise EngineUnavailable(f"Monty does not start: {trouble}") from trouble
        return cls(pool)

    async def open(self, source: str, limits: Limits, slot: int) -> Box:
        session = self._pool.checkout(
            script_name="grader.py",
            limits={
                "max_memory": min(limits.memory, _MEMORY),
                "max_feed_duration_secs": limits.seconds,
                "max_recursion_depth": 500,
                "max_total_sleep_secs": 0.0,
            },
        )
        box = MontyBox(await session.__aenter__(), session)
        await box.load(source, limits.seconds)
        return box

    async def close(self) -> None:
        await self._pool.__aexit__(None, None, None)


class MontyBox:
    """One session; what a grader keeps in its globals stays from case to case."""

    worn = False

    def __init__(self, session: Any, checkout: Any) -> None:
        self._session, self._checkout = session, checkout
        self._trouble: str | None = None

    async def load(self, source: str, seconds: float) -> None:
        try:
            await self._feed(source, {}, seconds)
        except GraderRaised as trouble:
            self._trouble = str(trouble)
        except BaseException:
            await self.close()
            raise

    async def grade(self, sample: Any, item: Any, seconds: float) -> float:
        if self._trouble is not None:
            raise GraderRaised(self._trouble)
        given = {"_sample": sample, "_item": item}
        value = await self._feed("grade(_sample, _item)", given, seconds)
        if not isinstance(value, int | float) or not math.isfinite(value):
            said = repr(value) if isinstance(value, float) else type(value).__name__
            raise GraderRaised(f"grade returned {said}, not a finite number")
        return float(value)

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self._checkout.__aexit__(None, None, None)

    async def _feed(self, code: str, inputs: dict[str, Any], seconds: float) -> Any:
        from pydantic_monty import MontyCrashedError, MontyError, MontyRuntimeError

        try:
            async with asyncio.timeout(seconds):
                return await self._session.feed_run(
                    code, inputs=inputs, print_callback=lambda stream, text: None
                )
        except TimeoutError:
            raise BoxBroken("timeout", f"The grader took longer than {seconds:g} s.") from None
        except MontyCrashedError as crash:
            raise BoxBroken("exited", "The grader's process ended before it answered.") from crash
        except MontyRuntimeError as trouble:
            if isinstance(trouble.exception(), TimeoutError):
                raise BoxBroken("timeout", "The grader took too long.") from trouble
            raise GraderRaised(trouble.display()[-2_000:]) from trouble
        except MontyError as trouble:
            raise GraderRaised(str(trouble)[-2_000:]) from trouble
