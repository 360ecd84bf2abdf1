"""Each provider's adapter in front of its simulator."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.providers.azure import Azure
from app.providers.base import Account, Adapter
from app.providers.openai import OpenAI
from app.providers.urls import Allowed
from app.simulators.azure import AzureSimulator
from app.simulators.openai import OpenAISimulator
from app.simulators.runs import Plan
from app.simulators.simulator import Simulator

QUICK = Plan(validating=0.1, queued=0.1, steps=12, step_seconds=0.05)


@dataclass(frozen=True)
class Place:
    """How to get an adapter to talk to its simulator. `settings` may use `{url}`."""

    adapter: type[Adapter]
    simulator: type[Simulator]
    base_model: str
    secrets: Mapping[str, str]
    settings: Mapping[str, str]
    hyperparameters: Mapping[str, Any] = field(default_factory=lambda: {"n_epochs": 2})

    def account(self, url: str) -> Account:
        return Account(
            dict(self.secrets),
            {name: value.format(url=url) for name, value in self.settings.items()},
        )


PLACES: dict[str, Place] = {
    "azure": Place(
        Azure,
        AzureSimulator,
        "gpt-4.1-mini-2025-04-14",
        {
            "api_key": "azure-simulated-key-1234567890",
            "client_secret": "azure-simulated-secret-1234567890",
        },
        {
            "base_url": "{url}",
            "arm_url": "{url}",
            "login_url": "{url}",
            "resource": "simulated",
            "subscription": "00000000-0000-0000-0000-000000000001",
            "resource_group": "models",
            "account": "simulated",
            "tenant_id": "00000000-0000-0000-0000-000000000002",
            "client_id": "00000000-0000-0000-0000-000000000003",
            "sku": "GlobalStandard",
            "capacity": "2",
        },
    ),
    "openai": Place(
        OpenAI,
        OpenAISimulator,
        "gpt-4o-mini-2024-07-18",
        {"api_key": "sk-simulated-key-1234567890"},
        {"base_url": "{url}/v1"},
    ),
}


@asynccontextmanager
async def place(name: str, plan: Plan = QUICK) -> AsyncIterator[tuple[Simulator, Adapter, str]]:
    """The simulator, the adapter that talks to it, and its URL."""
    found = PLACES[name]
    simulator = found.simulator(plan, seed=1)
    async with simulator.served() as url, httpx.AsyncClient(trust_env=False, timeout=5) as client:
        yield simulator, found.adapter(found.account(url), client, Allowed([url])), url
