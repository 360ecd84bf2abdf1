"""A simulated Together's dedicated endpoints with deployments (v2), and the chat they answer.

Wire format: the SDK 3.1.1's types.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.simulators.answers import at_time, chat_answer, json_response
from app.simulators.runs import Plan
from app.simulators.together.old_endpoints import (
    HARDWARE,
    SLUG,
    MadeModel,
    OldEndpointsSimulator,
)

PROJECT = "proj_simulated"


@dataclass
class Deployment:
    id: str
    name: str
    model_id: str
    config: str
    autoscaling: dict[str, Any]
    created_at: float
    changed_at: float
    inactive_timeout: int = 0


@dataclass
class Endpoint:
    id: str
    name: str
    created_at: float
    visibility: str
    version: int = 1
    split: list[dict[str, Any]] = field(default_factory=list)
    deployments: dict[str, Deployment] = field(default_factory=dict)


class ServingSimulator(OldEndpointsSimulator):
    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.endpoints: dict[str, Endpoint] = {}

    def serving_routes(self) -> list[tuple[str, str, Any]]:
        project = "/v2/projects/{project}"
        one, many = f"{project}/endpoints/{{id}}", f"{project}/endpoints"
        deployment = f"{one}/deployments/{{deployment}}"
        return [
            ("GET", f"{project}/models", self.list_models),
            ("POST", many, self.create_endpoint),
            ("GET", many, self.list_endpoints),
            ("GET", one, self.get_endpoint),
            ("PATCH", one, self.update_endpoint),
            ("DELETE", one, self.delete_endpoint),
            ("POST", f"{one}/deployments", self.create_deployment),
            ("GET", f"{one}/deployments", self.list_deployments),
            ("GET", deployment, self.get_deployment),
            ("PATCH", deployment, self.update_deployment),
            ("DELETE", deployment, self.delete_deployment),
            ("POST", "/v1/chat/completions", self.chat),
        ]

    # Endpoints

    async def list_models(self, request: Request) -> Response:
        return self.page(request, [_model(model) for model in self.made()])

    async def create_endpoint(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        name = str(asked.get("name") or "").rpartition("/")[2]
        if not name:
            return self.refusal(400, "missing_field", "name is required.", "name")
        if any(endpoint.name == name for endpoint in self.endpoints.values()):
            return self.refusal(409, "already_exists", f"There is an endpoint {name}.", "name")
        visibility = asked.get("visibility") or "VISIBILITY_PRIVATE"
        made = Endpoint(self.id("ep_"), name, self.now(), visibility)
        self.endpoints[made.id] = made
        return json_response(self.endpoint_object(made))

    async def list_endpoints(self, request: Request) -> Response:
        rows = sorted(self.endpoints.values(), key=lambda one: -one.created_at)
        return self.page(request, [self.endpoint_object(one) for one in rows])

    async def get_endpoint(self, request: Request) -> Response:
        endpoint = self.endpoint_of(request)
        return (
            json_response(self.endpoint_object(endpoint)) if endpoint else self.nothing("endpoint")
        )

    async def update_endpoint(self, request: Request) -> Response:
        endpoint = self.endpoint_of(request)
        asked = orjson.loads(await request.body())
        if endpoint is None:
            return self.nothing("endpoint")
        if asked.get("etag") not in (None, _etag(endpoint)):
            return self.refusal(409, "aborted", "The endpoint has changed.", "etag")
        for entry in asked.get("trafficSplit") or []:
            if entry.get("deploymentId") not in endpoint.deployments:
                return self.refusal(400, "invalid_argument", "No such deployment.", "trafficSplit")
        if "trafficSplit" in asked:
            endpoint.split = [one for one in asked["trafficSplit"] if one.get("weight")]
        endpoint.visibility = asked.get("visibility") or endpoint.visibility
        endpoint.version += 1
        return json_response(self.endpoint_object(endpoint))

    async def delete_endpoint(self, request: Request) -> Response:
        endpoint = self.endpoint_of(request)
        if endpoint is None:
            return self.nothing("endpoint")
        if endpoint.deployments:
            return self.refusal(400, "failed_precondition", "Delete its deployments first.")
        del self.endpoints[endpoint.id]
        return json_response({})

    # Deployments

    async def create_deployment(self, request: Request) -> Response:
        endpoint = self.endpoint_of(request)
        asked = orjson.loads(await request.body())
        if endpoint is None:
            return self.nothing("endpoint")
        for name in ("name", "autoscaling", "model"):
            if not asked.get(name):
                return self.refusal(400, "missing_field", f"{name} is required.", name)
        timeout = asked.get("inactiveTimeout") or 0
        if timeout and not 30 <= timeout <= 1440:
            return self.refusal(400, "invalid_argument", "0 or 30 to 1440.", "inactiveTimeout")
        if any(one.name == asked["name"] for one in endpoint.deployments.values()):
            return self.refusal(409, "already_exists", "There is such a deployment.", "name")
        parts = str(asked["model"]).split("/")
        known = {model.id for model in self.made()}
        if len(parts) < 4 or parts[::2][:2] != ["projects", "models"] or parts[3] not in known:
            return self.refusal(404, "not_found", f"There is no model {asked['model']}.", "model")
        made = Deployment(
            self.id("dep_"),
            asked["name"],
            parts[3],
            asked.get("config") or f"projects/{PROJECT}/configs/cr_simulated",
            dict(asked["autoscaling"]),
            self.now(),
            self.now(),
            timeout,
        )
        endpoint.deployments[made.id] = made
        return json_response(self.deployment_object(endpoint, made))

    async def list_deployments(self, request: Request) -> Response:
        endpoint = self.endpoint_of(request)
        if endpoint is None:
            return self.nothing("endpoint")
        rows = [self.deployment_object(endpoint, one) for one in endpoint.deployments.values()]
        return self.page(request, rows)

    async def get_deployment(self, request: Request) -> Response:
        endpoint, deployment = self.deployment_of(request)
        if endpoint is None or deployment is None:
            return self.nothing("deployment")
        return json_response(self.deployment_object(endpoint, deployment))

    async def update_deployment(self, request: Request) -> Response:
        endpoint, deployment = self.deployment_of(request)
        asked = orjson.loads(await request.body())
        if endpoint is None or deployment is None:
            return self.nothing("deployment")
        if scaling := asked.get("autoscaling"):
            before = _stopped(deployment)
            deployment.autoscaling |= scaling
            if _stopped(deployment) != before:
                deployment.changed_at = self.now()
        return json_response(self.deployment_object(endpoint, deployment))

    async def delete_deployment(self, request: Request) -> Response:
        endpoint, deployment = self.deployment_of(request)
        if endpoint is None or deployment is None:
            return self.nothing("deployment")
        if any(one["deploymentId"] == deployment.id for one in endpoint.split):
            return self.refusal(400, "failed_precondition", "It still has traffic.")
        if self.state_of_deployment(deployment) not in ("STOPPED", "FAILED"):
            return self.refusal(400, "failed_precondition", "It has not stopped yet.")
        del endpoint.deployments[deployment.id]
        return json_response({})

    def state_of_deployment(self, one: Deployment) -> str:
        passed = self.now() - one.changed_at
        if _stopped(one):
            return "STOPPING" if passed < self.plan.stopping else "STOPPED"
        return "PROVISIONING" if passed < self.plan.queued else "READY"

    def endpoint_of(self, request: Request) -> Endpoint | None:
        return self.endpoints.get(request.path_params["id"])

    def deployment_of(self, request: Request) -> tuple[Endpoint | None, Deployment | None]:
        endpoint = self.endpoint_of(request)
        found = endpoint.deployments.get(request.path_params["deployment"]) if endpoint else None
        return endpoint, found

    def deployment_object(self, endpoint: Endpoint, one: Deployment) -> dict[str, Any]:
        state = self.state_of_deployment(one)
        ready = int(one.autoscaling.get("minReplicas") or 1) if state == "READY" else 0
        model = f"projects/{PROJECT}/models/{one.model_id}/revisions/rv_simulated"
        return {
            "id": one.id,
            "name": f"{SLUG}/{endpoint.name}/{one.name}",
            "endpointId": endpoint.id,
            "projectId": PROJECT,
            "model": model,
            "modelId": one.model_id,
            "modelRevisionId": "rv_simulated",
            "config": one.config,
            "configId": one.config.rpartition("/")[2],
            "hardware": HARDWARE,
            "autoscaling": one.autoscaling,
            "inactiveTimeout": one.inactive_timeout,
            "trafficMode": "TRAFFIC_MODE_LIVE",
            "desiredReplicas": 0 if _stopped(one) else 1,
            "status": {
                "state": f"DEPLOYMENT_STATE_{state}",
                "message": f"The deployment is {state.lower()}.",
                "readyReplicas": ready,
                "scheduledReplicas": ready,
            },
            "etag": f'"{one.changed_at}"',
            "createdAt": at_time(one.created_at),
            "updatedAt": at_time(one.changed_at),
        }

    def endpoint_object(self, endpoint: Endpoint) -> dict[str, Any]:
        names = ("id", "name", "model", "modelId", "autoscaling", "createdAt", "trafficMode")
        summaries = []
        for deployment in endpoint.deployments.values():
            whole = self.deployment_object(endpoint, deployment)
            routed = any(one["deploymentId"] == deployment.id for one in endpoint.split)
            summaries.append(
                {name: whole[name] for name in names}
                | {
                    "state": whole["status"]["state"],
                    "readyReplicas": whole["status"]["readyReplicas"],
                    "estimatedEffectiveTrafficShare": 1 / len(endpoint.split) if routed else 0,
                }
            )
        return {
            "id": endpoint.id,
            "name": f"{SLUG}/{endpoint.name}",
            "projectId": PROJECT,
            "endpointType": "ENDPOINT_TYPE_DEDICATED",
            "visibility": endpoint.visibility,
            "deployments": summaries,
            "trafficSplit": endpoint.split,
            "etag": _etag(endpoint),
            "createdAt": at_time(endpoint.created_at),
            "updatedAt": at_time(endpoint.created_at),
        }

    # Chat

    def serves(self, name: str) -> str | None:
        """The model behind a name that can be called now."""
        if old := self.old_serves(name):
            return old
        models = {model.id: model.name for model in self.made()}
        for endpoint in self.endpoints.values():
            split = {one["deploymentId"] for one in endpoint.split}
            for one in endpoint.deployments.values():
                whole = f"{SLUG}/{endpoint.name}"
                meant = name == f"{whole}/{one.name}" or (name == whole and one.id in split)
                if meant and self.state_of_deployment(one) == "READY":
                    return models.get(one.model_id)
        return None

    async def chat(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        name = str(asked.get("model"))
        model = self.serves(name)
        if model is None or model in self.cheats.expired_models:
            return self.refusal(
                404, "model_not_available", f"The model {name} cannot be called.", "model"
            )
        return chat_answer(asked, name, int(self.now()))

    def page(self, request: Request, rows: list[dict[str, Any]]) -> Response:
        """A cursor is the place of the next row."""
        limit = int(request.query_params.get("limit", 50))
        start = int(request.query_params.get("after") or 0)
        more = str(start + limit) if start + limit < len(rows) else None
        return json_response({"data": rows[start : start + limit], "next_cursor": more})


def _etag(endpoint: Endpoint) -> str:
    return f'"{endpoint.version}"'


def _stopped(one: Deployment) -> bool:
    return one.autoscaling.get("maxReplicas") == 0


def _model(model: MadeModel) -> dict[str, Any]:
    return {
        "id": model.id,
        "name": model.name,
        "organizationId": "org_simulated",
        "projectId": PROJECT,
        "visibility": "VISIBILITY_PRIVATE",
        "weights": {"type": "WEIGHTS_TYPE_ADAPTER" if model.adapter else "WEIGHTS_TYPE_DEFAULT"},
        "baseModel": f"projects/proj_together/models/{model.base}",
        "baseModelId": model.base,
    }
