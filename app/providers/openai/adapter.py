"""OpenAI's fine-tuning API, and what others have taken over from it.

Wire format: openai-openapi 2.3.0 of 2026-08-21 and the SDK's types; result files as in OpenAI's
guides of 2026-07.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from datetime import date
from typing import Any, ClassVar

import httpx

from app.core.egress import Reply
from app.providers.base import (
    OVER,
    Adapter,
    Capabilities,
    Data,
    Item,
    Listed,
    Offer,
    Order,
    Price,
    Result,
    Sighting,
    Status,
)
from app.providers.errors import ProviderExists, ProviderMissing, ProviderRefused
from app.providers.http import Bearer
from app.providers.openai.jobs import HYPERPARAMETERS, STATUSES, checkpoint, event, method_of
from app.providers.openai.results import decoded
from app.providers.values import day, moment_of_seconds

MARKER = "luthier_job"
_PAGE = 100
_PRICES = "prices that third parties list for 2025; OpenAI's own table was not at hand"


class OpenAI(Adapter):
    capabilities = Capabilities(
        provider="openai",
        name="OpenAI",
        methods=("supervised", "dpo", "reinforcement"),
        hyperparameters=HYPERPARAMETERS,
        pause=True,
        resume=True,
        messages="events",
        metrics="events, checkpoints and the result file",
        checkpoints=True,
        webhooks="signed",
        deployment="automatic",
        repeatable_create=False,
        longest_suffix=64,
        needs_validation_data=("reinforcement",),
    )
    offers: ClassVar[tuple[Offer, ...]] = (
        Offer(
            "gpt-4.1-2025-04-14",
            ("supervised", "dpo"),
            "The large model for supervised and preference tuning.",
            max_sequence_length=65_536,
            ends=date(2027, 1, 14),
        ),
        Offer(
            "gpt-4.1-mini-2025-04-14",
            ("supervised", "dpo"),
            "The middle one.",
            max_sequence_length=65_536,
            ends=date(2027, 1, 14),
        ),
        Offer("gpt-4.1-nano-2025-04-14", ("supervised", "dpo"), "The small one."),
        Offer(
            "gpt-4o-2024-08-06",
            ("supervised", "dpo"),
            "The generation before.",
            max_sequence_length=65_536,
            price=Price(25.0, date(2025, 12, 31), _PRICES),
            ends=date(2027, 1, 14),
        ),
        Offer(
            "gpt-4o-mini-2024-07-18",
            ("supervised", "dpo"),
            "The small one of the generation before.",
            max_sequence_length=65_536,
            price=Price(3.0, date(2025, 12, 31), _PRICES),
            ends=date(2027, 1, 14),
        ),
        Offer("o4-mini-2025-04-16", ("reinforcement",), "A reasoning model, for graders."),
    )
    urls = {"base_url": "https://api.openai.com/v1"}
    hosts: ClassVar[tuple[str, ...]] = ("api.openai.com", "*.api.openai.com")

    def auth(self, client: httpx.AsyncClient) -> httpx.Auth:
        names = {"organization": "openai-organization", "project": "openai-project"}
        settings = self.account.settings
        more = {header: settings[name] for name, header in names.items() if settings.get(name)}
        return Bearer(self.account.secrets["api_key"], more)

    # Where a dialect differs

    statuses: Mapping[str, Status] = STATUSES
    ending_words: frozenset[str] = frozenset()

    def route(self, path: str) -> str:
        return f"{self.url('base_url')}{path}"

    def parameters(self) -> dict[str, str]:
        """Of every request."""
        return {}

    def marked(self, order: Order) -> dict[str, Any]:
        """What of a create carries our marker."""
        suffix = {"suffix": order.suffix} if order.suffix else {}
        return {"metadata": {MARKER: order.marker}, **suffix}

    def marker_of(self, job: Mapping[str, Any]) -> str | None:
        return (job.get("metadata") or {}).get(MARKER)

    async def _json(self, method: str, path: str, **request: Any) -> Any:
        parameters = {**self.parameters(), **request.pop("params", {})}
        return await self.http.json(method, self.route(path), params=parameters, **request)

    # Jobs

    async def upload(self, data: Data) -> str:
        name = f"luthier-{data.sha256[:16]}.jsonl"
        made = await self._json(
            "POST",
            "/files",
            data={"purpose": "fine-tune"},
            files={"file": (name, self.content(data), "application/octet-stream")},
        )
        return str(made["id"])

    def content(self, data: Data) -> bytes:
        """What is sent of the cases: their format is OpenAI's own."""
        return data.path.read_bytes()

    async def create(self, order: Order) -> Sighting:
        body = self.body(order)
        return self.sighting(await self._json("POST", "/fine_tuning/jobs", json=body, once=True))

    def body(self, order: Order) -> dict[str, Any]:
        """Of a create."""
        told: dict[str, Any] = {"hyperparameters": dict(order.hyperparameters)}
        if order.method == "reinforcement":
            told["grader"] = order.grader
        body: dict[str, Any] = {
            "model": order.base_model,
            "training_file": order.training,
            "method": {"type": order.method, order.method: told},
            **self.marked(order),
        }
        if order.validation:
            body["validation_file"] = order.validation
        if order.seed is not None:
            body["seed"] = order.seed % 2**31
        return body

    async def find(self, marker: str) -> Sighting | None:
        found = await self._json(
            "GET", "/fine_tuning/jobs", params={f"metadata[{MARKER}]": marker, "limit": 1}
        )
        rows = [self.sighting(row) for row in found.get("data", [])]
        return next((row for row in rows if row.marker == marker), None)

    async def listing(self, most: int) -> list[Sighting]:
        return [self.sighting(row) for row in await self._pages("/fine_tuning/jobs", most)]

    async def get(self, id: str) -> Sighting:
        return self.sighting(await self._json("GET", f"/fine_tuning/jobs/{id}"))

    async def cancel(self, id: str) -> None:
        await self._ask(id, "cancel", OVER)

    async def pause(self, id: str) -> None:
        await self._ask(id, "pause", OVER | {Status.PAUSED})

    async def resume(self, id: str) -> None:
        await self._ask(id, "resume", OVER | {Status.QUEUED, Status.RUNNING})

    async def _ask(self, id: str, verb: str, enough: frozenset[Status]) -> None:
        """A refusal is none where the job is already where it should be."""
        try:
            await self._json("POST", f"/fine_tuning/jobs/{id}/{verb}")
        except (ProviderRefused, ProviderExists):
            if (await self.get(id)).status not in enough:
                raise

    async def news(self, job: Sighting, newest: str | None) -> list[Item]:
        path = f"/fine_tuning/jobs/{job.id}"
        rows = await self._pages(f"{path}/events", 10_000, until=newest)
        items = [event(row) for row in reversed(rows)]
        if job.status in OVER or job.status is Status.PAUSED or any(row.step for row in items):
            saved = await self._pages(f"{path}/checkpoints", 200)
            items += [checkpoint(row) for row in reversed(saved)]
        return items

    async def results(self, job: Sighting) -> list[Result]:
        found = []
        for number, id in enumerate(job.extra.get("result_files", [])):
            with suppress(ProviderMissing):
                answer = await self.http.call(
                    "GET", self.route(f"/files/{id}/content"), params=self.parameters()
                )
                name = "metrics.csv" if number == 0 else f"metrics-{number}.csv"
                found.append(Result(name, decoded(answer.content)))
        return found

    def sighting(self, job: Mapping[str, Any]) -> Sighting:
        raw = str(job.get("status", ""))
        method, told = method_of(job)
        error = job.get("error") or {}
        return Sighting(
            id=str(job["id"]),
            raw=raw,
            status=self.statuses.get(raw),
            base_model=str(job.get("model", "")),
            method=method,
            marker=self.marker_of(job),
            ending=raw in self.ending_words,
            model=job.get("fine_tuned_model"),
            error=self._error(error) if error.get("message") or error.get("code") else None,
            trained_tokens=job.get("trained_tokens"),
            estimated_finish=moment_of_seconds(job.get("estimated_finish")),
            created_at=moment_of_seconds(job.get("created_at")),
            finished_at=moment_of_seconds(job.get("finished_at")),
            resolved=told,
            suffix=job.get("user_provided_suffix") or job.get("suffix"),
            seed=job.get("seed"),
            training=job.get("training_file"),
            validation=job.get("validation_file"),
            extra={"result_files": list(job.get("result_files") or [])},
        )

    def _error(self, error: Mapping[str, Any]) -> dict[str, Any]:
        message = self.http.clean(str(error.get("message") or error.get("code")))
        return {
            "code": str(error.get("code") or "failed"),
            "message": message,
            "param": error.get("param"),
        }

    async def _pages(
        self, path: str, most: int, until: str | None = None
    ) -> list[Mapping[str, Any]]:
        """Newest first, up to so many, or until the one with this id comes."""
        rows: list[Mapping[str, Any]] = []
        after: dict[str, Any] = {}
        while len(rows) < most:
            page = await self._json("GET", path, params={"limit": min(_PAGE, most), **after})
            for row in page.get("data", []):
                if until is not None and row.get("id") == until:
                    return rows
                rows.append(row)
            if not page.get("has_more") or not page.get("data"):
                break
            after = {"after": page["data"][-1]["id"]}
        return rows[:most]

    # Models

    async def models(self) -> list[Listed]:
        found = await self._json("GET", "/models")
        return [
            Listed(str(row["id"]), day(row.get("shutdown_date"))) for row in found.get("data", [])
        ]

    def chat(self, target: str, asked: dict[str, Any]) -> AbstractAsyncContextManager[Reply]:
        return self.http.stream(self.route("/chat/completions"), {**asked, "model": target})
