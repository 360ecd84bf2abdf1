"""Every simulator there is, and what an adapter needs to talk to it."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.providers.base import Account
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
from app.simulators.simulator import Simulator
from app.simulators.together import TogetherSimulator
from app.simulators.vertex import VertexSimulator, service_account


@dataclass(frozen=True)
class Simulated:
    """`base_model` can be tuned there today; `settings` may use `{url}`."""

    simulator: type[Simulator]
    base_model: str
    secrets: Mapping[str, str]
    settings: Mapping[str, str]
    webhook_endpoints: str | None = None
    """The path of its route that registers one and answers with a secret, where it has that."""

    def account(self, url: str) -> Account:
        return Account(
            dict(self.secrets),
            {name: value.format(url=url) for name, value in self.settings.items()},
        )


SIMULATED: dict[str, Simulated] = {
    "openai": Simulated(
        OpenAISimulator,
        "gpt-4o-mini-2024-07-18",
        {"api_key": "sk-simulated-key-1234567890"},
        {"base_url": "{url}/v1"},
        webhook_endpoints="/v1/webhook_endpoints",
    ),
    "azure": Simulated(
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
    "bedrock": Simulated(
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
    "vertex": Simulated(
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
    "fireworks": Simulated(
        FireworksSimulator,
        "accounts/fireworks/models/llama-v3p1-8b-instruct",
        {"api_key": "fw_simulatedkey1234567890"},
        {"base_url": "{url}", "account": "acme"},
    ),
    "together": Simulated(
        TogetherSimulator,
        "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference",
        {"api_key": "tgp_simulated-key-1234567890"},
        {"base_url": "{url}", "project": "proj_simulated"},
    ),
}
