"""Every provider's simulator, for the whole product as processes."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from app.simulators.runs import Plan
from app.simulators.simulator import Simulator
from tests.flows.stack import TINY
from tests.providers.conftest import SET, credential_fields
from tests.providers.places import PLACES
from tests.support import Api

PLAN = Plan(validating=0.2, queued=0.2, steps=12, step_seconds=0.1)


@dataclass(frozen=True)
class Where:
    """A place where models are tuned: our own workers, or a provider's simulator."""

    name: str
    base_model: str
    can_pause: bool = True
    has_checkpoints: bool = True
    has_metrics: bool = True
    needs_deployment: bool = True
    simulator: Simulator | None = None

    @property
    def enum(self) -> str:
        return self.name.upper()


@asynccontextmanager
async def simulated() -> AsyncIterator[dict[str, tuple[Simulator, str]]]:
    async with AsyncExitStack() as stack:
        found = {}
        for name, place in PLACES.items():
            simulator = place.simulator(PLAN, seed=1)
            found[name] = (simulator, await stack.enter_async_context(simulator.served()))
        yield found


def origins(simulators: dict[str, tuple[Simulator, str]]) -> list[str]:
    return [
        origin for simulator, url in simulators.values() for origin in (url, *simulator.origins)
    ]


async def connect(owner: Api, name: str, url: str) -> dict[str, Any]:
    """Give the owner's project the credential."""
    fields = credential_fields(PLACES[name], url)
    answer = await owner.execute(SET, i={"credential": {name: fields}})
    assert answer["setProviderCredential"]["userErrors"] == [], answer
    return dict(answer["setProviderCredential"]["credential"])


async def where(owner: Api, name: str, simulators: dict[str, tuple[Simulator, str]]) -> Where:
    if name == "local":
        return Where("local", TINY)
    simulator, url = simulators[name]
    await connect(owner, name, url)
    capable = PLACES[name].adapter.capabilities
    return Where(
        name,
        PLACES[name].base_model,
        capable.pause,
        capable.checkpoints,
        bool(capable.metrics),
        capable.deployment == "dedicated",
        simulator,
    )
