"""Google Vertex AI: tuning of Gemini, with data and metrics in Cloud Storage.

Wire format: google-genai 3.4.0's types, Google's pages on tuning, Cloud Storage's JSON API.
"""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx

from app.core.egress import Reply
from app.providers import completions
from app.providers.base import (
    OVER,
    Adapter,
    Capabilities,
    Data,
    Item,
    Offer,
    Order,
    Placed,
    Placing,
    Sighting,
)
from app.providers.cases import CannotConvert, Pieces
from app.providers.errors import (
    ProviderDenied,
    ProviderMissing,
    ProviderRefused,
    UrlNotAllowed,
)
from app.providers.http import Http, Pace
from app.providers.patience import Patience
from app.providers.vertex import chat
from app.providers.vertex.files import convert, points, readable
from app.providers.vertex.google import TOKEN_URL, ServiceAccountAuth, project_of, read_error
from app.providers.vertex.jobs import (
    ADAPTER_SIZES,
    HYPERPARAMETERS,
    LABEL,
    PARTLY,
    SPECS,
    THEIRS,
    checkpoint,
    label_of,
    sighting_of,
)
from app.providers.vertex.rewards import reward_config

_PAGE = 100
_PATIENCE = 30.0
_LOCATION = re.compile(r"[a-z][a-z0-9-]*")
_ENDPOINT = re.compile(r"projects/[\w:-]+(\.[\w:-]+)*/locations/[\w-]+/endpoints/[\w-]+")


class Vertex(Adapter):
    capabilities = Capabilities(
        provider="vertex",
        name="Google Vertex AI",
        methods=("supervised", "dpo", "reinforcement"),
        hyperparameters=HYPERPARAMETERS,
        pause=False,
        resume=False,
        messages="status changes",
        metrics="JSON lines in Cloud Storage, where the job names them",
        checkpoints=True,
        webhooks=None,
        deployment="automatic",
        repeatable_create=False,
        longest_suffix=128,
    )
    offers = (
        Offer(
            "gemini-2.5-flash",
            ("supervised", "dpo", "reinforcement"),
            "The middle one; adapters of rank 1 to 16.",
            max_sequence_length=131_072,
        ),
        Offer(
            "gemini-2.5-flash-lite",
            ("supervised", "dpo"),
            "The small one.",
            max_sequence_length=131_072,
        ),
        Offer("gemini-2.5-pro", ("supervised",), "The large one.", max_sequence_length=131_072),
    )
    secrets = ("service_account",)
    urls = {
        "base_url": "https://{location}-aiplatform.googleapis.com/v1",
        "storage_url": "https://storage.googleapis.com",
        "token_url": TOKEN_URL,
    }
    hosts = ("*.googleapis.com",)
    required = ("service_account", "location", "bucket")

    read_error = staticmethod(read_error)

    def auth(self, client: httpx.AsyncClient) -> httpx.Auth:
        text = self.account.secrets["service_account"]
        http = Http(
            client,
            self.capabilities.name,
            auth=None,
            pace=Pace(),
            secrets=(text,),
            read_refusal=self.read_refusal,
            allowed=self.allowed,
        )
        return ServiceAccountAuth(client, text, self.url("token_url"), http)

    def url(self, name: str) -> str:
        location = self.account.settings.get("location") or ""
        if name == "base_url":
            if not _LOCATION.fullmatch(location):
                raise UrlNotAllowed(f"location: {location[:60]!r} is none.", path=("location",))
            if location == "global" and not self.account.settings.get(name):
                return "https://aiplatform.googleapis.com/v1"
        return super().url(name)

    @cached_property
    def project(self) -> str:
        given = self.account.settings.get("project")
        return given or project_of(self.account.secrets["service_account"])

    async def _json(self, method: str, name: str, **request: Any) -> Any:
        """`name` of a resource, and maybe a verb."""
        url = f"{self.url('base_url')}/{quote(name, safe='/:@')}"
        return await self.http.json(method, url, **request)

    def _jobs(self) -> str:
        location = self.account.settings["location"]
        return f"projects/{self.project}/locations/{location}/tuningJobs"

    # Jobs

    async def upload(self, data: Data) -> str:
        """The same data has the same name, so that sent twice it is there once."""
        bucket = self.account.settings.get("bucket", "")
        name = f"luthier/{data.sha256}-{data.method}.jsonl"
        with tempfile.TemporaryFile() as converted:
            size = await asyncio.to_thread(convert, data, converted)
            await self.http.call(
                "POST",
                f"{self.url('storage_url')}/upload/storage/v1/b/{quote(bucket, safe='')}/o",
                params={"uploadType": "media", "name": name},
                content=Pieces(converted),
                headers={"content-type": "application/jsonl", "content-length": str(size)},
            )
        return f"gs://{bucket}/{name}"

    async def create(self, order: Order) -> Sighting:
        spec: dict[str, Any] = {"trainingDatasetUri": order.training}
        if order.validation:
            spec["validationDatasetUri"] = order.validation
        if order.method == "reinforcement":
            try:
                spec["singleRewardConfig"] = reward_config(order.grader or {})
            except CannotConvert as trouble:
                raise self._refused(
                    f"The grader is none of Google's: {trouble}.", "grader"
                ) from None
        if told := self._told(order):
            spec["hyperParameters"] = told
        body: dict[str, Any] = {
            **await self._base(order.base_model),
            SPECS[order.method]: spec,
            "labels": {LABEL: label_of(order.marker)},
        }
        if order.suffix:
            body["tunedModelDisplayName"] = order.suffix
        return self.sighting(await self._json("POST", self._jobs(), json=body, once=True))

    async def _base(self, name: str) -> dict[str, Any]:
        """A model of Google's, or one of ours, which is known by its endpoint."""
        if not name.startswith("projects/"):
            return {"baseModel": name}
        if _ENDPOINT.fullmatch(name):
            deployed = (await self._json("GET", name)).get("deployedModels") or [{}]
            name = deployed[0].get("model") or name
        return {"preTunedModel": {"tunedModelName": name}}

    def _told(self, order: Order) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for name, value in order.hyperparameters.items():
            if name not in self.capabilities.hyperparameters[order.method]:
                raise self._refused(f"Google Vertex AI cannot be told {name}.", name)
            if name == "lora_rank":
                if value not in ADAPTER_SIZES:
                    ranks = ", ".join(str(rank) for rank in ADAPTER_SIZES)
                    raise self._refused(f"lora_rank must be one of {ranks}.", name)
                value = ADAPTER_SIZES[value]
            told[THEIRS[name]] = value
        return told

    def _refused(self, message: str, param: str) -> ProviderRefused:
        return ProviderRefused(message, reason="INVALID_ARGUMENT", param=param)

    async def find(self, marker: str) -> Sighting | None:
        wanted = f'labels.{LABEL}="{label_of(marker)}"'
        try:
            rows = self._pages({"filter": wanted})
            return await self._first(rows, marker)
        except ProviderRefused:
            return await self._first(self._pages({}), marker)

    async def _first(self, rows: AsyncIterator[Any], marker: str) -> Sighting | None:
        """Whatever the filter let through."""
        async for row in rows:
            if (seen := self.sighting(row)).marker == marker:
                return seen
        return None

    async def listing(self, most: int) -> list[Sighting]:
        found: list[Sighting] = []
        async for row in self._pages({"pageSize": min(most, _PAGE)}):
            found.append(self.sighting(row))
            if len(found) == most:
                break
        return found

    async def _pages(self, asked: Mapping[str, Any]) -> AsyncIterator[Any]:
        parameters = {"pageSize": _PAGE, **asked}
        while True:
            page = await self._json("GET", self._jobs(), params=parameters)
            for row in page.get("tuningJobs") or []:
                yield row
            if not page.get("nextPageToken"):
                return
            parameters["pageToken"] = page["nextPageToken"]

    async def get(self, id: str) -> Sighting:
        return self.sighting(await self._json("GET", id))

    async def cancel(self, id: str) -> None:
        try:
            await self._json("POST", f"{id}:cancel", json={})
        except ProviderRefused:
            if (await self.get(id)).status not in OVER:
                raise

    async def news(self, job: Sighting, newest: str | None) -> list[Item]:
        items = [checkpoint(row) for row in job.extra.get("checkpoints", [])]
        if uri := job.extra.get("metrics"):
            items += await self._metrics(uri, newest)
        items.sort(key=lambda item: (item.step or 0, item.kind != "metrics"))
        if job.raw == PARTLY:
            words = "The job succeeded in part: some of its results are missing."
            items.append(Item("message", "partly", message=words, level="warn"))
        if dropped := job.extra.get("dropped"):
            words = f"{dropped} of the examples were dropped as too long or not valid."
            items.insert(0, Item("message", "dropped", message=words, level="warn"))
        return items

    async def _metrics(self, uri: str, newest: str | None) -> list[Item]:
        """No metrics are no reason for trouble: they may lie where this account may not read."""
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        objects = f"{self.url('storage_url')}/storage/v1/b/{quote(bucket, safe='')}/o"
        try:
            listed = await self.http.json("GET", objects, params={"prefix": prefix})
            files = [
                (await self.http.call(
                    "GET", f"{objects}/{quote(name, safe='')}", params={"alt": "media"}
                )).content
                for name in readable(listed.get("items") or [])
            ]  # fmt: skip
        except (ProviderDenied, ProviderMissing, ProviderRefused):
            return []
        return points(files, newest)

    def sighting(self, job: Mapping[str, Any]) -> Sighting:
        return sighting_of(job, self.http.clean)

    # Models

    async def deploy(self, placing: Placing) -> Placed:
        """Tuning has made the endpoint."""
        return await self.deployment(placing.model)

    async def deployment(self, reference: str) -> Placed:
        found = await self._json("GET", reference)
        ready = bool(found.get("deployedModels"))
        return Placed(reference, "ready" if ready else "stopped", reference)

    async def undeploy(self, reference: str) -> None:
        try:
            found = await self._json("GET", reference)
            for row in found.get("deployedModels") or []:
                asked = {"deployedModelId": row["id"]}
                await self._end(await self._json("POST", f"{reference}:undeployModel", json=asked))
            await self._json("DELETE", reference)
        except ProviderMissing:
            return

    async def _end(self, operation: Mapping[str, Any]) -> None:
        patience = Patience(_PATIENCE, "Google Vertex AI is still undeploying the model.")
        while not operation.get("done"):
            await patience.wait()
            operation = await self._json("GET", str(operation["name"]))
        if error := operation.get("error"):
            raise ProviderRefused(self.http.clean(str(error.get("message"))))

    @asynccontextmanager
    async def chat(self, target: str, asked: dict[str, Any]) -> AsyncIterator[Reply]:
        try:
            body = chat.question(asked)
        except CannotConvert as trouble:
            words = f"Gemini cannot be asked this: {trouble}."
            yield completions.refused(400, words, "invalid_request", "messages")
            return
        url = f"{self.url('base_url')}/{quote(target, safe='/@')}:generateContent"
        async with self.http.stream(url, body) as reply:
            told = await completions.whole(reply, self.capabilities.name)
        if reply.status < 400 and isinstance(told, dict):
            yield completions.answered(chat.answer(told, target), asked)
            return
        yield self._no(reply.status if reply.status >= 400 else 502, told)

    def _no(self, status: int, told: Any) -> Reply:
        code, message, param = read_error(status, told)
        words = self.http.clean(message) if message else f"Vertex AI answers with HTTP {status}."
        return completions.refused(status, words, code, param)
