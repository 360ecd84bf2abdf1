"""The models of the simulated Bedrock, their deployments, and what they say."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.simulators.answers import at_time, json_response
from app.simulators.bedrock.base import (
    FOUNDATION,
    MODELS,
    OWN,
    BedrockBase,
    Job,
    Refused,
    invalid,
    missing,
)
from app.simulators.bedrock.cases import check_turns
from app.simulators.cases import count_tokens
from app.simulators.runs import Phase, Plan, Run


@dataclass
class Deployment:
    arn: str
    name: str
    job: Job
    created_at: float
    units: int | None
    asked: dict[str, Any] = field(default_factory=dict)


class Serving(BedrockBase):
    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.deployments: dict[str, Deployment] = {}
        self.deleted_models: set[str] = set()
        self.activating = 0.2
        """Seconds until a deployment can be called."""

    def serving_routes(self) -> list[tuple[str, str, Any]]:
        deployments = "/model-customization/custom-model-deployments"
        throughput = "/provisioned-model-throughput"
        return [
            ("GET", "/custom-models", self.list_models),
            ("GET", "/custom-models/{id:path}", self.get_model),
            ("DELETE", "/custom-models/{id:path}", self.delete_model),
            ("GET", "/foundation-models", self.foundation_models),
            ("POST", deployments, self.deploy_on_demand),
            ("GET", deployments, self.list_on_demand),
            ("GET", f"{deployments}/{{id:path}}", self.get_deployment),
            ("DELETE", f"{deployments}/{{id:path}}", self.delete_deployment),
            ("POST", throughput, self.provision),
            ("GET", f"{throughput}s", self.list_provisioned),
            ("GET", f"{throughput}/{{id:path}}", self.get_deployment),
            ("DELETE", f"{throughput}/{{id:path}}", self.delete_deployment),
            ("POST", "/model/{id:path}/converse", self.converse),
        ]

    # Models

    async def foundation_models(self, request: Request) -> Response:
        rows = []
        for id, (provider, name, ends) in MODELS.items():
            if id in self.cheats.expired_models:
                continue
            life = {"status": "ACTIVE"}
            if ends:
                life = {"status": "LEGACY", "endOfLifeTime": f"{ends}T00:00:00Z"}
            rows.append(
                {
                    "modelArn": FOUNDATION + id,
                    "modelId": id,
                    "modelName": name,
                    "providerName": provider,
                    "inputModalities": ["TEXT"],
                    "outputModalities": ["TEXT"],
                    "responseStreamingSupported": True,
                    "customizationsSupported": ["FINE_TUNING"],
                    "inferenceTypesSupported": ["PROVISIONED"],
                    "modelLifecycle": life,
                }
            )
        if request.query_params.get("byCustomizationType", "FINE_TUNING") != "FINE_TUNING":
            rows = []
        return json_response({"modelSummaries": rows})

    def made(self) -> dict[str, Job]:
        """The tuned models there are, by ARN."""
        gone = {*self.deleted_models, *self.cheats.expired_models}
        done = [self.jobs[run.id] for run in self.newest() if run.phase is Phase.SUCCEEDED]
        return {job.model_arn: job for job in done if job.model_arn not in gone}

    def model_of(self, id: Any) -> Job:
        """By its ARN or its name."""
        for arn, job in self.made().items():
            if id in (arn, job.asked["customModelName"]):
                return job
        raise missing("The provided model identifier does not exist.")

    async def list_models(self, request: Request) -> Response:
        rows = [
            {
                "modelArn": arn,
                "modelName": job.asked["customModelName"],
                "creationTime": at_time(job.run.entered_at),
                "baseModelArn": FOUNDATION + job.base_model,
                "baseModelName": MODELS[job.base_model][1],
                "customizationType": "FINE_TUNING",
                "modelStatus": "Active",
            }
            for arn, job in self.made().items()
        ]
        return self.page(request, "modelSummaries", rows)

    async def get_model(self, request: Request) -> Response:
        job = self.model_of(request.path_params["id"])
        return json_response(
            {
                "modelArn": job.model_arn,
                "modelName": job.asked["customModelName"],
                "jobName": job.asked["jobName"],
                "jobArn": job.run.id,
                "baseModelArn": FOUNDATION + job.base_model,
                "customizationType": "FINE_TUNING",
                "hyperParameters": job.asked["hyperParameters"],
                "trainingDataConfig": job.asked["trainingDataConfig"],
                "outputDataConfig": job.asked["outputDataConfig"],
                "creationTime": at_time(job.run.entered_at),
                "modelStatus": "Active",
                **final(job.run),
            }
        )

    async def delete_model(self, request: Request) -> Response:
        self.deleted_models.add(self.model_of(request.path_params["id"]).model_arn)
        return json_response({})

    # Deployments

    async def deploy_on_demand(self, request: Request) -> Response:
        asked = await self.asked(request, "modelDeploymentName", "modelArn")
        before = self.repeated(asked, self.deployments.values())
        if before is None:
            job = self.model_of(asked["modelArn"])
            if not job.base_model.startswith("amazon.nova-"):
                raise invalid("The model does not support on-demand inference.")
            arn = f"{OWN}custom-model-deployment/{self.id('')[:12]}"
            before = self._place(arn, asked["modelDeploymentName"], job, None, asked)
        return json_response({"customModelDeploymentArn": before.arn}, 202)

    async def provision(self, request: Request) -> Response:
        asked = await self.asked(request, "provisionedModelName", "modelId", "modelUnits")
        before = self.repeated(asked, self.deployments.values())
        if before is None:
            job = self.model_of(asked["modelId"])
            arn = f"{OWN}provisioned-model/{self.id('')[:12]}"
            before = self._place(
                arn, asked["provisionedModelName"], job, int(asked["modelUnits"]), asked
            )
        return json_response({"provisionedModelArn": before.arn}, 201)

    def _place(
        self, arn: str, name: str, job: Job, units: int | None, asked: dict[str, Any]
    ) -> Deployment:
        for other in self.deployments.values():
            if other.name == name and (other.units is None) == (units is None):
                raise Refused(400, "ConflictException", f"The name {name} is already in use.")
        made = self.deployments[arn] = Deployment(arn, name, job, self.now(), units, asked)
        return made

    def deployment_of(self, id: str) -> Deployment:
        for arn, made in self.deployments.items():
            if id in (arn, made.name):
                return made
        raise missing("There is no such deployment.")

    def active(self, made: Deployment) -> bool:
        return self.now() >= made.created_at + self.activating

    def deployment_object(self, made: Deployment) -> dict[str, Any]:
        at = at_time(made.created_at)
        if made.units is None:
            return {
                "customModelDeploymentArn": made.arn,
                "modelDeploymentName": made.name,
                "modelArn": made.job.model_arn,
                "createdAt": at,
                "status": "Active" if self.active(made) else "Creating",
                "lastUpdatedAt": at,
            }
        return {
            "modelUnits": made.units,
            "desiredModelUnits": made.units,
            "provisionedModelName": made.name,
            "provisionedModelArn": made.arn,
            "modelArn": made.job.model_arn,
            "desiredModelArn": made.job.model_arn,
            "foundationModelArn": FOUNDATION + made.job.base_model,
            "status": "InService" if self.active(made) else "Creating",
            "creationTime": at,
            "lastModifiedTime": at,
        }

    async def get_deployment(self, request: Request) -> Response:
        made = self.deployment_of(request.path_params["id"])
        return json_response(self.deployment_object(made))

    async def delete_deployment(self, request: Request) -> Response:
        made = self.deployment_of(request.path_params["id"])
        if not self.active(made):
            raise Refused(400, "ConflictException", "It is being created.")
        del self.deployments[made.arn]
        return json_response({})

    async def list_on_demand(self, request: Request) -> Response:
        rows = self._deployments(request, provisioned=False)
        for row in rows:
            row["customModelDeploymentName"] = row.pop("modelDeploymentName")
        return self.page(request, "modelDeploymentSummaries", rows)

    async def list_provisioned(self, request: Request) -> Response:
        rows = self._deployments(request, provisioned=True)
        return self.page(request, "provisionedModelSummaries", rows)

    def _deployments(self, request: Request, provisioned: bool) -> list[dict[str, Any]]:
        part = request.query_params.get("nameContains", "")
        return [
            self.deployment_object(made)
            for made in reversed(self.deployments.values())
            if (made.units is not None) == provisioned and part in made.name
        ]

    async def converse(self, request: Request) -> Response:
        id, asked = request.path_params["id"], await self.asked(request, "messages")
        if id not in MODELS:
            made = self.deployment_of(id)
            if not self.active(made):
                raise Refused(429, "ModelNotReadyException", "The model is not ready.")
            self.model_of(made.job.model_arn)
        if id in self.cheats.expired_models:
            raise missing("This model version has reached the end of its life.")
        if wrong := check_turns(asked["messages"], parts=True, last="user"):
            raise invalid(f"A conversation is wrong: {wrong}.")
        last = "".join(part.get("text", "") for part in asked["messages"][-1]["content"])
        words = f"(simulated {id}) {last}"
        read, written = count_tokens(asked["messages"]), len(words) // 4
        return json_response(
            {
                "output": {"message": {"role": "assistant", "content": [{"text": words}]}},
                "stopReason": "end_turn",
                "usage": {
                    "inputTokens": read,
                    "outputTokens": written,
                    "totalTokens": read + written,
                },
                "metrics": {"latencyMs": 1},
            }
        )


def final(run: Run) -> dict[str, Any]:
    """The metrics that a finished job and its model show."""
    validated = [p.validation_loss for p in run.points if p.validation_loss is not None]
    return {
        "trainingMetrics": {"trainingLoss": run.points[-1].training_loss},
        "validationMetrics": [{"validationLoss": loss} for loss in validated[-1:]],
    }
