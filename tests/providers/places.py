"""Each provider's adapter in front of its simulator."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.providers.azure import Azure
from app.providers.base import Account, Adapter
from app.providers.bedrock import Bedrock
from app.providers.fireworks import Fireworks
from app.providers.openai import OpenAI
from app.providers.together import Together
from app.providers.urls import Allowed
from app.providers.vertex import Vertex
from app.simulators.azure import AzureSimulator
from app.simulators.bedrock import (
    ACCESS_KEY_ID,
    ACCOUNT,
    BUCKET,
    REGION,
    SECRET_ACCESS_KEY,
    BedrockSimulator,
)
from app.simulators.fireworks import FireworksSimulator
from app.simulators.openai import OpenAISimulator
from app.simulators.runs import Plan
from app.simulators.simulator import Simulator
from app.simulators.together import TogetherSimulator
from app.simulators.vertex import VertexSimulator, service_account

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
    "bedrock": Place(
        Bedrock,
        BedrockSimulator,
        "amazon.nova-lite-v1:0:300k",
        {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY},
        {
            "region": REGION,
            "role_arn": f"arn:aws:iam::{ACCOUNT}:role/tuning",
            "bucket": BUCKET,
            "prefix": "luthier",
            "base_url": "{url}",
            "runtime_url": "{url}",
            "storage_url": f"{{url}}/{BUCKET}",
        },
    ),
    "fireworks": Place(
        Fireworks,
        FireworksSimulator,
        "accounts/fireworks/models/llama-v3p1-8b-instruct",
        {"api_key": "fw_simulatedkey1234567890"},
        {"base_url": "{url}", "account": "acme"},
    ),
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
    "together": Place(
        Together,
        TogetherSimulator,
        "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference",
        {"api_key": "tgp_simulated-key-1234567890"},
        {"base_url": "{url}", "project": "proj_simulated"},
    ),
    "vertex": Place(
        Vertex,
        VertexSimulator,
        "gemini-2.5-flash",
        {"service_account": service_account()},
        {
            "base_url": "{url}/v1",
            "storage_url": "{url}",
            "token_url": "{url}/token",
            "location": "us-central1",
            "bucket": "luthier-tuning",
        },
    ),
}


@asynccontextmanager
async def place(name: str, plan: Plan = QUICK) -> AsyncIterator[tuple[Simulator, Adapter, str]]:
    """The simulator, the adapter that talks to it, and its URL."""
    found = PLACES[name]
    simulator = found.simulator(plan, seed=1)
    async with simulator.served() as url, httpx.AsyncClient(trust_env=False, timeout=5) as client:
        allowed = Allowed([url, *simulator.origins])
        yield simulator, found.adapter(found.account(url), client, allowed), url
