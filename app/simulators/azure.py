"""A simulated Azure OpenAI: both data planes, the resource manager and Entra's tokens, on one
socket.

The data planes are `/openai/v1`, and `/openai` with an `api-version`, whose answers have other
words, errors of another shape, and no nulls. It trains nothing.
"""

import re
import uuid
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.simulators.answers import chat_answer, json_response
from app.simulators.openai.files import StoredFile
from app.simulators.openai.simulator import MODELS, Job, OpenAISimulator
from app.simulators.runs import Phase, Plan, Run

_SUFFIX = re.compile(r"[0-9A-Za-z_-]{1,40}")
_CLASSIC_WORDS = {"validating_files": "created", "queued": "pending"}
_CLASSIC_NAMES = {"organization_id": "organisation_id", "user_provided_suffix": "suffix"}
_CLASSIC_CODES = {
    400: "invalidPayload",
    401: "unauthorized",
    403: "forbidden",
    404: "notFound",
    409: "conflict",
    429: "tooManyRequests",
    500: "internalFailure",
    503: "serviceUnavailable",
}
_TRAINING_TYPES = frozenset({None, "standard", "globalstandard", "developertier"})


@dataclass
class Deployment:
    name: str
    model: str
    sku: dict[str, Any]
    created_at: float
    failure: str | None = None
    """The state that it ends in instead of Succeeded."""


class AzureSimulator(OpenAISimulator):
    """Files are processed after `processing` seconds, deployments ready after `provisioning`."""

    name = "azure"
    base = "/openai/v1"
    key_prefix = "azure-"
    endpoint_word = "webhook.endpoint"

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.processing, self.provisioning, self.token_seconds = 0.1, 0.2, 3599
        self.moving = 0.1
        """How long a job is pausing, and resuming."""
        self.bad_files = False
        self.tokens: dict[str, float] = {}
        self.deployments: dict[str, Deployment] = {}

    def routes(self) -> list[Route]:
        jobs, chat = "/fine_tuning/jobs", "/deployments/{name}/chat/completions"
        account = (
            "/subscriptions/{subscription}/resourceGroups/{group}"
            "/providers/Microsoft.CognitiveServices/accounts/{account}/deployments"
        )
        classic: list[tuple[str, str, Any]] = [
            *(row for row in super().table() if "webhook" not in row[1]),
            ("DELETE", f"{jobs}/{{id}}", self.delete_job),
            ("POST", chat, self.chat),
        ]
        managed: list[tuple[str, str, Any]] = [
            ("GET", account, self.list_deployments),
            ("PUT", account + "/{name}", self.put_deployment),
            ("GET", account + "/{name}", self.get_deployment),
            ("DELETE", account + "/{name}", self.delete_deployment),
        ]
        return [
            *super().routes(),
            *(Route("/openai" + path, self.classic_door(do), methods=[verb])
              for verb, path, do in classic),
            *(Route(path, self.managed_door(do), methods=[verb]) for verb, path, do in managed),
            Route("/{tenant}/oauth2/v2.0/token", self.token, methods=["POST"]),
        ]  # fmt: skip

    def table(self) -> list[tuple[str, str, Any]]:
        return [
            (verb, f"/dashboard{path}" if path.startswith("/webhook") else path, do)
            for verb, path, do in super().table()
        ]

    # The doors

    def admits(self, request: Request) -> bool:
        """v1 takes the key as a bearer too."""
        return request.headers.get("api-key", "").startswith(self.key_prefix) or (
            super().admits(request)
        )

    def door(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            if not self.admits(request):
                words = "Access denied due to invalid subscription key or wrong API endpoint."
                return json_response({"error": {"code": "401", "message": words}}, 401)
            response: Response = await handler(request)
            response.headers["apim-request-id"] = str(uuid.uuid4())
            return response

        return answer

    def classic_door(self, handler: Any) -> Any:
        inner = self.door(handler)

        async def answer(request: Request) -> Response:
            if not request.query_params.get("api-version"):
                return json_response(
                    {"error": {"code": "404", "message": "Resource not found"}}, 404
                )
            response: Response = await inner(request)
            if response.media_type != "application/json" or not response.body:
                return response
            told = orjson.loads(bytes(response.body))
            created = request.method == "POST" and request.url.path.endswith(
                ("/fine_tuning/jobs", "/files")
            )
            status = 201 if created and response.status_code == 200 else response.status_code
            made = json_response(self.classic(told, status), status)
            if status == 201:
                made.headers["location"] = f"{request.url.replace(query='')}/{told['id']}"
            return made

        return answer

    def managed_door(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self.tokens.get(token, 0) <= self.now():
                return _managed(
                    401, "InvalidAuthenticationToken", "The access token is invalid or has expired."
                )
            if not request.query_params.get("api-version"):
                return _managed(
                    400, "MissingApiVersionParameter", "The api-version query parameter is missing."
                )
            response: Response = await handler(request)
            return response

        return answer

    def classic(self, told: Any, status: int) -> Any:
        """As the older surface says the same."""
        if isinstance(told, list):
            return [self.classic(one, status) for one in told]
        if not isinstance(told, dict):
            return told
        if status >= 400:
            error = told["error"]
            code = _CLASSIC_CODES.get(status, error.get("code"))
            if error.get("code") in ("quotaExceeded", "contentFilter", "unexpectedEntityState"):
                code = error["code"]
            shown = {"code": code, "message": error["message"], "target": error.get("param")}
            return {"error": {name: value for name, value in shown.items() if value}}
        found = {
            _CLASSIC_NAMES.get(name, name): self.classic(value, status)
            for name, value in told.items()
            if value is not None
        }
        if found.get("n_epochs") == "auto":
            found["n_epochs"] = -1
        if found.get("level") == "warn":
            found["level"] = "warning"
        if found.get("object") == "fine_tuning.job":
            run = self.runs[found["id"]]
            word = _CLASSIC_WORDS.get(found["status"], found["status"])
            recent = self.now() - run.entered_at < self.moving
            if recent and word == "paused":
                word = "pausing"
            if word == "pending" and Phase.PAUSED in dict(run.history):
                word = "resuming"
            found["status"] = word
        return found

    # Files and jobs

    def file_object(self, file: StoredFile) -> dict[str, Any]:
        """It is looked at before it can be used."""
        age, told = self.now() - file.created_at, super().file_object(file)
        if file.purpose != "fine-tune" or age >= self.processing:
            if self.bad_files:
                return {**told, "status": "error", "status_details": "Line 1 is not valid JSON."}
            return told
        return {**told, "status": "pending" if age < self.processing / 2 else "running"}

    async def create(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        suffix = asked.get("suffix")
        if suffix is not None and not _SUFFIX.fullmatch(suffix):
            return self.refusal(400, "invalidPayload", "The suffix is malformed.", "suffix")
        if str(asked.get("trainingType") or "standard").lower() not in _TRAINING_TYPES:
            return self.refusal(400, "invalidPayload", "No such training type.", "trainingType")
        for name in ("training_file", "validation_file"):
            file = self.files.get(asked.get(name) or "")
            if file and self.file_object(file)["status"] != "processed":
                return self.refusal(
                    400, "invalidPayload", f"The file {file.id} is not processed yet.", name
                )
        return await super().create(request)

    def begin(self, asked: dict[str, Any]) -> Job:
        """Metadata are not kept."""
        return super().begin({name: asked[name] for name in asked if name != "metadata"})

    async def list_jobs(self, request: Request) -> Response:
        """No filter."""
        rows = [self.job_object(self.jobs[run.id]) for run in self.newest()]
        return self.page(request, rows, 20)

    async def delete_job(self, request: Request) -> Response:
        job = self.job_of(request)
        if job is None:
            return self.nothing("fine-tuning job")
        del self.runs[job.run.id]
        return Response(status_code=204)

    def tunable(self, model: str) -> bool:
        return model in MODELS or ".ft-" in model

    def model_name(self, job: Job, step: int | None = None) -> str:
        base = job.asked["model"].split(".ft-")[0]
        name = f"{base}.ft-{job.run.id[6:38]}{f'-{job.suffix}' if job.suffix else ''}"
        return f"{name}:ckpt-step-{step}" if step else name

    def checkpoint(self, job: Job, step: int) -> dict[str, Any]:
        return {**super().checkpoint(job, step), "id": f"ftchkpt-{job.run.id[6:14]}{step}"}

    def result(self, run: Run) -> tuple[str, bytes]:
        names = (
            "step,train_loss,train_mean_token_accuracy,valid_loss,"
            "validation_mean_token_accuracy,full_valid_loss,full_valid_mean_token_accuracy"
        )
        lines = []
        for p in run.points:
            validation = [p.validation_loss, p.validation_accuracy] * 2
            row = [p.step, p.training_loss, p.training_accuracy, *validation]
            lines.append(",".join("" if cell is None else str(cell) for cell in row))
        return "results.csv", "\n".join([names, *lines, ""]).encode()

    # Models, deployments, chat

    def model_object(self, id: str, owner: str, ends: str | None) -> dict[str, Any]:
        told = super().model_object(id, owner, None)
        del told["shutdown_date"]
        return {**told, "deprecation": {"inference": 1_800_000_000 if ends else None}}

    async def delete_model(self, request: Request) -> Response:
        if any(one.model == request.path_params["id"] for one in self.deployments.values()):
            return self.refusal(409, "conflict", "The model has deployments.", "model")
        return await super().delete_model(request)

    async def chat(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        name = request.path_params.get("name") or str(asked.get("model"))
        found = self.deployments.get(name)
        ready = found and self.state(found) == "Succeeded" and self.answers(found.model)
        if found is None or not ready:
            return self.refusal(
                404,
                "DeploymentNotFound",
                "The API deployment for this resource does not exist. If you created the "
                "deployment within the last 5 minutes, please wait a moment and try again.",
            )
        return chat_answer(asked, found.model, int(self.now()))

    def state(self, deployment: Deployment) -> str:
        age = self.now() - deployment.created_at
        if age < self.provisioning:
            return "Accepted" if age < self.provisioning / 2 else "Creating"
        return deployment.failure or "Succeeded"

    def deployment_object(self, request: Request, deployment: Deployment) -> dict[str, Any]:
        parent = request.url.path.partition("/deployments")[0]
        return {
            "id": f"{parent}/deployments/{deployment.name}",
            "type": "Microsoft.CognitiveServices/accounts/deployments",
            "name": deployment.name,
            "sku": deployment.sku,
            "properties": {
                "model": {"format": "OpenAI", "name": deployment.model, "version": "1"},
                "versionUpgradeOption": "OnceNewDefaultVersionAvailable",
                "provisioningState": self.state(deployment),
            },
        }

    async def list_deployments(self, request: Request) -> Response:
        rows = [self.deployment_object(request, one) for one in self.deployments.values()]
        return json_response({"value": rows})

    async def put_deployment(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        model = asked["properties"]["model"]["name"]
        if model not in self.made() and model not in MODELS:
            return _managed(
                400, "DeploymentModelNotSupported", f"The model {model} cannot be deployed."
            )
        if any(self.state(one) in ("Accepted", "Creating") for one in self.deployments.values()):
            return _managed(
                409, "RequestConflict", "Another operation is being performed on the account."
            )
        name = request.path_params["name"]
        known = name in self.deployments
        made = Deployment(name, model, asked["sku"], self.now())
        self.deployments[name] = made
        return json_response(self.deployment_object(request, made), 200 if known else 201)

    async def get_deployment(self, request: Request) -> Response:
        found = self.deployments.get(request.path_params["name"])
        if found is None:
            return _managed(404, "DeploymentNotFound", "The deployment was not found.")
        return json_response(self.deployment_object(request, found))

    async def delete_deployment(self, request: Request) -> Response:
        gone = self.deployments.pop(request.path_params["name"], None)
        return Response(status_code=200 if gone else 204)

    async def token(self, request: Request) -> Response:
        form = await request.form()
        wanted = {
            "grant_type": "client_credentials",
            "scope": "https://management.azure.com/.default",
        }
        if any(form.get(name) != value for name, value in wanted.items()):
            return json_response(
                {
                    "error": "invalid_request",
                    "error_description": "AADSTS90014: a field is missing.",
                },
                400,
            )
        if not str(form.get("client_secret", "")).startswith(self.key_prefix):
            words = f"AADSTS7000215: Invalid client secret provided for {form.get('client_id')}."
            return json_response({"error": "invalid_client", "error_description": words}, 401)
        token = self.id("eyJ0eXAi.")
        self.tokens[token] = self.now() + self.token_seconds
        return json_response(
            {
                "token_type": "Bearer",
                "expires_in": self.token_seconds,
                "ext_expires_in": self.token_seconds,
                "access_token": token,
            }
        )


def _managed(status: int, code: str, message: str) -> Response:
    """A refusal of the resource manager's."""
    return json_response({"error": {"code": code, "message": message, "details": []}}, status)
