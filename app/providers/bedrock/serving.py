"""Models of Bedrock that can be called: on demand, or with throughput that is reserved."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from app.core.egress import Reply
from app.providers import completions
from app.providers.base import Placed, Placing
from app.providers.bedrock import chat
from app.providers.bedrock.names import token
from app.providers.bedrock.service import MOST_ROWS, Service
from app.providers.errors import (
    ProviderBusy,
    ProviderExists,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
)


@dataclass(frozen=True)
class _Way:
    """A way to make a model callable, and what its routes call things."""

    path: str
    list_path: str
    arn: str
    name: str
    rows: str
    row_name: str


_ON_DEMAND = _Way(
    "/model-customization/custom-model-deployments",
    "/model-customization/custom-model-deployments",
    "customModelDeploymentArn",
    "modelDeploymentName",
    "modelDeploymentSummaries",
    "customModelDeploymentName",
)
_PROVISIONED = _Way(
    "/provisioned-model-throughput",
    "/provisioned-model-throughputs",
    "provisionedModelArn",
    "provisionedModelName",
    "provisionedModelSummaries",
    "provisionedModelName",
)
_ON_DEMAND_FAMILIES = ("amazon.nova-",)
_PLACED = {"Creating": "starting", "Active": "ready", "InService": "ready", "Updating": "ready",
           "Failed": "failed"}  # fmt: skip


class Serving(Service):
    async def deploy(self, placing: Placing) -> Placed:
        way = _ON_DEMAND if await self._is_on_demand(placing) else _PROVISIONED
        body: dict[str, Any] = {
            way.name: placing.name,
            "clientRequestToken": token(placing.name),
        }
        if way is _ON_DEMAND:
            body["modelArn"] = placing.model
        else:
            body |= {"modelId": placing.model, "modelUnits": self._units() or 1}
        try:
            reference = (await self._control("POST", way.path, json=body))[way.arn]
        except ProviderExists:
            rows = await self._pages(
                way.list_path, way.rows, {"nameContains": placing.name}, MOST_ROWS
            )
            named = [row[way.arn] for row in rows if row.get(way.row_name) == placing.name]
            if not named:
                raise
            reference = named[0]
        return Placed(str(reference), "starting", str(reference), "Creating")

    async def deployment(self, reference: str) -> Placed:
        found = await self._control("GET", self._deployed(reference))
        raw, told = str(found.get("status", "")), found.get("failureMessage")
        return Placed(
            reference,
            _PLACED.get(raw, "starting"),  # type: ignore[arg-type]
            reference,
            raw,
            self.http.clean(str(told)) if told else None,
        )

    async def undeploy(self, reference: str) -> None:
        try:
            await self._control("DELETE", self._deployed(reference))
        except ProviderMissing:
            pass
        except ProviderExists as conflict:  # it is being made, and cannot be deleted until it is
            raise ProviderBusy(str(conflict), 30) from conflict

    def _deployed(self, reference: str) -> str:
        way = _PROVISIONED if ":provisioned-model/" in reference else _ON_DEMAND
        return f"{way.path}/{quote(reference, safe='')}"

    def _units(self) -> int | None:
        """Reserved throughput, which is paid by the hour, if that is wanted."""
        given = self.account.settings.get("model_units") or ""
        if given and not (given.isdecimal() and int(given)):
            raise ProviderRefused("model_units must be a whole number.", param="model_units")
        return int(given) if given else None

    async def _is_on_demand(self, placing: Placing) -> bool:
        if self._units():
            return False
        base = placing.base_model
        if not base:
            found = await self._control("GET", f"/custom-models/{quote(placing.model, safe='')}")
            base = str(found.get("baseModelArn", ""))
        return any(family in base for family in _ON_DEMAND_FAMILIES)

    @asynccontextmanager
    async def chat(self, target: str, asked: dict[str, Any]) -> AsyncIterator[Reply]:
        url = f"{self.url('runtime_url')}/model/{quote(target, safe='')}/converse"
        async with self.http.stream(url, chat.question(asked)) as reply:
            said = await completions.whole(reply, self.capabilities.name)
        told = said if isinstance(said, dict) else {}
        if reply.status != 200:
            words = str(told.get("message") or told.get("Message") or "No reason was given.")
            yield completions.refused(reply.status, self.http.clean(words))
        elif not isinstance(told.get("output"), dict):
            raise ProviderUnreachable(f"{self.capabilities.name} answered with no message.")
        else:
            # Their stream is binary, and another route.
            yield completions.answered(chat.answer(told, target), asked)
