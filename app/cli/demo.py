"""What `make demo` shows: a small model learns to route support tickets, from file to answers.

Everything goes through the public API, as a customer would do it.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from app.cli import demo_compare, deploying, documents, show
from app.cli.job_watch import View
from app.cli.transfer import create_dataset
from app.client import ApiError, Client, Timing

# The recipe. Whatever is not named here is automatic.
BASE_MODEL = "smollm2-135m-instruct"
SUFFIX = "tickets"
SEED = 42
HYPERPARAMETERS: dict[str, Any] = {
    "nEpochs": 1,
    "batchSize": 4,
    "learningRate": 0.002,
    "evalInterval": 45,
    "checkpointInterval": 45,
}

_DATA = Path(__file__).parent / "demo_data"
_STEPS = 5
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Outcome:
    """What the demo claims, and whether it came true."""

    model: str
    before: float | None
    after: float | None
    base_right: int
    tuned_right: int
    cases: int

    @property
    def good(self) -> bool:
        fell = self.before is not None and self.after is not None and self.after < self.before
        return fell and self.tuned_right > self.base_right


class _Demo:
    def __init__(self, client: Client, console: Console, hyperparameters: dict[str, Any]) -> None:
        self._client, self._console = client, console
        self._hyperparameters = hyperparameters
        self._step = 0

    async def run(self) -> _Outcome:
        training = await self._add("train", "training")
        validation = await self._add("validation", "validation")
        job_id = await self._submit(training, validation)
        job, before, after = await self._train(job_id)
        await self._deploy(job["model"])
        base, tuned, cases = await self._compare(job["model"]["name"])
        return _Outcome(job["model"]["name"], before, after, base, tuned, cases)

    def _head(self, title: str) -> None:
        self._step += 1
        self._console.print()
        self._console.print(Text(f"{self._step}/{_STEPS}  {title}", "bold"))

    def _say(self, text: str) -> None:
        self._console.print(f"     {show.clean(text, True)}", soft_wrap=True)

    async def _add(self, part: str, purpose: str) -> str:
        """Make a dataset of a file; its version's id."""
        if self._step == 0:
            self._head("Data: support tickets, and the queue and priority each one needs")
        path = _DATA / f"tickets.{part}.jsonl"
        payload = await create_dataset(self._client, path, f"demo tickets, {purpose}")
        report = payload["version"]["report"]
        self._say(
            f"{purpose:<10}  {report['caseCount']} cases, {show.number(report['tokenCount'])} "
            f"tokens, longest {report['longestCaseTokens']}, "
            f"duplicates {report['duplicateCount']}, invalid lines 0"
        )
        return str(payload["version"]["id"])

    async def _submit(self, training: str, validation: str) -> str:
        self._head(f"Job: supervised fine-tuning of {BASE_MODEL}")
        payload = await self._client.mutate(
            documents.SUBMIT_JOB,
            {
                "baseModel": BASE_MODEL,
                "trainingData": training,
                "validationData": validation,
                "name": "demo: route support tickets",
                "suffix": SUFFIX,
                "seed": str(SEED),
                "method": {"supervised": {"hyperparameters": self._hyperparameters}},
            },
        )
        job, estimate = payload["job"], payload["estimate"]
        self._say(f"{job['id']} submitted, seed {job['seed']}")
        if estimate:
            low, high = (show.duration(estimate[f"seconds{end}"]) for end in ("Low", "High"))
            self._say(f"{estimate['steps']} steps; estimated {low} to {high}")
        return str(job["id"])

    async def _train(self, job_id: str) -> tuple[dict[str, Any], float | None, float | None]:
        """The finished job, and the validation loss before and after."""
        self._head("Training, live from the job's event stream")
        view, began = View(self._client, job_id, self._console), time.monotonic()
        job = await view.run()
        if job["status"] != "SUCCEEDED":
            why = (job["error"] or {}).get("message", "no reason given")
            raise ApiError(f"The job {job['status'].lower()}: {why}", "JOB_NOT_SUCCEEDED")
        losses = [view.watched.validation[step] for step in sorted(view.watched.validation)]
        before, after = (losses[0], losses[-1]) if losses else (None, None)
        self._say(
            f"validation loss {show.loss(before)} before, {show.loss(after)} after "
            f"{view.watched.step} steps, in {show.duration(time.monotonic() - began)}"
        )
        return job, before, after

    async def _deploy(self, model: dict[str, Any]) -> None:
        self._head("Deployment: the new model, made callable")
        began = time.monotonic()
        deployment = await self._while_spinning(
            "loading the model",
            lambda: deploying.deploy(self._client, model["id"]),
        )
        self._say(f"{model['name']}")
        self._say(f"{deployment['status']} in {time.monotonic() - began:.0f} s")

    async def _compare(self, tuned: str) -> tuple[int, int, int]:
        """Right answers of the base model and of the tuned one, and the number of cases."""
        cases = demo_compare.read_cases(_DATA / "tickets.heldout.jsonl")
        self._head(f"Answers to {len(cases)} tickets that neither model has seen")
        found = await self._while_spinning(
            "asking both models", lambda: self._ask_both(cases, tuned)
        )
        demo_compare.show_examples(self._console, cases, *found)
        base_right, tuned_right = (demo_compare.right(cases, answers) for answers in found)
        return base_right, tuned_right, len(cases)

    async def _ask_both(
        self, cases: list[demo_compare.Case], tuned: str
    ) -> tuple[list[str], list[str]]:
        base = await demo_compare.ask_all(self._client, BASE_MODEL, cases)
        return base, await demo_compare.ask_all(self._client, tuned, cases)

    async def _while_spinning(self, words: str, work: Callable[[], Awaitable[_T]]) -> _T:
        if not self._console.is_terminal:
            return await work()
        with self._console.status(words):
            return await work()


async def demo(
    url: str,
    api_key: str,
    *,
    hyperparameters: dict[str, Any] | None = None,
    console: Console | None = None,
) -> int:
    """Show the whole way on the server at `url`.

    Returns 0 if the validation loss fell and the tuned model beats the base model, else 1.
    """
    console = console or show.console()
    console.print(Text(f"Luthier demo, against {url}", "bold"))
    try:
        async with Client(url, api_key, timing=Timing(reconnect=60)) as client:
            shown = _Demo(client, console, HYPERPARAMETERS | (hyperparameters or {}))
            outcome = await shown.run()
    except ApiError as refused:
        show.complain(f"the demo stopped: {refused.message}")
        return 1
    _close(console, outcome)
    return 0 if outcome.good else 1


def _close(console: Console, outcome: _Outcome) -> None:
    lines = Text.assemble(
        ("It learned.\n" if outcome.good else "It did not learn as it should.\n", "bold"),
        f"Validation loss  {show.loss(outcome.before)} → {show.loss(outcome.after)}\n",
        f"Right answers    {outcome.base_right} of {outcome.cases} by {BASE_MODEL}\n",
        f"                 {outcome.tuned_right} of {outcome.cases} by the tuned model\n\n",
        ("Next\n", "bold"),
        "make up                the same server, staying up\n",
        "                       with links to its dashboard and to GraphiQL\n",
        "luthier jobs list      what is in the ledger\n",
        "luthier models list    the new model; deploy it, chat with it",
    )
    console.print()
    if console.is_terminal:
        console.print(Panel.fit(lines, border_style="green" if outcome.good else "red"))
    else:
        console.print(lines)
