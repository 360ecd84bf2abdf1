"""Each provider's adapter in front of its simulator."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.providers.base import Account, Adapter
from app.providers.registry import ADAPTERS
from app.providers.urls import Allowed
from app.simulators.registry import SIMULATED
from app.simulators.runs import Plan
from app.simulators.simulator import Simulator

QUICK = Plan(validating=0.1, queued=0.1, steps=12, step_seconds=0.05)


@dataclass(frozen=True)
class Place:
    """An adapter, the simulator that it talks to, and what it may be asked there."""

    name: str
    adapter: type[Adapter]
    simulator: type[Simulator]
    base_model: str
    hyperparameters: Mapping[str, Any] = field(default_factory=lambda: {"n_epochs": 2})

    def account(self, url: str) -> Account:
        return SIMULATED[self.name].account(url)


PLACES: dict[str, Place] = {
    name: Place(name, ADAPTERS[name], one.simulator, one.base_model)
    for name, one in sorted(SIMULATED.items())
}


@asynccontextmanager
async def place(name: str, plan: Plan = QUICK) -> AsyncIterator[tuple[Simulator, Adapter, str]]:
    """The simulator, the adapter that talks to it, and its URL."""
    found = PLACES[name]
    simulator = found.simulator(plan, seed=1)
    async with (
        simulator.served() as url,
        httpx.AsyncClient(trust_env=False, timeout=5, verify=False) as client,
    ):
        allowed = Allowed([url, *simulator.origins])
        yield simulator, found.adapter(found.account(url), client, allowed), url
