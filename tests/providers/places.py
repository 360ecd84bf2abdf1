"""Each provider's adapter in front of its simulator."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.providers.base import Account, Adapter
from app.providers.bedrock import CLAUDE_3_HAIKU
from app.providers.registry import ADAPTERS
from app.providers.urls import Allowed
from app.simulators.registry import SIMULATED
from app.simulators.runs import Plan
from app.simulators.simulator import Simulator

QUICK = Plan(validating=0.1, queued=0.1, steps=12, step_seconds=0.05)
# Its end of life is over, but it is the one with the most rules of its own.
_BASE_MODELS = {"bedrock": CLAUDE_3_HAIKU}


@dataclass(frozen=True)
class Place:
    """How to get an adapter to talk to its simulator."""

    adapter: type[Adapter]
    simulator: type[Simulator]
    base_model: str
    account: Callable[[str], Account]
    """Of the simulator's URL."""
    hyperparameters: Mapping[str, Any] = field(default_factory=lambda: {"n_epochs": 2})


PLACES: dict[str, Place] = {
    name: Place(ADAPTERS[name], one.simulator, _BASE_MODELS.get(name, one.base_model), one.account)
    for name, one in SIMULATED.items()
}


@asynccontextmanager
async def place(name: str, plan: Plan = QUICK) -> AsyncIterator[tuple[Simulator, Adapter, str]]:
    """The simulator, the adapter that talks to it, and its URL."""
    found = PLACES[name]
    simulator = found.simulator(plan, seed=1)
    async with simulator.served() as url, httpx.AsyncClient(trust_env=False, timeout=5) as client:
        allowed = Allowed([url, *simulator.origins])
        yield simulator, found.adapter(found.account(url), client, allowed), url
