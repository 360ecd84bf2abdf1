"""Which engine boxes graders here: the first of the ladder that passes every probe."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from app.graders.sandbox import probes
from app.graders.sandbox.box import Limits
from app.graders.sandbox.engines import Bubblewrap, Engine, EngineUnavailable, Landlock
from app.graders.sandbox.monty import Monty

Wanted = Literal["auto", "bubblewrap", "landlock", "monty", "off"]


@dataclass(frozen=True)
class Choice:
    """`engine` is None where no Python grader can run; `refused` says why each other was not it."""

    engine: Engine | None
    refused: dict[str, str]

    @property
    def description(self) -> str:
        if self.engine is not None:
            return self.engine.description
        why = " ".join(f"{name}: {reason}" for name, reason in self.refused.items())
        return f"Python graders cannot run on this machine. {why}".strip()


async def choose(wanted: Wanted, limits: Limits, boxes: int) -> Choice:
    """Try the engines in order. A grader is never run outside a box, whatever is wanted."""

    async def bubblewrap() -> Engine:
        return Bubblewrap.find()

    async def landlock() -> Engine:
        return Landlock.find()

    async def monty() -> Engine:
        return await Monty.find(boxes)

    ladder: dict[str, Callable[[], Awaitable[Engine]]] = {
        "bubblewrap": bubblewrap,
        "landlock": landlock,
        "monty": monty,
    }
    refused: dict[str, str] = {}
    for name, find in ladder.items():
        if wanted not in ("auto", name):
            refused[name] = "It is switched off by the settings."
            continue
        try:
            engine = await find()
        except EngineUnavailable as missing:
            refused[name] = str(missing)
            continue
        if (reason := await probes.weakness(engine, limits)) is None:
            return Choice(engine, refused)
        refused[name] = reason
        await engine.close()
    return Choice(None, refused)
