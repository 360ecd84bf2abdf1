"""Together's dedicated endpoints (v2), and calls of the models on them.

An endpoint is a name that can be called; a deployment under it holds the replicas of a model, and
gets no requests until the endpoint's traffic is turned to it.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import httpx

from app.core.egress import Reply
from app.providers.base import Adapter, Placed, Placing
from app.providers.errors import ProviderBusy, ProviderExists, ProviderMissing, ProviderRefused
from app.providers.http import Bearer

_STATES = {
    "PROVISIONING": "starting",
    "SCALING": "starting",
    "DEGRADED": "starting",
    "READY": "ready",
    "FAILED": "failed",
    "STOPPING": "stopped",
    "STOPPED": "stopped",
}


class Dedicated(Adapter):
    def auth(self, client: httpx.AsyncClient) -> httpx.Auth:
        return Bearer(self.account.secrets["api_key"])

    def route(self, path: str) -> str:
        """The older SDKs' base URL ends with /v1, and people keep it."""
        return self.url("base_url").removesuffix("/v1") + path

    async def _json(self, method: str, path: str, **request: Any) -> Any:
        return await self.http.json(method, self.route(path), **request)

    def chat(self, target: str, asked: dict[str, Any]) -> AbstractAsyncContextManager[Reply]:
        return self.http.stream(self.route("/v1/chat/completions"), {**asked, "model": target})

    async def deploy(self, placing: Placing) -> Placed:
        """The traffic is turned to it by `deployment`, once it can take it."""
        told: dict[str, Any] = {
            "name": placing.name,
            "model": await self._resource(placing.model),
            "autoscaling": {"minReplicas": 1, "maxReplicas": 1},
        }
        if placing.hardware:
            told["config"] = self._config(placing.hardware)
        endpoint = await self._made("/endpoints", placing.name, {"name": placing.name})
        path = f"/endpoints/{endpoint['id']}/deployments"
        return await self._look(endpoint, await self._made(path, placing.name, told))

    async def deployment(self, reference: str) -> Placed:
        endpoint, path = await self._endpoint(reference)
        return await self._look(endpoint, await self._json("GET", path))

    async def undeploy(self, reference: str) -> None:
        id, _, _ = reference.partition("/")
        path = self._v2(f"/endpoints/{id}")
        with suppress(ProviderMissing):
            endpoint, deployment = await self._endpoint(reference)
            if endpoint.get("trafficSplit"):
                await self._json("PATCH", path, json={"trafficSplit": []})
            with suppress(ProviderMissing):
                await self._end(deployment)
            await self._json("DELETE", path)

    async def _end(self, path: str) -> None:
        none = {"autoscaling": {"minReplicas": 0, "maxReplicas": 0}}
        await self._json("PATCH", path, json=none)
        try:
            await self._json("DELETE", path)
        except (ProviderRefused, ProviderExists):
            if _state(await self._json("GET", path)) in ("STOPPED", "FAILED"):
                raise
            raise ProviderBusy("Together AI is still stopping the deployment.", 10.0) from None

    async def _look(self, endpoint: Mapping[str, Any], found: Mapping[str, Any]) -> Placed:
        state, status = _state(found), found.get("status") or {}
        ours = _STATES.get(state, "starting")
        if ours == "starting" and status.get("readyReplicas"):
            ours = "ready"  # it grows, or is ill, and answers meanwhile
        split = endpoint.get("trafficSplit") or []
        if ours == "ready" and not any(one["deploymentId"] == found["id"] for one in split):
            await self._json(
                "PATCH",
                self._v2(f"/endpoints/{endpoint['id']}"),
                json={"trafficSplit": [{"deploymentId": found["id"], "weight": 1}]},
            )
        message = self.http.clean(str(status.get("message") or state))
        return Placed(
            f"{endpoint['id']}/{found['id']}",
            ours,  # type: ignore[arg-type]
            self._target(str(endpoint["name"])),
            state,
            message if ours == "failed" else None,
        )

    def _target(self, name: str) -> str:
        """The endpoint's own name has the project's slug in front, as calls want it."""
        slug = self.account.settings.get("project_slug")
        return name if "/" in name or not slug else f"{slug}/{name}"

    async def _endpoint(self, reference: str) -> tuple[Mapping[str, Any], str]:
        """The endpoint, and the path of its deployment."""
        id, _, deployment = reference.partition("/")
        found = await self._json("GET", self._v2(f"/endpoints/{id}"))
        return found, self._v2(f"/endpoints/{id}/deployments/{deployment}")

    async def _made(self, path: str, name: str, told: dict[str, Any]) -> Mapping[str, Any]:
        """The one by this name, made if there is none."""
        found = await self._named(path, name)
        if found is None:
            try:
                made: dict[str, Any] = await self._json("POST", self._v2(path), json=told)
                return made
            except ProviderExists:
                found = await self._named(path, name)
                if found is None:
                    raise
        return found

    async def _resource(self, model: str) -> str:
        """The resource name of a model, which is made of ids."""
        if model.startswith("projects/"):
            return model
        found = await self._named("/models", model)
        # Of some base models a LoRA job leaves the adapter alone, under this name.
        found = found or await self._named("/models", f"{model}-adapter")
        if found is None:
            raise ProviderMissing(f"Together AI has no model {model} in this project.")
        project = found.get("projectId") or self._project()
        return f"projects/{project}/models/{found['id']}"

    async def _named(self, path: str, name: str) -> Mapping[str, Any] | None:
        bare = name.rpartition("/")[2]
        after: dict[str, Any] = {}
        while True:
            page = await self._json("GET", self._v2(path), params={"limit": 100, **after})
            for row in page.get("data") or []:
                if str(row.get("name")).rpartition("/")[2] == bare:
                    return dict(row)
            if not page.get("next_cursor"):
                return None
            after = {"after": page["next_cursor"]}

    def _config(self, hardware: str) -> str:
        """Which hardware serves a model is part of a config, by its id."""
        if hardware.startswith("projects/"):
            return hardware
        return f"projects/{self._project()}/configs/{hardware}"

    def _v2(self, path: str) -> str:
        return f"/v2/projects/{self._project()}{path}"

    def _project(self) -> str:
        project = self.account.settings.get("project")
        if not project:
            raise ProviderRefused(
                "Deploying at Together AI needs the setting 'project'.",
                reason="no_project",
                param="project",
            )
        return project


def _state(deployment: Mapping[str, Any]) -> str:
    state = (deployment.get("status") or {}).get("state")
    return str(state or "").removeprefix("DEPLOYMENT_STATE_")
