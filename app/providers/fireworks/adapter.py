"""Fireworks AI's tuning jobs, datasets and deployments.

Wire format: the types of fireworks-ai 1.2.28, which are made from its OpenAPI description. Names
are full paths (`accounts/a/models/m`), verbs follow a colon, errors are gRPC's.
"""

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx

from app.core.egress import Reply
from app.providers.base import (
    OVER,
    Adapter,
    Capabilities,
    Data,
    Item,
    Listed,
    Order,
    Placed,
    Placing,
    Result,
    Sighting,
    Status,
)
from app.providers.cases import Pieces
from app.providers.errors import (
    ProviderDenied,
    ProviderExists,
    ProviderMissing,
    ProviderRefused,
)
from app.providers.fireworks.files import convert, is_csv, job_id, points_of
from app.providers.fireworks.jobs import (
    GONE,
    GRPC,
    ID_PARAMETER,
    KINDS,
    TOLD,
    body_of,
    checkpoint_of,
    sighting,
)
from app.providers.fireworks.offers import OFFERS, PUBLIC
from app.providers.http import Bearer
from app.providers.patience import Patience

_PAGE = 200

_DEPLOYMENTS = {"READY": "ready", "UPDATING": "ready", "FAILED": "failed"} | dict.fromkeys(
    ("DELETING", "DELETED"), "stopped"
)


class Fireworks(Adapter):
    capabilities = Capabilities(
        provider="fireworks",
        name="Fireworks AI",
        methods=("supervised", "dpo"),
        hyperparameters={
            "supervised": frozenset(TOLD),
            "dpo": frozenset(TOLD) | {"beta"},
        },
        # Only Fireworks itself pauses, for example when an account is suspended.
        pause=False,
        resume=True,
        messages="status changes",
        metrics="the job's metrics file",
        checkpoints=True,
        webhooks=None,
        deployment="dedicated",
        repeatable_create=True,
        longest_suffix=40,
    )
    offers = OFFERS
    urls = {"base_url": "https://api.fireworks.ai"}
    hosts = ("api.fireworks.ai",)
    required = ("api_key", "account")

    largest_direct = 150_000_000
    """Bytes; more goes to the storage behind it, by a signed URL."""
    patience = 600.0
    """Seconds that a dataset or a promoted model may take to be ready."""

    def auth(self, client: httpx.AsyncClient) -> httpx.Auth:
        return Bearer(self.account.secrets["api_key"])

    @staticmethod
    def read_error(status: int, body: Any) -> tuple[str | None, str | None, str | None]:
        """gRPC's shape; the inference API has OpenAI's."""
        if not isinstance(body, dict) or isinstance(body.get("error"), dict):
            return Adapter.read_error(status, body)
        code = body.get("code")
        if isinstance(code, int):
            code = GRPC.get(code, str(code))
        return code, body.get("message") or body.get("error"), None

    @property
    def home(self) -> str:
        """The account's full name."""
        id = self.account.settings["account"].strip().removeprefix("accounts/")
        return f"accounts/{quote(id, safe='')}"

    async def _ask(self, method: str, name: str, **request: Any) -> Any:
        """By full name, with a verb behind it if there is one."""
        return await self.http.json(method, f"{self.url('base_url')}/v1/{name}", **request)

    # Data

    async def upload(self, data: Data) -> str:
        id = f"luthier-{data.sha256[:40]}"
        name = f"{self.home}/datasets/{id}"
        with tempfile.TemporaryFile() as file:
            count = await asyncio.to_thread(convert, data, file)
            about = {"userUploaded": {}, "exampleCount": str(count), "displayName": id}
            if data.method != "dpo":  # there is no word for pairs among the formats
                about["format"] = "CHAT"
            body = {"datasetId": id, "dataset": about}
            try:
                await self._ask("POST", f"{self.home}/datasets", json=body)
            except ProviderExists:
                # The name says the content. But maybe it never came.
                if (await self._ask("GET", name)).get("state") == "READY":
                    return name
            await self._send(name, file)
        await self._until_ready(name)
        return name

    async def _send(self, name: str, file: IO[bytes]) -> None:
        size, filename = file.tell(), "data.jsonl"
        file.seek(0)
        if size <= self.largest_direct:
            files = {"file": (filename, file, "application/jsonl")}
            await self._ask("POST", f"{name}:upload", files=files)
            return
        asked = {"filenameToSize": {filename: str(size)}}
        answer = await self._ask("POST", f"{name}:getUploadEndpoint", json=asked)
        url = str((answer.get("filenameToSignedUrls") or {}).get(filename) or "")
        headers = {"content-type": "application/octet-stream", "content-length": str(size)}
        # Google's storage wants exactly the headers that were signed, and the URL names them.
        signed = parse_qs(urlsplit(url).query).get("X-Goog-SignedHeaders", [""])[0]
        if "x-goog-content-length-range" in signed.split(";"):
            headers["x-goog-content-length-range"] = f"{size},{size}"
        await self.http.signed("PUT", url, content=Pieces(file), headers=headers)
        await self._ask("POST", f"{name}:validateUpload", json={})

    async def _until_ready(self, name: str) -> None:
        patience = Patience(self.patience, f"Fireworks AI still has not made {name} ready.")
        while True:
            with suppress(ProviderMissing):  # a model is promoted before it exists
                found = await self._ask("GET", name)
                if found.get("state") == "READY":
                    return
                status = found.get("status") or {}
                if status.get("code") not in (None, "", "OK", 0):
                    words = self.http.clean(str(status.get("message") or status["code"]))
                    raise ProviderRefused(words, reason=str(status["code"]))
            await patience.wait()

    # Jobs

    async def create(self, order: Order) -> Sighting:
        kind = KINDS.get(order.method)
        if kind is None:
            raise self.unsupported(f"train by the method {order.method!r}")
        id, body = job_id(order.marker), body_of(order, await self._start(order.base_model))
        where = f"{self.home}/{kind}"
        try:
            made = await self._ask(
                "POST", where, params={ID_PARAMETER[kind]: id}, json=body, once=True
            )
        except ProviderExists as exists:
            try:
                return await self.get(f"{kind}/{id}")
            except ProviderMissing:  # something else of this name, such as the tuned model
                raise exists from None
        return self._seen(made)

    def _seen(self, job: Mapping[str, Any]) -> Sighting:
        return sighting(job, self.home, self.http.clean)

    async def _start(self, base_model: str) -> dict[str, str]:
        """A model of our own may be an adapter: its training goes on."""
        name = self._full(base_model)
        if name.startswith(f"{self.home}/models/"):
            found = await self._ask("GET", name)
            if str(found.get("kind", "")).endswith("PEFT_ADDON"):
                return {"warmStartFrom": name}
        return {"baseModel": name}

    @staticmethod
    def _full(model: str) -> str:
        return model if model.startswith("accounts/") else f"{PUBLIC}/models/{model}"

    async def find(self, marker: str) -> Sighting | None:
        for kind in KINDS.values():
            with suppress(ProviderMissing):
                return await self.get(f"{kind}/{job_id(marker)}")
        return None

    async def listing(self, most: int) -> list[Sighting]:
        found: list[Sighting] = []
        for kind in KINDS.values():
            rows = await self._rows(f"{self.home}/{kind}", kind, most, orderBy="create_time desc")
            found += [self._seen(row) for row in rows if row.get("state") not in GONE]
        never = datetime.fromtimestamp(0, UTC)
        found.sort(key=lambda one: one.created_at or never, reverse=True)
        return found[:most]

    async def get(self, id: str) -> Sighting:
        job = await self._ask("GET", f"{self.home}/{id}")
        if job.get("state") in GONE:
            raise ProviderMissing("Fireworks AI says: this job is being deleted.")
        return self._seen(job)

    async def cancel(self, id: str) -> None:
        await self._tell(id, "cancel", OVER)

    async def resume(self, id: str) -> None:
        await self._tell(id, "resume", OVER | {Status.QUEUED, Status.RUNNING})

    async def _tell(self, id: str, verb: str, enough: frozenset[Status]) -> None:
        """A refusal is none where the job is already where it should be."""
        try:
            await self._ask("POST", f"{self.home}/{id}:{verb}", json={})
        except ProviderRefused:
            if (await self.get(id)).status not in enough:
                raise

    # What happened

    async def news(self, job: Sighting, newest: str | None) -> list[Item]:
        if job.status not in OVER | {Status.RUNNING, Status.PAUSED}:
            return []
        told = (newest or "").removeprefix("metrics:")
        after = int(told) if newest != told and told.isdigit() else -1
        content = await self._metrics(job)
        items = [item for item in points_of(content or b"") if (item.step or 0) > after]
        # No checkpoints may be a refusal, for jobs from before there were any. Whether the job
        # itself is gone, `get` says.
        with suppress(ProviderMissing, ProviderRefused):
            saved = await self._rows(f"{self.home}/{job.id}/checkpoints", "checkpoints", 1000)
            items += [checkpoint for row in saved if (checkpoint := checkpoint_of(row))]
        # Of one step the values come first.
        return sorted(items, key=lambda item: (item.step is None, item.step, item.kind[0] != "m"))

    async def results(self, job: Sighting) -> list[Result]:
        content = await self._metrics(job)
        if not content:
            return []
        return [Result("metrics.csv" if is_csv(content) else "metrics.jsonl", content)]

    async def _metrics(self, job: Sighting) -> bytes | None:
        """The metrics file, if there is one yet. Its URL ends after a while; then it is asked for
        again."""
        url = job.extra.get("metrics_url")
        for _ in range(2):
            url = url or await self._metrics_url(job)
            if not url:
                break
            try:
                return (await self.http.signed("GET", url)).content
            except (ProviderDenied, ProviderMissing, ProviderRefused):
                url = None  # of one that has ended, Google's storage says 400
        return None

    async def _metrics_url(self, job: Sighting) -> str | None:
        if job.method == "supervised":
            found: str | None = (await self.get(job.id)).extra["metrics_url"]
            return found
        try:
            answer = await self._ask("GET", f"{self.home}/{job.id}:getMetricsFileEndpoint")
        except ProviderMissing:
            return None
        return answer.get("signedUrl") or None

    async def _rows(
        self, name: str, plural: str, most: int, **parameters: str
    ) -> list[Mapping[str, Any]]:
        """Of a list, page by page."""
        rows: list[Mapping[str, Any]] = []
        asked: dict[str, Any] = {**parameters, "pageSize": min(_PAGE, most)}
        while len(rows) < most:
            page = await self._ask("GET", name, params=asked)
            rows += page.get(plural) or []
            if not page.get("nextPageToken"):
                break
            asked["pageToken"] = page["nextPageToken"]
        return rows[:most]

    # Models

    async def models(self) -> list[Listed]:
        """The account's and Fireworks' own. `deprecationDate` says when one is served no longer
        without a deployment, which is not the end of tuning it."""
        accounts = dict.fromkeys((self.home, PUBLIC))
        return [
            Listed(str(row["name"]))
            for account in accounts
            for row in await self._rows(f"{account}/models", "models", 10_000)
        ]

    async def deploy(self, placing: Placing) -> Placed:
        model = placing.model
        if "/checkpoints/" in model:
            model = await self._promoted(placing)
        body: dict[str, Any] = {
            "baseModel": self._full(model),
            "displayName": placing.name,
            # It costs by the second: with nobody asking it goes to sleep.
            "minReplicaCount": 0,
            "maxReplicaCount": 1,
        }
        shape = {"acceleratorType": placing.hardware} if placing.hardware else {}
        body |= shape or {"deploymentShape": "default"}
        try:
            made = await self._ask(
                "POST",
                f"{self.home}/deployments",
                params={"deploymentId": placing.name},
                json=body,
            )
        except ProviderExists:
            return await self.deployment(placing.name)
        return self._placed(made)

    async def _promoted(self, placing: Placing) -> str:
        """A checkpoint can be deployed only as a model; the one that is made of it has the name of
        the deployment."""
        model = f"{self.home}/models/{placing.name}"
        try:
            await self._ask("GET", model)
        except ProviderMissing:
            job = placing.model.split("/checkpoints/")[0].removeprefix(f"{self.home}/")
            base = placing.base_model or (await self.get(job)).base_model
            body = {
                "output_model": model,
                "base_model": self._full(base),
                "async_promotion": True,
            }
            with suppress(ProviderExists):
                await self._ask("POST", f"{placing.model}:promote", json=body)
        await self._until_ready(model)
        return model

    async def deployment(self, reference: str) -> Placed:
        return self._placed(await self._ask("GET", f"{self.home}/deployments/{reference}"))

    def _placed(self, found: Mapping[str, Any]) -> Placed:
        name, raw = str(found["name"]), str(found.get("state", ""))
        status, words = (
            _DEPLOYMENTS.get(raw, "starting"),
            (found.get("status") or {}).get("message"),
        )
        return Placed(
            name.rsplit("/", 1)[-1],
            status,  # type: ignore[arg-type]
            f"{found['baseModel']}#{name}",
            raw,
            self.http.clean(str(words or raw)) if status == "failed" else None,
        )

    async def undeploy(self, reference: str) -> None:
        with suppress(ProviderMissing):
            await self._ask(
                "DELETE",
                f"{self.home}/deployments/{reference}",
                params={"ignoreChecks": "true"},
            )

    def chat(self, target: str, asked: dict[str, Any]) -> AbstractAsyncContextManager[Reply]:
        url = f"{self.url('base_url')}/inference/v1/chat/completions"
        return self.http.stream(url, {**asked, "model": target})
