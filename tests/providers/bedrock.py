"""Bedrock's adapter in front of its simulator, and jobs and cases of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from app.providers.base import OVER, Account, Data, Order, Sighting
from app.providers.bedrock import Bedrock
from app.providers.bedrock.adapter import CLAUDE_3_HAIKU
from app.providers.urls import Allowed
from app.simulators.bedrock import BedrockSimulator
from app.simulators.runs import Plan
from tests.providers.places import PLACES
from tests.support import chat_lines

NOVA = "amazon.nova-micro-v1:0:128k"
QUICK = Plan(validating=0.05, queued=0.05, steps=8, step_seconds=0.02)
FAST = Plan(validating=0, queued=0, steps=4, step_seconds=0)


@asynccontextmanager
async def place(
    plan: Plan = QUICK, secrets: Mapping[str, str] | None = None, **more: str
) -> AsyncIterator[tuple[BedrockSimulator, Bedrock]]:
    simulator = BedrockSimulator(plan, seed=1)
    async with simulator.served() as url, httpx.AsyncClient(trust_env=False, timeout=5) as client:
        usual = PLACES["bedrock"].account(url)
        account = Account(
            {**usual.secrets, **(secrets or {})},
            {
                **usual.settings,
                **{name: value.format(url=url) for name, value in more.items()},
            },
        )
        yield simulator, Bedrock(account, client, Allowed([url]))


def cases(folder: Path, content: str, base_model: str = "", role: Any = "training") -> Data:
    path = folder / "cases.jsonl"
    path.write_text(content)
    return Data(path, "supervised", "0" * 64, 20, role, base_model)


def line(*messages: tuple[str, Any], **more: Any) -> str:
    return json.dumps(
        {"messages": [{"role": role, "content": content} for role, content in messages], **more}
    )


async def job(
    adapter: Bedrock, folder: Path, base_model: str = CLAUDE_3_HAIKU, **more: Any
) -> Sighting:
    training = await adapter.upload(cases(folder, chat_lines(20), base_model))
    return await adapter.create(
        Order(
            **{
                "marker": "ftjob-AAAA1111",
                "base_model": base_model,
                "method": "supervised",
                "training": training,
                **more,
            }
        )
    )


async def over(adapter: Bedrock, id: str) -> Sighting:
    for _ in range(200):
        found = await adapter.get(id)
        if found.status in OVER:
            return found
        await asyncio.sleep(0.02)
    raise TimeoutError(id)
