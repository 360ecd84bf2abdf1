"""Together AI: files with signed uploads, fine-tuning jobs, dedicated endpoints (v2).

Wire format: the SDK 3.1.1 as it was read off the wire and in its types, 2026-11.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import date
from typing import Any

from app.providers.base import (
    OVER,
    Capabilities,
    Data,
    Item,
    Listed,
    Offer,
    Order,
    Price,
    Result,
    Sighting,
)
from app.providers.errors import (
    ProviderExists,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
)
from app.providers.patience import Patience
from app.providers.together.cases import lines_of
from app.providers.together.jobs import checkpoints, event, sighting
from app.providers.together.metrics import csv_of, points
from app.providers.together.serving import Dedicated
from app.providers.together.suffixes import LONGEST_OWN_SUFFIX, marked_suffix

_PROCESSED_WITHIN = 600.0
_EVALUATIONS = 5  # with a validation file; the provider's own default is none, and it bills each
_WARMUP_EVALUATIONS = 1  # that early stopping passes over, unless told otherwise
_LATE = 50  # steps whose values may have come after those of a later step

_SHARED = {"n_epochs", "batch_size", "learning_rate", "adapter", "lora_rank", "max_length"}
HYPERPARAMETERS = {
    "supervised": frozenset({*_SHARED, "early_stopping"}),
    "dpo": frozenset({*_SHARED, "early_stopping", "beta"}),
}

_SNAPSHOT = date(2026, 5, 8)
_SMALL = Price(
    0.48,
    _SNAPSHOT,
    "a third party's snapshot: $0.48 to $1.35 up to 16B, by method, of which this is the lowest",
)
_LARGE = Price(
    2.90,
    _SNAPSHOT,
    "a third party's snapshot: $2.90 to $8.00 from 70B, by method, of which this is the lowest",
)


class Together(Dedicated):
    capabilities = Capabilities(
        provider="together",
        name="Together AI",
        methods=("supervised", "dpo"),
        hyperparameters=HYPERPARAMETERS,
        pause=False,
        resume=False,
        messages="events",
        metrics="the job's metrics route",
        checkpoints=True,
        webhooks=None,
        deployment="dedicated",
        repeatable_create=False,
        longest_suffix=LONGEST_OWN_SUFFIX,
    )
    offers = (
        Offer(
            "meta-llama/Llama-3.2-1B-Instruct",
            ("supervised", "dpo"),
            "The smallest Llama.",
            max_sequence_length=131_072,
            parameter_count=1_240_000_000,
            license="llama3.2",
            price=_SMALL,
        ),
        Offer(
            "meta-llama/Llama-3.2-3B-Instruct",
            ("supervised", "dpo"),
            "A small Llama.",
            max_sequence_length=131_072,
            parameter_count=3_210_000_000,
            license="llama3.2",
            price=_SMALL,
        ),
        Offer(
            "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference",
            ("supervised", "dpo"),
            "The middle Llama, in the form that is tuned.",
            max_sequence_length=131_072,
            parameter_count=8_030_000_000,
            license="llama3.1",
            price=_SMALL,
        ),
        Offer(
            "meta-llama/Llama-3.3-70B-Instruct-Reference",
            ("supervised", "dpo"),
            "A large Llama, in the form that is tuned.",
            max_sequence_length=24_576,
            parameter_count=70_600_000_000,
            license="llama3.3",
            price=_LARGE,
        ),
    )
    urls = {"base_url": "https://api.together.ai"}
    hosts = ("api.together.ai", "api.together.xyz")

    # Files

    async def upload(self, data: Data) -> str:
        cases = await asyncio.to_thread(data.path.read_bytes)
        content = await asyncio.to_thread(lines_of, cases, data.method, f"{data.role}_file")
        told = {
            "purpose": "fine-tune",
            "file_name": f"luthier-{data.sha256[:16]}.jsonl",
            "file_type": "jsonl",
            "checksum": hashlib.sha256(content).hexdigest(),
        }
        # Multipart although no file is in it: the bytes go to the URL that the answer names.
        fields = {name: (None, value.encode()) for name, value in told.items()}
        try:
            answer = await self.http.call("POST", self.route("/v1/files"), files=fields)
        except ProviderExists as there:
            return await self._there_already(there)
        where, id = answer.headers.get("location"), answer.headers.get("x-together-file-id")
        if answer.status_code != 302 or not where or not id:
            raise ProviderUnreachable("Together AI does not say where to upload a file to.")
        await self.http.signed("PUT", where, content=content)
        return await self._processed(await self._json("POST", f"/v1/files/{id}/preprocess"))

    async def _there_already(self, there: ProviderExists) -> str:
        """The same bytes were uploaded before, maybe by a process that then ended."""
        id = there.body.get("file_id") if isinstance(there.body, dict) else None
        if not id:
            raise there
        file = await self._json("GET", f"/v1/files/{id}")
        if not file.get("bytes"):  # announced by one who died before sending them
            await self._json("DELETE", f"/v1/files/{id}")
            raise ProviderUnreachable("Together AI had half an upload, now removed.", sent=False)
        if file.get("processing_status") == "PENDING":
            file = await self._json("POST", f"/v1/files/{id}/preprocess")
        return await self._processed(file)

    async def _processed(self, file: Mapping[str, Any]) -> str:
        """Wait until it can be trained on."""
        id = str(file["id"])
        patience = Patience(_PROCESSED_WITHIN, f"Together AI has not processed the file {id} yet.")
        while (state := file.get("processing_status")) not in (None, "COMPLETED"):
            report = file.get("validation_report") or {}
            if state in ("FAILED", "INVALID_FORMAT"):
                why = report.get("error") or f"The file's processing ended as {state}."
                raise ProviderRefused(self.http.clean(str(why)), reason=str(state).lower())
            await patience.wait()
            file = await self._json("GET", f"/v1/files/{id}")
        return id

    # Jobs

    async def create(self, order: Order) -> Sighting:
        told = order.hyperparameters
        body: dict[str, Any] = {
            "model": order.base_model,
            "training_file": order.training,
            "suffix": marked_suffix(order.marker, order.suffix),
            "training_method": {"method": "sft", "train_on_inputs": "auto"},
        }
        # Warm-up is a share of all steps here. How many there will be is not known before: cases
        # are packed into sequences. So warmup_steps is none of its hyperparameters.
        names = {"max_length": "max_seq_length"}
        for name in ("n_epochs", "batch_size", "learning_rate", "max_length"):
            if name in told:
                body[names.get(name, name)] = told[name]
        if order.method == "dpo":
            beta = {"dpo_beta": told["beta"]} if "beta" in told else {}
            body["training_method"] = {"method": "dpo", **beta}
        if told.get("adapter") == "full":
            body["training_type"] = {"type": "Full"}
        elif rank := told.get("lora_rank"):
            body["training_type"] = {"type": "Lora", "lora_r": rank, "lora_alpha": 2 * rank}
        if order.validation:
            body |= {"validation_file": order.validation, "n_evals": _EVALUATIONS}
        if stopping := told.get("early_stopping"):
            body |= _early_stopping(stopping)
        if order.seed is not None:
            body["random_seed"] = order.seed % 2**31
        return await self._seen(await self._json("POST", "/v1/fine-tunes", json=body, once=True))

    async def find(self, marker: str) -> Sighting | None:
        return next((one for one in await self._all() if one.marker == marker), None)

    async def listing(self, most: int) -> list[Sighting]:
        return (await self._all())[:most]

    async def _all(self) -> list[Sighting]:
        """The newest first. There are no pages."""
        rows = (await self._json("GET", "/v1/fine-tunes")).get("data") or []
        rows.sort(key=lambda row: str(row.get("created_at") or ""), reverse=True)
        return [sighting(row, self.http.clean) for row in rows]

    async def get(self, id: str) -> Sighting:
        return await self._seen(await self._json("GET", f"/v1/fine-tunes/{id}"))

    async def _seen(self, job: Mapping[str, Any]) -> Sighting:
        """With the reason of a failure, which only events tell."""
        failed = job.get("status") in ("error", "user_error")
        if failed and not job.get("events"):
            job = {**job, "events": await self._events(str(job["id"]))}
        return sighting(job, self.http.clean)

    async def cancel(self, id: str) -> None:
        """A refusal is none where the job is over, or ending, already."""
        try:
            await self._json("POST", f"/v1/fine-tunes/{id}/cancel")
        except (ProviderRefused, ProviderExists):
            seen = await self.get(id)
            if seen.status not in OVER and not seen.ending:
                raise

    async def news(self, job: Sighting, newest: str | None) -> list[Item]:
        told = await self._events(job.id)
        items = {item.key: item for item in map(event, told)}
        for item in await self._points(job.id, newest):
            items[item.key] = item
        saves = any(str(row.get("type")).lower() == "checkpoint_save" for row in told)
        if job.status in OVER or saves:
            rows = await self._rows(job.id, "checkpoints")
            items |= {item.key: item for item in checkpoints(rows)}
        return sorted(items.values(), key=lambda item: item.at.timestamp() if item.at else 0.0)

    async def _events(self, id: str) -> list[Mapping[str, Any]]:
        return await self._rows(id, "events")

    async def _rows(self, id: str, what: str) -> list[Mapping[str, Any]]:
        return (await self._json("GET", f"/v1/fine-tunes/{id}/{what}")).get("data") or []

    async def _points(self, id: str, newest: str | None = None) -> list[Item]:
        kind, _, rest = (newest or "").partition(":")
        step = rest.partition(":")[0]
        wanted = {}
        if kind == "metrics" and step.isdigit() and int(step) > _LATE:
            wanted["global_step_from"] = int(step) - _LATE
        found = await self._json("GET", f"/v1/fine-tunes/{id}/metrics", params=wanted)
        return points(found.get("metrics") or [])

    async def results(self, job: Sighting) -> list[Result]:
        found = await self._points(job.id)
        return [Result("metrics.csv", csv_of(found))] if found else []

    # Models

    async def models(self) -> list[Listed]:
        try:
            found = await self._json("GET", "/v1/fine-tunes/models/supported")
        except ProviderMissing:
            raise self.unsupported("list models") from None
        return [Listed(str(name)) for name in found.get("models") or []]


def _early_stopping(asked: Mapping[str, Any]) -> dict[str, Any]:
    patience = int(asked.get("patience", 2))
    delta = {"early_stopping_min_delta": asked["min_delta"]} if asked.get("min_delta") else {}
    return {
        "early_stopping_enabled": True,
        "early_stopping_patience": patience,
        "early_stopping_warmup_evals": _WARMUP_EVALUATIONS,
        # Fewer than this are refused.
        "n_evals": max(_EVALUATIONS, patience + _WARMUP_EVALUATIONS + 1),
        **delta,
    }
