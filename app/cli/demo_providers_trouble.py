"""What goes wrong on purpose while the demonstration of providers runs."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from app.cli.demo_providers_board import Board
from app.providers.registry import capabilities
from app.simulators.registry import SIMULATED
from app.simulators.simulator import Simulator

_DOWN_FOR = 4.0
_STORM = 8
_RETRY_AFTER = 0.5
_LOOK_EVERY = 0.1


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """All of them; the first failure ends the others, and is raised as it is."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class Victims:
    """Who suffers what. Each another, as far as there are enough."""

    webhooks: str | None
    lost: str
    down: str
    storm: str

    @staticmethod
    def among(names: list[str]) -> "Victims":
        left = list(names)

        def take(wanted: list[str]) -> str:
            found = next((name for name in wanted if name in left), (left or names)[0])
            left[:] = [name for name in left if name != found]
            return found

        signed = [name for name in names if SIMULATED[name].webhook_endpoints]
        webhooks = take(signed) if signed else None
        # The hard case: there a create that is sent again makes a second job.
        lost = take([name for name in names if not capabilities(name).repeatable_create])
        return Victims(webhooks, lost, take(names), take(names))


class Trouble:
    def __init__(self, victims: Victims, simulators: Mapping[str, Simulator], board: Board) -> None:
        self._who, self._at, self._board = victims, simulators, board

    def before(self) -> None:
        """What has to be arranged before the first job is submitted."""
        self._at[self._who.lost].cheats.lose_answers = 1
        if self._who.webhooks:
            cheats = self._at[self._who.webhooks].cheats
            cheats.repeat_webhooks = cheats.forge_webhooks = 1.0

    async def run(self) -> None:
        """Until all of it is over, and it was told how it went."""
        await together(self._lost(), self._down(), self._storm(), self._webhooks())

    def _say(self, words: str) -> None:
        self._board.say(f"! {words}", "yellow")

    async def _lost(self) -> None:
        name = self._who.lost
        simulator, row = self._at[name], self._board.rows[name]
        await _until(lambda: not simulator.cheats.lose_answers or row.over)
        self._say(f"{name}: the job was made, but the answer to that got lost")
        await _until(lambda: row.id_there is not None or row.over)
        count = len(simulator.runs)
        self._say(f"{name}: it was found by its marker: {row.id_there}; jobs there: {count}")

    async def _down(self) -> None:
        name = self._who.down
        await self._halfway(name)
        self._say(f"{name}: down, every connection breaks")
        self._at[name].cheats.down = True
        await asyncio.sleep(_DOWN_FOR)
        self._at[name].cheats.down = False
        self._say(f"{name}: up again after {_DOWN_FOR:g} s")

    async def _storm(self) -> None:
        name = self._who.storm
        await self._halfway(name)
        cheats = self._at[name].cheats
        cheats.throttle, cheats.retry_after = _STORM, _RETRY_AFTER
        self._say(f"{name}: the next {_STORM} requests are answered with 429")
        await _until(lambda: cheats.throttle == 0 or self._board.rows[name].over)
        self._say(f"{name}: the storm of 429s is over")

    async def _webhooks(self) -> None:
        name = self._who.webhooks
        if name is None:
            return
        await self._halfway(name)
        self._say(f"{name}: each webhook will come three times, and once more from a forger")

    async def _halfway(self, name: str) -> None:
        """By the simulator's own clock: not every provider tells its steps while a job runs."""
        simulator, row = self._at[name], self._board.rows[name]

        def there() -> bool:
            return any(2 * run.step >= run.plan.steps for run in simulator.newest())

        await _until(lambda: row.over or there())


async def _until(good: Callable[[], bool]) -> None:
    while not good():  # noqa: ASYNC110 - simulators tell it in no other way
        await asyncio.sleep(_LOOK_EVERY)
