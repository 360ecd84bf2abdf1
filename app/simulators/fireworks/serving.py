"""The serving half of the simulated Fireworks: models, deployments, loaded adapters, chat."""

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.simulators.answers import chat_answer, json_response
from app.simulators.fireworks.base import ACCOUNT, BASES, PUBLIC, FireworksBase, when
from app.simulators.runs import Plan


@dataclass
class Model:
    """One that was made here."""

    name: str
    base: str
    job: str
    created_at: float
    ready_at: float
    rank: int = 8


@dataclass
class Deployment:
    name: str
    asked: dict[str, Any]
    created_at: float
    ready_at: float
    replicas: int
    asked_at: float | None = None
    """When it last answered: in use, it is not deleted without force."""


@dataclass
class Loaded:
    name: str
    model: str
    deployment: str
    default: bool
    created_at: float
    public: bool = False


class FireworksServing(FireworksBase):
    starting = 0.2
    """Seconds until a deployment answers."""

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.deployments: dict[str, Deployment] = {}
        self.loaded: dict[str, Loaded] = {}
        self.promoted: dict[str, Model] = {}
        self.deleted_models: set[str] = set()

    def tuned(self) -> dict[str, Model]:
        """What the jobs have made, by full name."""
        raise NotImplementedError

    def table(self) -> list[tuple[str, str, Any]]:
        deployments, loaded = f"{ACCOUNT}/deployments", f"{ACCOUNT}/deployedModels"
        return [
            ("GET", f"{ACCOUNT}/models", self.list_models),
            ("GET", f"{ACCOUNT}/models/{{id}}", self.get_model),
            ("DELETE", f"{ACCOUNT}/models/{{id}}", self.delete_model),
            ("POST", deployments, self.deploy),
            ("GET", deployments, self.list_deployments),
            ("PATCH", f"{deployments}/{{id}}:scale", self.scale),
            ("GET", f"{deployments}/{{id}}", self.get_deployment),
            ("DELETE", f"{deployments}/{{id}}", self.delete_deployment),
            ("POST", loaded, self.load),
            ("GET", loaded, self.list_loaded),
            ("GET", f"{loaded}/{{id}}", self.get_loaded),
            ("DELETE", f"{loaded}/{{id}}", self.unload),
            ("POST", "/inference/v1/chat/completions", self.chat),
            ("POST", "/v1/chat/completions", self.chat),
        ]

    # Models

    def made(self) -> dict[str, Model]:
        gone = {*self.deleted_models, *self.cheats.expired_models}
        every = {**self.tuned(), **self.promoted}
        return {name: model for name, model in every.items() if name not in gone}

    def bases(self) -> list[str]:
        return [name for name in BASES if name not in self.cheats.expired_models]

    def known(self, name: str) -> bool:
        """Whether it can be tuned or deployed."""
        model = self.made().get(name)
        return name in self.bases() or (model is not None and model.ready_at <= self.now())

    def base_object(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "displayName": BASES[name],
            "kind": "HF_BASE_MODEL",
            "state": "READY",
            "status": {"code": "OK", "message": ""},
            "public": True,
            "contextLength": 131072,
            "tunable": True,
            "supportsLora": True,
            "supportsServerless": False,
            "createTime": "2024-07-23T00:00:00Z",
        }

    def model_object(self, model: Model) -> dict[str, Any]:
        ready = model.ready_at <= self.now()
        return {
            "name": model.name,
            "displayName": "",
            "kind": "HF_PEFT_ADDON",
            "state": "READY" if ready else "UPLOADING",
            "status": {"code": "OK", "message": ""},
            "public": False,
            "tunable": True,
            "supportsLora": True,
            "fineTuningJob": model.job,
            "peftDetails": {
                "baseModel": model.base,
                "r": model.rank,
                "targetModules": ["q_proj", "k_proj", "v_proj", "o_proj"],
            },
            "createTime": when(model.created_at),
        }

    async def list_models(self, request: Request) -> Response:
        if request.path_params["account"] == PUBLIC:
            return self.page(request, "models", [self.base_object(name) for name in self.bases()])
        return self.page(request, "models", [self.model_object(m) for m in self.made().values()])

    async def get_model(self, request: Request) -> Response:
        name = f"accounts/{request.path_params['account']}/models/{request.path_params['id']}"
        if name in self.bases():
            return json_response(self.base_object(name))
        model = self.made().get(name)
        return json_response(self.model_object(model)) if model else self.nothing("such model")

    async def delete_model(self, request: Request) -> Response:
        name = self.full("models", request.path_params["id"])
        if name not in self.made():
            return self.nothing("such model")
        self.deleted_models.add(name)
        return json_response({})

    # Deployments

    async def deploy(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        id = request.query_params.get("deploymentId") or self.id("")[:8]
        name = self.full("deployments", id)
        if wrong := self.wrong_id(id, "A deployment's id"):
            return wrong
        if name in self.deployments:
            return self.no("ALREADY_EXISTS", f"There is a deployment {name}.")
        if not self.known(str(asked.get("baseModel"))):
            return self.no("INVALID_ARGUMENT", f"baseModel {asked.get('baseModel')} is not ready.")
        if not (asked.get("deploymentShape") or asked.get("acceleratorType")):
            return self.no("INVALID_ARGUMENT", "deploymentShape or acceleratorType is required.")
        most = asked.get("maxReplicaCount", max(1, asked.get("minReplicaCount", 0)))
        now = self.now()
        made = Deployment(name, asked, now, now + self.starting, min(1, most))
        self.deployments[name] = made
        return json_response(self.deployment_object(made))

    def deployment_of(self, request: Request) -> Deployment | None:
        return self.deployments.get(self.full("deployments", request.path_params["id"]))

    def ready(self, deployment: Deployment | None) -> bool:
        return deployment is not None and deployment.ready_at <= self.now()

    def deployment_object(self, deployment: Deployment) -> dict[str, Any]:
        ready, asked = self.ready(deployment), deployment.asked
        return {
            "name": deployment.name,
            "displayName": asked.get("displayName", ""),
            "baseModel": asked["baseModel"],
            "state": "READY" if ready else "CREATING",
            "status": {"code": "OK", "message": ""},
            "minReplicaCount": asked.get("minReplicaCount", 0),
            "maxReplicaCount": asked.get("maxReplicaCount", 1),
            "desiredReplicaCount": deployment.replicas,
            "replicaCount": deployment.replicas if ready else 0,
            "replicaStats": {"readyReplicaCount": deployment.replicas if ready else 0},
            "deploymentShape": asked.get("deploymentShape", ""),
            "acceleratorType": asked.get("acceleratorType", "NVIDIA_H100_80GB"),
            "acceleratorCount": asked.get("acceleratorCount", 1),
            "enableAddons": asked.get("enableAddons", False),
            "createTime": when(deployment.created_at),
            "updateTime": when(deployment.ready_at if ready else deployment.created_at),
        }

    async def list_deployments(self, request: Request) -> Response:
        rows = [self.deployment_object(one) for one in self.deployments.values()]
        return self.page(request, "deployments", rows)

    async def get_deployment(self, request: Request) -> Response:
        found = self.deployment_of(request)
        return json_response(self.deployment_object(found)) if found else self.nothing("deployment")

    async def scale(self, request: Request) -> Response:
        found = self.deployment_of(request)
        if found is None:
            return self.nothing("deployment")
        found.replicas = int(orjson.loads(await request.body()).get("replicaCount", 0))
        return json_response({})

    async def delete_deployment(self, request: Request) -> Response:
        found = self.deployment_of(request)
        if found is None:
            return self.nothing("deployment")
        used = found.asked_at is not None and self.now() - found.asked_at < 3600
        used = used or any(one.deployment == found.name for one in self.loaded.values())
        if used and request.query_params.get("ignoreChecks") != "true":
            return self.no("FAILED_PRECONDITION", "The deployment is in use.")
        del self.deployments[found.name]
        for one in [one for one in self.loaded.values() if one.deployment == found.name]:
            del self.loaded[one.name]
        return json_response({})

    # Adapters loaded on a deployment of their base model

    async def load(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        model = self.made().get(str(asked.get("model")))
        if model is None:
            return self.nothing("such model")
        deployment = self.deployments.get(self.full("deployments", str(asked.get("deployment"))))
        if deployment is None:
            return self.nothing("such deployment")
        if not deployment.asked.get("enableAddons"):
            return self.no("FAILED_PRECONDITION", "The deployment has enableAddons false.")
        if deployment.asked["baseModel"] != model.base:
            return self.no("INVALID_ARGUMENT", f"The deployment is not of {model.base}.")
        name = self.full("deployedModels", f"{model.name.rsplit('/', 1)[-1]}-{self.id('')[:6]}")
        made = Loaded(name, model.name, deployment.name, bool(asked.get("default")), self.now())
        self.loaded[name] = made
        return json_response(self.loaded_object(made))

    def loaded_object(self, one: Loaded) -> dict[str, Any]:
        settled = self.now() - one.created_at >= self.settling
        return {
            "name": one.name,
            "model": one.model,
            "deployment": one.deployment,
            "default": one.default,
            "public": one.public,
            "serverless": False,
            "state": "DEPLOYED" if settled else "DEPLOYING",
            "status": {"code": "OK", "message": ""},
            "createTime": when(one.created_at),
        }

    async def list_loaded(self, request: Request) -> Response:
        rows = [self.loaded_object(one) for one in self.loaded.values()]
        return self.page(request, "deployedModels", rows)

    async def get_loaded(self, request: Request) -> Response:
        found = self.loaded.get(self.full("deployedModels", request.path_params["id"]))
        return json_response(self.loaded_object(found)) if found else self.nothing("deployed model")

    async def unload(self, request: Request) -> Response:
        if self.loaded.pop(self.full("deployedModels", request.path_params["id"]), None) is None:
            return self.nothing("deployed model")
        return json_response({})

    # Chat

    def answering(self, name: str) -> Deployment | None:
        """The ready deployment that a model's name means, if any."""
        model, _, where = name.partition("#")
        if not where and "/deployments/" in model:
            model, where = "", model
        for one in self.deployments.values():
            if not self.ready(one) or (where and one.name != where):
                continue
            if where and model in ("", one.asked["baseModel"]):
                return one
            loaded = [row for row in self.loaded.values() if row.deployment == one.name]
            if any(row.model == model and (where or row.default) for row in loaded):
                return one
        return None

    async def chat(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        name = str(asked.get("model"))
        deployment = self.answering(name)
        if deployment is None or name.partition("#")[0] in self.cheats.expired_models:
            message = f"Model {name} was not found, or is not deployed."
            error = {"object": "error", "type": "invalid_request_error", "code": "NOT_FOUND"}
            return json_response({"error": {**error, "message": message}}, 404)
        deployment.asked_at = self.now()
        return chat_answer(asked, name, int(self.now()))
