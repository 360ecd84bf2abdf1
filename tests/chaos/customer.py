"""Somebody who submits small jobs all the time, and changes their mind."""

import asyncio
import contextlib
import random
from typing import Any

import httpx

from tests.support import chat_lines

_SUBMIT = """mutation ($i: SubmitJobInput!) {
  submitJob(input: $i) { job { id } userErrors { message code } } }"""
_ACT = """mutation ($i: %sInput!) { %s(input: $i) { job { id } userErrors { message code } } }"""
_DATASET = """mutation ($i: CreateDatasetInput!) {
  createDataset(input: $i) { version { id } userErrors { message } } }"""


class Customer:
    """Asks any of the addresses, again and again until there is an answer. `jobs`: what each
    idempotency key gave."""

    def __init__(self, addresses: list[str], key: str, dice: random.Random) -> None:
        self._addresses, self._dice = addresses, dice
        self._http = httpx.AsyncClient(headers={"x-api-key": key}, timeout=15, trust_env=False)
        self._version = ""
        self.jobs: dict[str, str] = {}
        self.repeated = 0

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        body = {"query": document, "variables": variables}
        while True:
            with contextlib.suppress(httpx.TransportError):
                address = self._dice.choice(self._addresses)
                answer = (await self._http.post(f"{address}/graphql", json=body)).json()
                if "errors" not in answer:
                    data: dict[str, Any] = answer["data"]
                    return data
                codes = {error["extensions"]["code"] for error in answer["errors"]}
                assert codes == {"UNAVAILABLE"}, answer
            self.repeated += 1
            await asyncio.sleep(0.2)

    async def submit(self, key: str) -> str:
        if not self._version:
            made = await self.ask(_DATASET, i={"name": "c", "source": {"jsonl": chat_lines(12)}})
            self._version = made["createDataset"]["version"]["id"]
        asked = {
            "baseModel": "smollm2-135m-instruct",
            "trainingData": self._version,
            "idempotencyKey": key,
        }
        answer = (await self.ask(_SUBMIT, i=asked))["submitJob"]
        assert answer["userErrors"] == [], answer
        self.jobs[key] = answer["job"]["id"]
        return self.jobs[key]

    async def live(self, each: float, enough: asyncio.Event) -> None:
        """A job every so many seconds, until it is enough; then every answer is waited for."""
        async with asyncio.TaskGroup() as group:
            while not enough.is_set():
                group.create_task(self._one(f"chaos {len(self.jobs)} {self._dice.random()}"))
                await asyncio.sleep(self._dice.uniform(0.5, 1.5) * each)

    async def _one(self, key: str) -> None:
        job = await self.submit(key)
        chance = self._dice.random()
        if chance < 0.5:
            await asyncio.sleep(self._dice.uniform(0, 2))
            await self._act("cancelJob" if chance < 0.2 else "pauseJob", job)
            if chance > 0.2:
                await asyncio.sleep(self._dice.uniform(0, 2))
                await self._act("resumeJob", job)

    async def _act(self, verb: str, job: str) -> None:
        """It may be refused: the job may be over, or not paused yet."""
        kind = verb[0].upper() + verb[1:]
        await self.ask(_ACT % (kind, verb), i={"id": job})
