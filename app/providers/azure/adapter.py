"""Azure OpenAI: OpenAI's API under other names, and models that must be deployed to be called.

Wire format: Azure's v1 and classic (2024-10-21, 2025-04-01-preview) data planes and its resource
manager, as their documents of 2026 describe them. Jobs take no metadata: our marker is in `suffix`.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import date
from typing import Any
from urllib.parse import quote

import httpx

from app.core.egress import Reply
from app.providers.azure.access import ApiKey, Entra
from app.providers.azure.suffixes import marked, marker_in
from app.providers.base import (
    Account,
    Capabilities,
    Data,
    Listed,
    Offer,
    Order,
    Placed,
    Placing,
    Price,
    Sighting,
    Status,
)
from app.providers.errors import (
    ProviderBusy,
    ProviderDenied,
    ProviderExists,
    ProviderMissing,
    ProviderRefused,
)
from app.providers.http import Http, Pace
from app.providers.openai.adapter import OpenAI
from app.providers.openai.jobs import HYPERPARAMETERS, STATUSES
from app.providers.patience import Patience
from app.providers.urls import Allowed
from app.providers.values import day, moment_of_seconds

_FILE_WAIT = 600.0
_FILE_FAILED = frozenset({"error", "deleting", "deleted"})

_ARM_VERSION = "2024-10-01"
_ARM_SCOPE = "https://management.azure.com/.default"
_ARM_NEEDS = ("subscription", "resource_group", "account", "tenant_id", "client_id")
_ARM_STATES = {
    "Accepted": "starting",
    "Creating": "starting",
    "Moving": "starting",
    "Succeeded": "ready",
    "Deleting": "stopped",
    "Failed": "failed",
    "Canceled": "failed",
    "Disabled": "failed",
}

_COST_PAGE = "Azure's cost page of 2026-03-19, where the numbers are called examples"


class Azure(OpenAI):
    """`base_url` is the resource's endpoint. With the setting `api_version` the classic surface is
    used, else v1. Deploying needs what `_ARM_NEEDS` lists and the secret `client_secret`."""

    capabilities = Capabilities(
        provider="azure",
        name="Azure OpenAI",
        methods=("supervised", "dpo", "reinforcement"),
        hyperparameters=HYPERPARAMETERS,
        pause=True,
        resume=True,
        messages="events",
        metrics="events, checkpoints and the result file",
        checkpoints=True,
        webhooks="signed",
        deployment="dedicated",
        repeatable_create=False,
        longest_suffix=10,  # beside a marker of 21 characters that was started again 99 times
        needs_validation_data=("reinforcement",),
    )
    offers = (
        Offer(
            "gpt-4.1-2025-04-14",
            ("supervised", "dpo"),
            "The large model for supervised and preference tuning.",
            price=Price(2.0, date(2026, 3, 19), _COST_PAGE),
        ),
        Offer("gpt-4.1-mini-2025-04-14", ("supervised", "dpo"), "The middle one."),
        Offer("gpt-4.1-nano-2025-04-14", ("supervised", "dpo"), "The small one."),
        Offer("gpt-4o-2024-08-06", ("supervised", "dpo"), "The generation before."),
        Offer("gpt-4o-mini-2024-07-18", ("supervised",), "The small one of the generation before."),
        Offer("o4-mini-2025-04-16", ("reinforcement",), "A reasoning model, for graders."),
        Offer("gpt-oss-20b", ("supervised",), "OpenAI's open model."),
        Offer("Ministral-3B", ("supervised",), "Mistral's small model."),
        Offer("Qwen-32B", ("supervised",), "Alibaba's model."),
        Offer("Llama-3.3-70B-Instruct", ("supervised",), "Meta's model."),
    )
    secrets = ("api_key", "client_secret")
    urls = {
        "base_url": "https://{resource}.openai.azure.com",
        "arm_url": "https://management.azure.com",
        "login_url": "https://login.microsoftonline.com",
    }
    hosts = (
        "*.openai.azure.com",
        "*.services.ai.azure.com",
        "management.azure.com",
        "login.microsoftonline.com",
    )
    required = ("api_key", "resource")

    statuses = STATUSES | {
        "created": Status.PENDING,
        "pending": Status.PENDING,
        "pausing": Status.RUNNING,
        "resuming": Status.QUEUED,
    }

    def __init__(
        self,
        account: Account,
        client: httpx.AsyncClient,
        allowed: Allowed,
        pace: Pace | None = None,
    ) -> None:
        pace = pace or Pace()
        super().__init__(account, client, allowed, pace)
        shared: dict[str, Any] = {
            "pace": pace,
            "secrets": tuple(account.secrets.values()),
            "read_refusal": self.read_refusal,
            "allowed": allowed,
        }
        login = Http(client, "Microsoft Entra", auth=None, **shared)
        form = {
            "grant_type": "client_credentials",
            "client_id": self.setting("client_id"),
            "client_secret": account.secrets.get("client_secret", ""),
            "scope": _ARM_SCOPE,
        }
        entra = Entra(login, self._token_url, form)
        self.arm = Http(client, "Azure's resource manager", auth=entra, **shared)

    def setting(self, name: str) -> str:
        return self.account.settings.get(name) or ""

    async def check(self) -> None:
        await super().check()
        if self.account.secrets.get("client_secret"):
            await self._deployments("GET")

    # Where the dialect differs

    def auth(self, client: httpx.AsyncClient) -> httpx.Auth:
        return ApiKey(self.account.secrets["api_key"])

    def route(self, path: str) -> str:
        base = self.url("base_url").removesuffix("/v1").removesuffix("/openai")
        return f"{base}{'/openai' if self.setting('api_version') else '/openai/v1'}{path}"

    def parameters(self) -> dict[str, str]:
        version = self.setting("api_version")
        return {"api-version": version} if version else {}

    @staticmethod
    def read_error(status: int, body: Any) -> tuple[str | None, str | None, str | None]:
        """OpenAI's shape, the classic one, the resource manager's and Entra's."""
        error = body.get("error") if isinstance(body, dict) else None
        if isinstance(error, str):
            return error, body.get("error_description"), None
        if not isinstance(error, dict):
            return None, None, None
        message = error.get("message")
        details = [
            str(one["message"])
            for one in error.get("details") or []
            if isinstance(one, dict) and one.get("message") and one["message"] != message
        ]
        words = " ".join([*([str(message)] if message else []), *details[:3]])
        code = error.get("code") or error.get("type")
        return code and str(code), words or None, error.get("param") or error.get("target")

    def marked(self, order: Order) -> dict[str, Any]:
        return {"suffix": marked(order.marker, order.suffix)}

    def marker_of(self, job: Mapping[str, Any]) -> str | None:
        """From the suffix; where that is not shown, from the model's name, which ends with it."""
        return marker_in(_suffix(job)) or marker_in(str(job.get("fine_tuned_model") or ""))

    def sighting(self, job: Mapping[str, Any]) -> Sighting:
        seen = super().sighting(job)
        if seen.marker is None or seen.suffix is None:
            return seen
        return replace(seen, suffix=seen.suffix.rpartition("-")[0] or None)

    # Jobs

    def content(self, data: Data) -> bytes:
        """Azure wants the byte order mark."""
        return b"\xef\xbb\xbf" + super().content(data).removeprefix(b"\xef\xbb\xbf")

    async def upload(self, data: Data) -> str:
        id = await super().upload(data)
        overdue = f"Azure OpenAI has not processed an uploaded file within {_FILE_WAIT:.0f} s."
        patience = Patience(_FILE_WAIT, overdue)
        while True:
            file = await self._json("GET", f"/files/{id}")
            status = file.get("status", "processed")
            if status == "processed":
                return id
            if status in _FILE_FAILED:
                why = file.get("status_details") or self.read_error(0, file)[1] or status
                raise ProviderRefused(self.http.clean(str(why)), reason="file_refused")
            await patience.wait()

    async def create(self, order: Order) -> Sighting:
        return replace(await super().create(order), marker=order.marker)

    def body(self, order: Order) -> dict[str, Any]:
        if self.setting("api_version") and order.method == "reinforcement":
            raise self.unsupported("tune with graders through its classic surface")
        kind = self.setting("training_type")
        return {**super().body(order), **({"trainingType": kind} if kind else {})}

    async def find(self, marker: str) -> Sighting | None:
        """Its list knows no filter."""
        return next((one for one in await self.listing(1000) if one.marker == marker), None)

    async def pause(self, id: str) -> None:
        try:
            await super().pause(id)
        except (ProviderRefused, ProviderExists):
            if (await self.get(id)).raw != "pausing":
                raise

    # Models

    async def models(self) -> list[Listed]:
        """A model's end may be told as `deprecation.inference`, in seconds."""
        found = await self._json("GET", "/models")
        return [Listed(str(row["id"]), _end_of(row)) for row in found.get("data", [])]

    async def deploy(self, placing: Placing) -> Placed:
        try:
            # Asked again it would begin again: the one that there is comes first.
            return await self.deployment(placing.name)
        except ProviderMissing:
            pass
        capacity = self.setting("capacity") or "1"
        if not capacity.isdecimal():
            raise ProviderRefused("capacity must be a whole number.", param="capacity")
        sku = placing.hardware or self.setting("sku") or "Standard"
        body = {
            "sku": {"name": sku, "capacity": int(capacity)},
            "properties": {"model": {"format": "OpenAI", "name": placing.model, "version": "1"}},
        }
        try:
            return self._placed(placing.name, await self._deployments("PUT", placing.name, body))
        except ProviderExists as trouble:
            # The account takes one such request at a time.
            raise ProviderBusy(str(trouble), 30.0) from trouble

    async def deployment(self, reference: str) -> Placed:
        return self._placed(reference, await self._deployments("GET", reference))

    async def undeploy(self, reference: str) -> None:
        try:
            await self._deployments("DELETE", reference)
        except ProviderMissing:
            pass
        except ProviderExists as trouble:
            raise ProviderBusy(str(trouble), 30.0) from trouble

    async def _deployments(self, method: str, name: str = "", body: Any = None) -> Any:
        """Ask about one, or without a name for the list."""
        missing = [one for one in _ARM_NEEDS if not self.setting(one)]
        if not self.account.secrets.get("client_secret"):
            missing.append("client_secret")
        if missing:
            raise ProviderDenied(
                "Azure OpenAI makes a model callable through its resource manager, and for that "
                f"the credential lacks {', '.join(missing)}."
            )
        names = [self.setting(one) for one in ("subscription", "resource_group", "account")]
        subscription, group, account, name = (quote(one, safe="") for one in [*names, name])
        url = (
            f"{self.url('arm_url')}/subscriptions/{subscription}/resourceGroups/{group}"
            f"/providers/Microsoft.CognitiveServices/accounts/{account}/deployments"
        )
        if name:
            url += f"/{name}"
        request: dict[str, Any] = {"params": {"api-version": _ARM_VERSION}}
        if body is not None:
            request["json"] = body
        return await self.arm.json(method, url, **request)

    def _placed(self, name: str, told: Mapping[str, Any]) -> Placed:
        raw = str((told.get("properties") or {}).get("provisioningState", ""))
        status: Any = _ARM_STATES.get(raw, "starting")
        error = f"The deployment is {raw}." if status == "failed" else None
        return Placed(name, status, name, raw, error)

    def _token_url(self) -> str:
        tenant = quote(self.setting("tenant_id"), safe="")
        return f"{self.url('login_url')}/{tenant}/oauth2/v2.0/token"

    def chat(self, target: str, asked: dict[str, Any]) -> AbstractAsyncContextManager[Reply]:
        version = self.setting("api_version")
        if not version:
            return super().chat(target, asked)
        path = f"/deployments/{quote(target, safe='')}/chat/completions"
        url = f"{self.route(path)}?api-version={quote(version, safe='')}"
        return self.http.stream(url, {**asked, "model": target})


def _end_of(model: Mapping[str, Any]) -> date | None:
    told = moment_of_seconds((model.get("deprecation") or {}).get("inference"))
    return day(model.get("shutdown_date")) or (told.date() if told else None)


def _suffix(job: Mapping[str, Any]) -> str:
    return str(job.get("user_provided_suffix") or job.get("suffix") or "")
