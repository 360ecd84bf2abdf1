"""OpenAI's fine-tuning API, and what others have taken over from it.

Wire format: openai-openapi 2.3.0 of 2026-08-21 and the SDK's types; result files as in OpenAI's
guides of 2026-07.
"""

import base64
import binascii
import csv
import hashlib
import io
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, date, datetime
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
    Method,
    Offer,
    Order,
    Price,
    Result,
    Sighting,
    Status,
)
from app.providers.errors import ProviderExists, ProviderMissing, ProviderRefused

MARKER = "luthier_job"
_PAGE = 100
_FROM = "OpenAI's deprecations page, copy of 2026-11-06"
_PRICES = "prices that third parties list for 2025; OpenAI's own table was not at hand"

HYPERPARAMETERS: dict[str, frozenset[str]] = {
    "supervised": frozenset({"n_epochs", "batch_size", "learning_rate_multiplier"}),
    "dpo": frozenset({"n_epochs", "batch_size", "learning_rate_multiplier", "beta"}),
    "reinforcement": frozenset(
        {
            "n_epochs",
            "batch_size",
            "learning_rate_multiplier",
            "compute_multiplier",
            "eval_interval",
            "eval_samples",
            "reasoning_effort",
        }
    ),
}

STATUSES = {
    "validating_files": Status.VALIDATING,
    "queued": Status.QUEUED,
    "running": Status.RUNNING,
    "paused": Status.PAUSED,
    "succeeded": Status.SUCCEEDED,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
}

# What the values of a step are called in events, checkpoints and result files.
VALUES = {
    "train_loss": "training_loss",
    "train_mean_token_accuracy": "training_accuracy",
    "train_accuracy": "training_accuracy",
    "full_valid_loss": "validation_loss",
    "valid_loss": "validation_loss",
    "full_valid_mean_token_accuracy": "validation_accuracy",
    "valid_mean_token_accuracy": "validation_accuracy",
    "validation_mean_token_accuracy": "validation_accuracy",
    "train_mean_reward": "reward",
    "train_reward_mean": "reward",
    "full_valid_mean_reward": "validation_reward",
    "valid_reward_mean": "validation_reward",
}


class Bearer(httpx.Auth):
    def __init__(self, key: str, headers: Mapping[str, str] | None = None) -> None:
        self._headers = {"authorization": f"Bearer {key}", **(headers or {})}

    def auth_flow(self, request: httpx.Request) -> Any:
        request.headers.update(self._headers)
        yield request


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
    optional: ClassVar[tuple[str, ...]] = ("organization", "project")

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
        items = [_event(row) for row in reversed(rows)]
        if job.status in OVER or job.status is Status.PAUSED or any(row.step for row in items):
            saved = await self._pages(f"{path}/checkpoints", 200)
            items += [_checkpoint(row) for row in reversed(saved)]
        return items

    async def results(self, job: Sighting) -> list[Result]:
        found = []
        for number, id in enumerate(job.extra.get("result_files", [])):
            with suppress(ProviderMissing):
                answer = await self.http.call(
                    "GET", self.route(f"/files/{id}/content"), params=self.parameters()
                )
                name = "metrics.csv" if number == 0 else f"metrics-{number}.csv"
                found.append(Result(name, _decoded(answer.content)))
        return found

    def sighting(self, job: Mapping[str, Any]) -> Sighting:
        raw = str(job.get("status", ""))
        method, told = _method_of(job)
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
            estimated_finish=moment(job.get("estimated_finish")),
            created_at=moment(job.get("created_at")),
            finished_at=moment(job.get("finished_at")),
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


def moment(seconds: Any) -> datetime | None:
    return datetime.fromtimestamp(float(seconds), UTC) if seconds else None


def day(word: Any) -> date | None:
    try:
        return date.fromisoformat(word[:10]) if isinstance(word, str) else None
    except ValueError:
        return None


def _method_of(job: Mapping[str, Any]) -> tuple[Method, dict[str, Any]]:
    """The method, and the hyperparameters as far as they are settled."""
    method = job.get("method") or {}
    kind = method.get("type", "supervised")
    told = (method.get(kind) or {}).get("hyperparameters") or job.get("hyperparameters") or {}
    settled = {name: value for name, value in told.items() if value not in (None, "auto", -1)}
    return kind if kind in ("dpo", "reinforcement") else "supervised", settled


def _values(data: Mapping[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for theirs, ours in VALUES.items():
        value = data.get(theirs)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.setdefault(ours, float(value))
    return found


def _event(row: Mapping[str, Any]) -> Item:
    data = row.get("data") or {}
    step, total = data.get("step"), data.get("total_steps")
    values = _values(data)
    level = {"warn": "warn", "warning": "warn", "error": "error"}.get(row.get("level", ""), "info")
    measured = row.get("type") == "metrics" and step is not None and bool(values)
    return Item(
        kind="metrics" if measured else "message",
        key=str(row.get("id") or _made_up(row)),
        at=moment(row.get("created_at")),
        message=str(row.get("message", "")),
        level=level,  # type: ignore[arg-type]
        step=step,
        total_steps=total,
        values=values,
    )


def _checkpoint(row: Mapping[str, Any]) -> Item:
    return Item(
        kind="checkpoint",
        key=str(row["id"]),
        at=moment(row.get("created_at")),
        step=int(row.get("step_number") or 0),
        values=_values(row.get("metrics") or {}),
        model=row.get("fine_tuned_model_checkpoint"),
        provider_id=str(row["id"]),
    )


def _made_up(row: Mapping[str, Any]) -> str:
    told = f"{row.get('created_at')}|{row.get('type')}|{row.get('message')}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _decoded(content: bytes) -> bytes:
    """Result files are CSV; some come in base64, which no document says."""
    if content.lstrip()[:4] == b"step":
        return content
    try:
        decoded = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        return content
    return decoded if decoded.lstrip()[:4] == b"step" else content


def points_of(content: bytes) -> list[Item]:
    """The steps of a result file, by the names of its columns."""
    found = []
    for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig", "replace"))):
        try:
            step = int(float(row.get("step") or ""))
        except ValueError:
            continue
        numbers = {name: _number(value) for name, value in row.items() if name in VALUES}
        values = _values({name: value for name, value in numbers.items() if value is not None})
        if values:
            found.append(Item("metrics", f"csv:{step}", step=step, values=values))
    return found


def _number(word: str | None) -> float | None:
    try:
        return float(word) if word else None
    except ValueError:
        return None
