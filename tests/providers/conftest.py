"""A stage: one provider's simulator, an API that may send credentials to it, and a driver."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from app.core.database import Database
from app.core.settings import Settings
from app.main import create_app
from app.simulators.runs import Plan
from app.simulators.simulator import Simulator
from app.worker.loop import Worker
from tests.providers.places import PLACES, QUICK, Place
from tests.support import Api, Tenant, new_tenant

SET = """mutation ($i: SetProviderCredentialInput!) { setProviderCredential(input: $i) {
  credential { id provider hint status webhookPath webhooksConfigured }
  userErrors { __typename code message path } } }"""
JOB = """query ($j: ID!) { job(id: $j) { status requestedAction provider providerJobId
  providerStatus isStale queueReason cost trainedTokens lastEvidence { source at }
  error { code message param } model { id name provider } checkpoints { nodes { id step } }
  resultFiles { id filename } metrics(maxPoints: 5000) { step trainingLoss }
  progress { step totalSteps percent } attempts { number outcome } } }"""


@dataclass
class Stage:
    place: Place
    name: str
    simulator: Simulator
    url: str
    api: Api
    tenant: Tenant
    settings: Settings
    database_url: str

    async def connect(self, **more: Any) -> dict[str, Any]:
        """Give the project the credential; the credential."""
        credential = {self.name: credential_fields(self.place, self.url)}
        answer = await self.api.execute(SET, i={"credential": credential, **more})
        payload: dict[str, Any] = answer["setProviderCredential"]
        assert payload["userErrors"] == [], payload
        return dict(payload["credential"])

    async def submit(self, **fields: Any) -> str:
        given = {"baseModel": self.place.base_model, "provider": self.name.upper(), **fields}
        return await self.api.job_id(**given)

    async def job(self, id: str) -> dict[str, Any]:
        return dict((await self.api.execute(JOB, j=id))["job"])

    async def until(
        self, id: str, good: str | Callable[[dict[str, Any]], bool], seconds: float = 30
    ) -> dict[str, Any]:
        """Wait for a status, or for what is wanted of the job."""
        found: dict[str, Any] = {}
        for _ in range(int(seconds / 0.05)):
            found = await self.job(id)
            if (found["status"] == good) if isinstance(good, str) else good(found):
                return found
            await asyncio.sleep(0.05)
        raise TimeoutError(str({k: v for k, v in found.items() if k != "metrics"}))

    async def events(self, id: str) -> list[dict[str, Any]]:
        """All of them."""
        found: list[dict[str, Any]] = []
        after = "0"
        while True:
            page = (
                await self.api.execute(
                    "query ($j: ID!, $a: String) { job(id: $j) { events(first: 200, after: $a) {"
                    " nodes { type message level step data at } pageInfo { hasNextPage endCursor }"
                    " } } }",
                    j=id,
                    a=after,
                )
            )["job"]["events"]
            found += page["nodes"]
            if not page["pageInfo"]["hasNextPage"]:
                return found
            after = page["pageInfo"]["endCursor"]

    async def statuses(self, id: str) -> list[str]:
        return [e["data"]["after"] for e in await self.events(id) if e["type"] == "STATUS"]

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[Worker]:
        """A worker that only drives providers."""
        worker = Worker(self.settings, self.database_url)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.drain()
            await task


def credential_fields(place: Place, url: str) -> dict[str, Any]:
    """What setProviderCredential takes for this simulator."""
    account = place.account(url)
    given = {**account.secrets, **account.settings}
    return {
        _camel(name): int(value) if name in ("capacity", "model_units") else value
        for name, value in given.items()
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


@asynccontextmanager
async def serving(settings: Settings, database_url: str) -> AsyncIterator[str]:
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(settings, database_url), log_config=None, lifespan="on")
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    while not running.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
        await asyncio.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        running.should_exit = True
        await task


@asynccontextmanager
async def staged(
    name: str, settings: Settings, database: Database, database_url: str, plan: Plan = QUICK
) -> AsyncIterator[Stage]:
    place = PLACES[name]
    simulator = place.simulator(plan, seed=1)
    async with simulator.served() as url:
        own = settings.model_copy(
            update={
                "provider_origins": [url, *simulator.origins],
                "provider_poll_seconds": 0.2,
                "worker_slots": 0,
                "rate_per_minute": 1_000_000_000,  # tests look as often as they like
                "lease_seconds": 10,
            }
        )
        tenant = await new_tenant(database, settings)
        async with serving(own, database_url) as base, Api(base, tenant.key) as api:
            yield Stage(place, name, simulator, url, api, tenant, own, database_url)


@pytest.fixture
async def stage(settings: Settings, database: Database, database_url: str) -> AsyncIterator[Stage]:
    """OpenAI's: what it shows holds for all, since one driver and one reducer serve them all."""
    async with staged("openai", settings, database, database_url) as found:
        yield found
