"""What `make demo-providers` shows: one job at every provider, simulated, while things go wrong.

Jobs go through the public API, as a customer's do. Only the trouble, and the comparison with what
really happened, know the simulators from inside.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import httpx
from rich.console import Console
from rich.live import Live

from app.cli import demo_providers_checks as checks
from app.cli import deploying, documents, show
from app.cli.demo_providers_board import Board, Row, money, tail
from app.cli.demo_providers_trouble import Trouble, Victims, together
from app.cli.provider_access import Access
from app.cli.transfer import create_dataset
from app.client import ApiError, Client, Timing
from app.providers.registry import capabilities
from app.simulators.registry import SIMULATED
from app.simulators.runs import Plan
from app.simulators.simulator import Simulator

PLAN = Plan(validating=0.5, queued=0.5, steps=24, step_seconds=0.4)
POLL_SECONDS = 0.5
_WITHIN = 50.0
_DATA = Path(__file__).parent / "demo_data" / "tickets.train.jsonl"
_QUESTION = [{"role": "user", "content": "Where is my parcel?"}]
_WEBHOOKS = [f"fine_tuning.job.{word}" for word in ("succeeded", "failed", "cancelled")]

_T = TypeVar("_T")
Places = Mapping[str, tuple[Simulator, str]]
"""Name → the simulator, and its URL."""


class _Demo:
    def __init__(self, client: Client, places: Places, console: Console) -> None:
        self._client, self._places = client, places
        self._simulators = {name: simulator for name, (simulator, _) in places.items()}
        self.rows = {name: Row(name, total=PLAN.steps) for name in places}
        self._board = Board(console, self.rows)
        self._victims = Victims.among(list(places))
        self._trouble = Trouble(self._victims, self._simulators, self._board)
        self.wrong: list[str] = []

    async def run(self) -> None:
        self._board.head(f"1/4  Access to {len(self._places)} simulated providers")
        for name in self._places:
            await self._connect(name)
        self._board.head("2/4  One job at each, live from the subscriptions")
        after = await self._client.ledger_position()
        version = (await create_dataset(self._client, _DATA, "demo tickets"))["version"]["id"]
        self._trouble.before()
        for name in self._places:
            await self._submit(name, version)
        await self._watch(after)
        self._board.head("3/4  Each model answers, through /v1/chat/completions")
        answers = await self._each(self._ask)
        self._board.head("4/4  The ledger")
        await self._conclude(answers)

    async def _connect(self, name: str) -> None:
        account = SIMULATED[name].account(self._places[name][1])
        input = Access(name, {**account.secrets, **account.settings}).input(check=True)
        made = await self._client.mutate(documents.SET_PROVIDER_CREDENTIAL, input)
        if SIMULATED[name].webhook_endpoints:
            url = f"{self._client.url}{made['credential']['webhookPath']}"
            input["webhookSecret"] = await self._register(name, url)
            made = await self._client.mutate(documents.SET_PROVIDER_CREDENTIAL, input)
        credential = made["credential"]
        state = ", signed webhooks" if credential["webhooksConfigured"] else ""
        self._board.say(
            f"{name:<10} {credential['status'].lower()}, key {credential['hint']}{state}"
        )

    async def _register(self, name: str, url: str) -> str:
        """Register an endpoint at the provider, as a customer would; the secret it signs by."""
        found = SIMULATED[name]
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(
                f"{self._places[name][1]}{found.webhook_endpoints}",
                json={"name": "luthier", "url": url, "event_types": _WEBHOOKS},
                headers={"authorization": f"Bearer {found.secrets['api_key']}"},
            )
        return str(answer.raise_for_status().json()["signing_secret"])

    async def _submit(self, name: str, version: str) -> None:
        input = {
            "provider": name.upper(),
            "baseModel": SIMULATED[name].base_model,
            "trainingData": version,
            "name": f"demo: tickets at {name}",
            "suffix": "tickets",
            "seed": "42",
        }
        payload = await self._client.mutate(documents.SUBMIT_JOB, input)
        row = self.rows[name]
        row.job_id, row.status = payload["job"]["id"], payload["job"]["status"]
        self._board.say(f"{name:<10} {row.job_id} submitted, {input['baseModel']}")

    # While they run

    async def _watch(self, after: str) -> None:
        """Until all jobs are over and every step of theirs has come."""
        metrics = (self._follow_metrics(row) for row in self.rows.values())
        watching = together(self._follow_ledger(after), self._trouble.run(), *metrics)
        console, table = self._board.console, self._board.table
        if not console.is_terminal:
            await watching
            return
        with Live(console=console, get_renderable=table, refresh_per_second=8, transient=True):
            await watching
        console.print(table())

    async def _follow_ledger(self, after: str) -> None:
        of = {row.job_id: row for row in self.rows.values()}
        variables = {"after": after}
        watch = self._client.subscribe(documents.PROVIDER_JOB_CHANGES, variables)
        async with aclosing(watch) as news:
            async for data in news:
                change = data["jobChanges"]
                row = of.get(change["jobId"])
                if row is not None and change["job"] is not None and row.change(change["job"]):
                    self._board.changed(row)
                if all(row.over for row in of.values()):
                    return

    async def _follow_metrics(self, row: Row) -> None:
        variables = {"jobId": row.job_id, "after": "0"}
        watch = self._client.subscribe(documents.JOB_METRICS, variables)
        async with aclosing(watch) as batches:
            async for data in batches:
                row.measure(data["jobMetrics"]["points"])
                self._board.measured(row)

    # Afterwards

    async def _each(self, work: Callable[[str], Awaitable[_T]]) -> dict[str, _T]:
        found = await asyncio.gather(*(work(name) for name in self._places))
        return dict(zip(self._places, found, strict=True))

    async def _ask(self, name: str) -> str:
        """The answer of the job's model, "" when there is none; why is noted."""
        model = (await self._job(name))["model"]
        if model is None:
            return ""
        try:
            if capabilities(name).deployment == "dedicated":
                await deploying.deploy(self._client, model["id"], timeout=20)
                self._board.say(f"{name:<10} deployed")
            answer = await self._client.chat(model["name"], _QUESTION, max_tokens=40)
        except ApiError as refused:
            self.wrong.append(f"{name}: {refused.message}")
            return ""
        self._board.say(f"{name:<10} {answer}")
        return answer

    async def _job(self, name: str) -> dict[str, Any]:
        variables = {"id": self.rows[name].job_id}
        job: dict[str, Any] = (await self._client.execute(documents.PROVIDER_JOB, variables))["job"]
        return job

    async def _conclude(self, answers: Mapping[str, str]) -> None:
        made = show.table("PROVIDER", "~ID THERE", "STATUS", ">STEPS", ">COST", "~MODEL", "~ANSWER")
        jobs = await self._each(self._job)
        wide = 20 if self._board.console.is_terminal else 40
        for name, job in jobs.items():
            show.add_row(
                made, name, tail(job["providerJobId"] or "-", wide), show.status(job["status"]),
                len(job["metrics"]), money(job["cost"]),
                tail(job["model"]["name"] if job["model"] else "-", wide),
                tail(answers[name] or "-", wide),
            )  # fmt: skip
            amiss = checks.of_job(
                self.rows[name], job, await self._successes(name), answers[name],
                self._simulators[name],
            )  # fmt: skip
            self.wrong += [f"{name}: {words}" for words in amiss]
        self._board.console.print(made)
        if (told := self._victims.webhooks) is not None:
            found = await self._webhooks(told)
            self.wrong += [f"{told}: {words}" for words in found]
            if not found:
                self._board.say(f"{told:<10} its webhook was taken 3 times, a forged one refused")

    async def _successes(self, name: str) -> int:
        variables = {"id": self.rows[name].job_id, "types": ["STATUS"]}
        job = (await self._client.execute(documents.JOB_EVENTS, variables))["job"]
        return sum(one["data"].get("after") == "succeeded" for one in job["events"]["nodes"])

    async def _webhooks(self, name: str) -> list[str]:
        """What is wrong with how they were taken; the count of refused ones comes a second late."""
        sent = getattr(self._simulators[name], "sent", [])
        found: list[str] = []
        for _ in range(30):
            listed = (await self._client.execute(documents.PROVIDERS))["providerCredentials"]
            refused = next(c["refusedWebhooks"] for c in listed if c["provider"] == name.upper())
            found = list(checks.of_webhooks(sent, int(refused)))
            if not found:
                break
            await asyncio.sleep(0.1)
        return found


async def demo(
    url: str, api_key: str, places: Places, *, began: float, console: Console | None = None
) -> int:
    """Show it on the server at `url`. Returns 0 if everything is as it should be, else 1."""
    console = console or show.console()
    wrong = await _complaints(url, api_key, places, console)
    console.print()
    for words in wrong:
        console.print(f"✗ {show.clean(words, True)}", style="bold red", soft_wrap=True)
    seconds = time.monotonic() - began
    if not wrong:
        console.print(
            f"✓ Every job is in the ledger once, with every step. {seconds:.0f} s in all.",
            style="bold green",
        )
    return 1 if wrong else 0


async def _complaints(url: str, api_key: str, places: Places, console: Console) -> list[str]:
    async with Client(url, api_key, timing=Timing(reconnect=30)) as client:
        shown = _Demo(client, places, console)
        try:
            async with asyncio.timeout(_WITHIN):
                await shown.run()
        except TimeoutError:
            late = ", ".join(row.provider for row in shown.rows.values() if not row.over)
            shown.wrong.append(f"not done after {_WITHIN:g} s: {late or 'no job, but the rest'}")
        except (ApiError, httpx.HTTPError) as refused:
            shown.wrong.append(str(refused))
        return shown.wrong
