"""Kill -9 of the driver, again and again: no job twice, no step twice, nothing lost."""

import asyncio
import random
from typing import Any

import pytest

from app.simulators.simulator import Simulator
from tests.flows.simulated import Where, where
from tests.flows.stack import Stack, until
from tests.support import Api, chat_lines

pytestmark = [pytest.mark.train, pytest.mark.timeout(180)]
SEED = 20261128
JOBS = 6


async def test_a_driver_can_be_killed_at_any_moment(
    owner: Api, stack: Stack, simulators: dict[str, tuple[Simulator, str]]
) -> None:
    chance = random.Random(SEED)
    here = await where(owner, "openai", simulators)
    assert here.simulator is not None
    before = set(here.simulator.runs)
    data = await owner.dataset_version(chat_lines(24))
    here.simulator.cheats.lose_answers = 2
    jobs = [
        await owner.job_id(baseModel=here.base_model, provider="OPENAI", trainingData=data, seed=n)
        for n in range(JOBS)
    ]
    for _ in range(4):
        await asyncio.sleep(chance.uniform(0.1, 1.2))
        stack.kill_worker()
        stack.start_worker()
    for job in jobs:
        await until(owner, job, "SUCCEEDED", seconds=120)
    made = set(here.simulator.runs) - before
    assert len(made) == JOBS, f"seed {SEED}"
    for job in jobs:
        await whole(owner, job, here)


async def whole(owner: Api, job: str, here: Where) -> None:
    """Each step and message of the provider once, in order; one end."""
    answer = await owner.execute(
        "query ($j: ID!) { job(id: $j) { providerJobId events(first: 200) { nodes"
        " { type step message data } } } }",
        j=job,
    )
    nodes: list[dict[str, Any]] = answer["job"]["events"]["nodes"]
    steps = [node["step"] for node in nodes if node["type"] == "METRICS"]
    assert steps == list(range(1, 13))
    told = [node["message"] for node in nodes if node["data"].get("source") == "provider"]
    assert len(set(told)) == len(told)
    ends = [node for node in nodes if node["data"].get("after") == "succeeded"]
    assert len(ends) == 1
    assert here.simulator is not None
    assert answer["job"]["providerJobId"] in here.simulator.runs
