"""A simulated Amazon Bedrock, with the bucket that its data lies in, on one socket.

Paths, fields, patterns and errors are those of the service's model in botocore 1.44.5; of S3 there
is what a client of this needs. Every signature is checked. Claude 3 Haiku can still be tuned here,
though its end of life is over. It trains nothing.
"""

import asyncio
import base64
import csv
import hashlib
import hmac
import io
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import escape

import httpx
import orjson
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.simulators.runs import Phase, Plan, Run
from app.simulators.simulator import Simulator, count_tokens, json_response, read_lines

ACCESS_KEY_ID = "AKIASIMULATED0000001"
SECRET_ACCESS_KEY = "simulated+secret/access+key+0000000001"  # noqa: S105 - opens only this
REGION, ACCOUNT, BUCKET = "us-west-2", "123456789012", "luthier-tuning"
_FOUNDATION = f"arn:aws:bedrock:{REGION}::foundation-model/"
_OWN = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:"
_JOBS = "/model-customization-jobs"
_FEWEST_LINES = 8  # theirs are 8 for Nova and 32 for Claude; enough to notice an empty file
_AT_MOST_OFF = 300.0

WORDS = {
    Phase.VALIDATING: "InProgress",
    Phase.QUEUED: "InProgress",
    Phase.RUNNING: "InProgress",
    Phase.PAUSED: "InProgress",
    Phase.STOPPING: "Stopping",
    Phase.SUCCEEDED: "Completed",
    Phase.FAILED: "Failed",
    Phase.CANCELLED: "Stopped",
}
MODELS: dict[str, tuple[str, str, str | None]] = {
    "anthropic.claude-3-haiku-20240307-v1:0:200k": ("Anthropic", "Claude 3 Haiku", "2026-09-10"),
    "amazon.nova-2-lite-v1:0:256k": ("Amazon", "Nova 2 Lite", None),
    "amazon.nova-pro-v1:0:300k": ("Amazon", "Nova Pro", None),
    "amazon.nova-lite-v1:0:300k": ("Amazon", "Nova Lite", None),
    "amazon.nova-micro-v1:0:128k": ("Amazon", "Nova Micro", None),
    "meta.llama3-1-70b-instruct-v1:0:128k": ("Meta", "Llama 3.1 70B", None),
    "meta.llama3-1-8b-instruct-v1:0:128k": ("Meta", "Llama 3.1 8B", None),
}
# Name → what it is when it is left out, and the least and the most that it can be.
CLAUDE_NUMBERS = {
    "epochCount": ("2", 1, 10),
    "batchSize": ("32", 4, 256),
    "learningRateMultiplier": ("1.0", 0.1, 2),
    "earlyStoppingThreshold": ("0.001", 0, 0.1),
    "earlyStoppingPatience": ("2", 1, 10),
}
OTHER_NUMBERS = {
    "epochCount": ("2", 1, 10),
    "batchSize": ("1", 1, 256),
    "learningRate": ("0.00001", 0, 1),
    "learningRateMultiplier": ("1.0", 0.1, 2),
    "learningRateWarmupSteps": ("10", 0, 100),
}
PATTERNS = {
    "jobName": r"[a-zA-Z0-9](-*[a-zA-Z0-9\+\-\.])*",
    "customModelName": r"([0-9a-zA-Z][_-]?){1,63}",
    "modelDeploymentName": r"([0-9a-zA-Z][_-]?){1,63}",
    "provisionedModelName": r"([0-9a-zA-Z][_-]?){1,63}",
    "roleArn": r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+",
    "clientRequestToken": r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,254}[a-zA-Z0-9])?",
}
_LONGEST = {"clientRequestToken": 256, "roleArn": 2048}
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)
_CODES = {"rate_limit_exceeded": "ThrottlingException", "server_error": "InternalServerException"}


@dataclass
class Job:
    """What was asked, beside its run."""

    run: Run
    asked: dict[str, Any]
    number: str
    """The last part of its ARN."""
    base_model: str
    lines: int
    announced: str = ""

    @property
    def model_arn(self) -> str:
        return f"{_OWN}custom-model/{self.base_model}/{self.number}"


@dataclass
class Stored:
    content: bytes
    at: float
    kind: str = "application/octet-stream"


@dataclass
class Deployment:
    arn: str
    name: str
    job: Job
    created_at: float
    units: int | None
    asked: dict[str, Any] = field(default_factory=dict)


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def _invalid(message: str) -> Refused:
    return Refused(400, "ValidationException", message)


def _missing(message: str) -> Refused:
    return Refused(404, "ResourceNotFoundException", message)


class BedrockSimulator(Simulator):
    name = "bedrock"
    creating: ClassVar[tuple[str, ...]] = (_JOBS,)

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.keys: dict[str, tuple[str, str | None]] = {ACCESS_KEY_ID: (SECRET_ACCESS_KEY, None)}
        """Access key id → the secret, and the session token that must come with it, if any."""
        self.buckets: dict[str, dict[str, Stored]] = {BUCKET: {}}
        self.jobs: dict[str, Job] = {}
        self.deployments: dict[str, Deployment] = {}
        self.deleted_models: set[str] = set()
        self.activating = 0.2
        """Seconds until a deployment can be called."""
        self.details = True
        """Whether jobs tell `statusDetails`, which are promised for distillation only."""
        self.targets: list[tuple[str, str]] = []
        """Where events go, as an API destination of EventBridge would send them: a URL, and what
        its header `x-api-key` is. Also `PUT /_targets`, `[{"url", "secret"}, …]`."""
        self.most_keys = 1000
        """Of a bucket on one page."""
        self.sent: list[tuple[str, int]] = []
        """Events: the job's status, and what was answered."""

    def refusal(self, status: int, code: str, message: str, param: str | None = None) -> Response:
        return json_response(
            {"message": message}, status, **{"x-amzn-errortype": _CODES.get(code, code)}
        )

    def routes(self) -> list[Route]:
        deployments = "/model-customization/custom-model-deployments"
        throughput = "/provisioned-model-throughput"
        table: list[tuple[str, str, Any]] = [
            ("POST", _JOBS, self.create),
            ("GET", _JOBS, self.list_jobs),
            ("POST", f"{_JOBS}/{{id:path}}/stop", self.stop),
            ("GET", f"{_JOBS}/{{id:path}}", self.get_job),
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
        storage: list[tuple[str, str, Any]] = [
            ("PUT", "/{bucket}", self.create_bucket),
            ("GET", "/{bucket}", self.list_objects),
            ("PUT", "/{bucket}/{key:path}", self.put_object),
            ("GET", "/{bucket}/{key:path}", self.get_object),
            ("DELETE", "/{bucket}/{key:path}", self.delete_object),
        ]
        return [
            Route("/_targets", self._targets, methods=["GET", "PUT"]),
            *(Route(path, self.door(do), methods=[verb]) for verb, path, do in table),
            *(Route(path, self.s3_door(do), methods=[verb]) for verb, path, do in storage),
        ]

    # Who asks

    def door(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            try:
                self.admit(request, await request.body(), "bedrock")
                response: Response = await handler(request)
            except Refused as refused:
                response = self.refusal(refused.status, refused.code, refused.message)
            return self.dated(response)

        return answer

    def s3_door(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            try:
                self.admit(request, await request.body(), "s3")
                response: Response = await handler(request)
            except Refused as refused:
                body = (
                    '<?xml version="1.0" encoding="UTF-8"?>\n'
                    f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}"
                    f"</Message><RequestId>{secrets.token_hex(8)}</RequestId></Error>"
                )
                response = Response(body, refused.status, media_type="application/xml")
            return self.dated(response)

        return answer

    def dated(self, response: Response) -> Response:
        """The date is behind the one that the server adds: clients who correct their clocks by it
        take the last."""
        response.headers["date"] = formatdate(self._clock(), usegmt=True)
        response.headers["x-amzn-requestid"] = str(uuid.uuid4())
        return response

    def _clock(self) -> float:
        """What signatures are held against: time that was only moved has no part in it."""
        return self.now() - self._moved

    def admit(self, request: Request, body: bytes, service: str) -> None:
        """Recompute the signature. Raises Refused, with the codes that S3 has for itself."""
        s3 = service == "s3"
        found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if not found:
            code = "AccessDenied" if s3 else "MissingAuthenticationTokenException"
            raise Refused(403, code, "Missing Authentication Token")
        key_id, day, region, named, names, given = found.groups()
        secret, token = self.keys.get(key_id, (None, None))
        if secret is None or (token and request.headers.get("x-amz-security-token") != token):
            code = "InvalidAccessKeyId" if s3 else "UnrecognizedClientException"
            raise Refused(403, code, "The security token included in the request is invalid.")
        stamp = request.headers.get("x-amz-date", "")
        try:
            moment = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            moment = 0.0
        if abs(moment - self._clock()) > _AT_MOST_OFF:
            code = "RequestTimeTooSkewed" if s3 else "InvalidSignatureException"
            raise Refused(403, code, f"Signature expired: {stamp} is too far from now.")
        wrong = "SignatureDoesNotMatch" if s3 else "InvalidSignatureException"
        if (region, named, day) != (REGION, service, stamp[:8]):
            raise Refused(403, wrong, "Credential should be scoped to a valid region and service.")
        told = request.headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        if told != "UNSIGNED-PAYLOAD" and told != hashlib.sha256(body).hexdigest():
            raise Refused(400, "XAmzContentSHA256Mismatch", "The body is not what was signed.")
        if not hmac.compare_digest(given, _signature(request, body, s3, key_id, secret, names)):
            raise Refused(
                403,
                wrong,
                "The request signature we calculated does not match the signature you provided. "
                "Check your AWS Secret Access Key and signing method.",
            )

    # Jobs

    async def create(self, request: Request) -> Response:
        asked = await self.asked(request, "jobName", "customModelName", "roleArn",
                                 "baseModelIdentifier", "trainingDataConfig", "outputDataConfig",
                                 )  # fmt: skip
        if (before := self._repeated(asked, self.jobs.values())) is not None:
            return json_response({"jobArn": before.run.id}, 201)
        if any(job.asked["jobName"] == asked["jobName"] for job in self.jobs.values()):
            raise Refused(400, "ConflictException", "The job name is already in use.")
        base = str(asked["baseModelIdentifier"]).removeprefix(_FOUNDATION)
        if base not in MODELS or base in self.cheats.expired_models:
            raise _invalid("The provided model identifier is invalid.")
        if asked.get("customizationType", "FINE_TUNING") != "FINE_TUNING":
            raise _invalid("The simulator knows the customization type FINE_TUNING only.")
        told = self._numbers(asked.get("hyperParameters") or {}, base)
        training = self._read(asked["trainingDataConfig"].get("s3Uri"))
        validators = (asked.get("validationDataConfig") or {}).get("validators") or []
        validation = [self._read(one.get("s3Uri")) for one in validators]
        self._bucket_of(asked["outputDataConfig"].get("s3Uri"))
        lines, wrong = read_lines(training)
        wrong = wrong or check_lines(lines, base, _FEWEST_LINES)
        for content in validation:
            more, bad = read_lines(content)
            wrong = wrong or bad or check_lines(more, base, 1)
        number = self.id("")[:12]
        run = Run(
            id=f"{_OWN}model-customization-job/{base}/{number}",
            created_at=self.now(),
            plan=self.plan,
            seed=self.chance.randrange(2**31),
            tokens=count_tokens(lines) * int(told["epochCount"]),
            has_validation=bool(validation),
            failure=("ValidationException", wrong, None) if wrong else None,
        )
        job = Job(run, {**asked, "hyperParameters": told}, number, base, len(lines))
        self.runs[run.id], self.jobs[run.id] = run, job
        return json_response({"jobArn": run.id}, 201)

    async def asked(self, request: Request, *needed: str) -> dict[str, Any]:
        try:
            asked = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            raise Refused(400, "SerializationException", "The body is not JSON.") from None
        for name in needed:
            if not asked.get(name):
                raise _invalid(f"1 validation error detected: {name} must not be null.")
        for name, pattern in PATTERNS.items():
            value = asked.get(name)
            if value is None:
                continue
            fits = isinstance(value, str) and len(value) <= _LONGEST.get(name, 63)
            if not fits or not re.fullmatch(pattern, value):
                raise _invalid(
                    f"Value {value!r} at {name!r} failed to satisfy constraint: Member must "
                    f"satisfy regular expression pattern: {pattern}"
                )
        return dict(asked)

    def _repeated(self, asked: Mapping[str, Any], made: Any) -> Any:
        """What the same token made before."""
        token = asked.get("clientRequestToken")
        before = next(
            (m for m in made if token and m.asked.get("clientRequestToken") == token), None
        )
        if before is not None:
            same = {**before.asked, "hyperParameters": None} == {
                **before.asked,
                **asked,
                "hyperParameters": None,
            }
            if not same:
                raise Refused(
                    400, "ConflictException", "The client token was used for another request."
                )
        return before

    def _numbers(self, told: Mapping[str, Any], base: str) -> dict[str, str]:
        known = CLAUDE_NUMBERS if base.startswith("anthropic.") else OTHER_NUMBERS
        for name, value in told.items():
            if name not in known:
                raise _invalid(f"Hyperparameter {name} is not supported for {base}.")
            _, least, most = known[name]
            if not isinstance(value, str) or not _is_between(value, least, most):
                raise _invalid(f"Hyperparameter {name} must be between {least} and {most}.")
        return {name: str(told.get(name, usual)) for name, (usual, _, _) in known.items()}

    async def list_jobs(self, request: Request) -> Response:
        query = request.query_params
        rows = [
            row
            for run in self.newest()
            if query.get("nameContains", "") in (row := self.summary(self.jobs[run.id]))["jobName"]
            and query.get("statusEquals", row["status"]) == row["status"]
            and query.get("creationTimeAfter", "") <= row["creationTime"]
            and query.get("creationTimeBefore", "9") >= row["creationTime"]
        ]
        if query.get("sortOrder") == "Ascending":
            rows.reverse()
        return self.page(request, "modelCustomizationJobSummaries", rows)

    async def get_job(self, request: Request) -> Response:
        return json_response(self.job_object(self.job_of(request)))

    async def stop(self, request: Request) -> Response:
        job = self.job_of(request)
        if not job.run.cancel(self.now()):
            raise Refused(400, "ConflictException", "The job is in a terminal state.")
        return json_response({})

    def job_of(self, request: Request) -> Job:
        """By its ARN or its name."""
        id = request.path_params["id"]
        named = next((job.run.id for job in self.jobs.values() if job.asked["jobName"] == id), id)
        if run := self.run_of(named):
            return self.jobs[run.id]
        raise _missing("The provided job identifier does not exist.")

    def summary(self, job: Job) -> dict[str, Any]:
        run = job.run
        row = {
            "jobArn": run.id,
            "jobName": job.asked["jobName"],
            "baseModelArn": _FOUNDATION + job.base_model,
            "status": self.word(run, WORDS[run.phase]),
            "creationTime": _iso(run.created_at),
            "lastModifiedTime": _iso(run.entered_at),
            "customModelName": job.asked["customModelName"],
            "customizationType": "FINE_TUNING",
        }
        if self.details:
            row["statusDetails"] = _details(run)
        if run.finished_at:
            row["endTime"] = _iso(run.finished_at)
        if run.phase is Phase.SUCCEEDED:
            row["customModelArn"] = job.model_arn
        return row

    def job_object(self, job: Job) -> dict[str, Any]:
        run, asked, row = job.run, job.asked, self.summary(job)
        shown = {
            **{name: value for name, value in row.items() if not name.startswith("customModel")},
            "outputModelName": asked["customModelName"],
            "clientRequestToken": asked.get("clientRequestToken"),
            "roleArn": asked["roleArn"],
            "hyperParameters": asked["hyperParameters"],
            "trainingDataConfig": asked["trainingDataConfig"],
            "validationDataConfig": asked.get("validationDataConfig") or {"validators": []},
            "outputDataConfig": asked["outputDataConfig"],
        }
        if run.phase is Phase.FAILED and run.failure:
            shown["failureMessage"] = run.failure[1]
        if run.phase is Phase.SUCCEEDED:
            shown |= {"outputModelArn": job.model_arn, **_final(run)}
        return {name: value for name, value in shown.items() if value is not None}

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
                    "modelArn": _FOUNDATION + id,
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
        raise _missing("The provided model identifier does not exist.")

    async def list_models(self, request: Request) -> Response:
        rows = [
            {
                "modelArn": arn,
                "modelName": job.asked["customModelName"],
                "creationTime": _iso(job.run.entered_at),
                "baseModelArn": _FOUNDATION + job.base_model,
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
                "baseModelArn": _FOUNDATION + job.base_model,
                "customizationType": "FINE_TUNING",
                "hyperParameters": job.asked["hyperParameters"],
                "trainingDataConfig": job.asked["trainingDataConfig"],
                "outputDataConfig": job.asked["outputDataConfig"],
                "creationTime": _iso(job.run.entered_at),
                "modelStatus": "Active",
                **_final(job.run),
            }
        )

    async def delete_model(self, request: Request) -> Response:
        self.deleted_models.add(self.model_of(request.path_params["id"]).model_arn)
        return json_response({})

    # Deployments

    async def deploy_on_demand(self, request: Request) -> Response:
        asked = await self.asked(request, "modelDeploymentName", "modelArn")
        before = self._repeated(asked, self.deployments.values())
        if before is None:
            job = self.model_of(asked["modelArn"])
            if not job.base_model.startswith("amazon.nova-"):
                raise _invalid("The model does not support on-demand inference.")
            arn = f"{_OWN}custom-model-deployment/{self.id('')[:12]}"
            before = self._place(arn, asked["modelDeploymentName"], job, None, asked)
        return json_response({"customModelDeploymentArn": before.arn}, 202)

    async def provision(self, request: Request) -> Response:
        asked = await self.asked(request, "provisionedModelName", "modelId", "modelUnits")
        before = self._repeated(asked, self.deployments.values())
        if before is None:
            job = self.model_of(asked["modelId"])
            arn = f"{_OWN}provisioned-model/{self.id('')[:12]}"
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
        raise _missing("There is no such deployment.")

    def active(self, made: Deployment) -> bool:
        return self.now() >= made.created_at + self.activating

    def deployment_object(self, made: Deployment) -> dict[str, Any]:
        at = _iso(made.created_at)
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
            "foundationModelArn": _FOUNDATION + made.job.base_model,
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
            raise _missing("This model version has reached the end of its life.")
        if wrong := _check_turns(asked["messages"], parts=True, last="user"):
            raise _invalid(f"A conversation is wrong: {wrong}.")
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

    # The bucket

    def _bucket_of(self, uri: Any) -> tuple[dict[str, Stored], str]:
        """The bucket of an `s3://` URI, and the key."""
        name, _, key = str(uri or "").removeprefix("s3://").partition("/")
        if not str(uri).startswith("s3://") or name not in self.buckets:
            raise _invalid(f"Could not access the S3 URI {uri}.")
        return self.buckets[name], key

    def _read(self, uri: Any) -> bytes:
        bucket, key = self._bucket_of(uri)
        if key not in bucket:
            raise _invalid(f"Could not validate that the S3 object {uri} exists.")
        return bucket[key].content

    def bucket(self, request: Request) -> dict[str, Stored]:
        """With everything that the jobs have written by now."""
        for run in self.newest():
            self._write(self.jobs[run.id])
        found = self.buckets.get(request.path_params["bucket"])
        if found is None:
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist")
        return found

    def _write(self, job: Job) -> None:
        run = job.run
        uri = job.asked["outputDataConfig"]["s3Uri"].rstrip("/")
        bucket, folder = self._bucket_of(f"{uri}/model-customization-job-{job.number}")
        validation = "validation_artifacts/post_fine_tuning_validation/validation"
        epochs = int(job.asked["hyperParameters"]["epochCount"])
        for key, name, values in (
            (
                "training_artifacts/step_wise_training_metrics.csv",
                "training_loss",
                [(p.step, p.training_loss) for p in run.points],
            ),
            (
                f"{validation}/validation_metrics.csv",
                "validation_loss",
                [(p.step, p.validation_loss) for p in run.points if p.validation_loss is not None],
            ),
        ):
            if values:
                content = _metrics_csv(name, values, run.plan.steps, epochs)
                bucket[f"{folder}/{key}"] = Stored(content, run.points[-1].at, "text/csv")

    async def create_bucket(self, request: Request) -> Response:
        self.buckets.setdefault(request.path_params["bucket"], {})
        return Response(b"")

    async def put_object(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "application/octet-stream")
        stored = Stored(await request.body(), self.now(), kind)
        self.bucket(request)[request.path_params["key"]] = stored
        return Response(b"", headers={"etag": _etag(stored)})

    async def get_object(self, request: Request) -> Response:
        stored = self.bucket(request).get(request.path_params["key"])
        if stored is None:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        headers = {
            "etag": _etag(stored),
            "last-modified": formatdate(stored.at, usegmt=True),
            "content-type": stored.kind,
        }
        return Response(stored.content, headers=headers)

    async def delete_object(self, request: Request) -> Response:
        self.bucket(request).pop(request.path_params["key"], None)
        return Response(b"", 204)

    async def list_objects(self, request: Request) -> Response:
        query, bucket = request.query_params, self.bucket(request)
        prefix, most = query.get("prefix", ""), int(query.get("max-keys", self.most_keys))
        most = min(most, self.most_keys)
        after = query.get("start-after", "")
        if token := query.get("continuation-token"):
            after = base64.b64decode(token).decode()
        keys = sorted(key for key in bucket if key.startswith(prefix) and key > after)
        shown = keys[:most]
        escaped = query.get("encoding-type") == "url"

        def told(key: str) -> str:
            return escape(quote(key, safe="/-_.~") if escaped else key)

        rows = [
            f"<Contents><Key>{told(key)}</Key><LastModified>{_iso(bucket[key].at)}</LastModified>"
            f"<ETag>{escape(_etag(bucket[key]))}</ETag><Size>{len(bucket[key].content)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key in shown
        ]
        more = ""
        if len(keys) > most and shown:
            token = base64.b64encode(shown[-1].encode()).decode()
            more = f"<NextContinuationToken>{token}</NextContinuationToken>"
        return Response(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{request.path_params['bucket']}</Name><Prefix>{told(prefix)}</Prefix>"
            f"<KeyCount>{len(shown)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            + ("<EncodingType>url</EncodingType>" if escaped else "")
            + f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{''.join(rows)}"
            "</ListBucketResult>",
            media_type="application/xml",
        )

    # Events

    async def _targets(self, request: Request) -> Response:
        if request.method == "PUT":
            rows = orjson.loads(await request.body())
            self.targets = [(str(row["url"]), str(row["secret"])) for row in rows]
        return json_response([{"url": url} for url, _ in self.targets])

    async def background(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            sending: set[asyncio.Task[None]] = set()
            while True:
                await asyncio.sleep(0.05)
                if not self.targets or self.cheats.down:
                    continue
                for run in self.newest():
                    job = self.jobs[run.id]
                    if job.announced == (word := WORDS[run.phase]):
                        continue
                    job.announced = word
                    for url, secret in self.targets:
                        task = asyncio.create_task(self._tell(client, url, secret, job))
                        sending.add(task)
                        task.add_done_callback(sending.discard)

    async def _tell(self, client: httpx.AsyncClient, url: str, secret: str, job: Job) -> None:
        cheats, event = self.cheats, self.event(job)
        if self.chance.random() < cheats.drop_webhooks:
            return
        times = 3 if self.chance.random() < cheats.repeat_webhooks else 1
        forged = self.chance.random() < cheats.forge_webhooks
        for number in range(times + forged):
            await asyncio.sleep(self.chance.random() * cheats.late_webhooks)
            forgery = forged and number == times
            await self._post(client, url, "forged" if forgery else secret, event)

    def event(self, job: Job) -> dict[str, Any]:
        shown = self.job_object(job)
        names = ("jobName", "jobArn", "outputModelName", "outputModelArn", "roleArn",
                 "failureMessage", "creationTime", "lastModifiedTime", "endTime", "baseModelArn",
                 "hyperParameters", "trainingDataConfig", "validationDataConfig",
                 "outputDataConfig")  # fmt: skip
        detail = {name: shown[name] for name in names if name in shown}
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Model Customization Job State Change",
            "source": "aws.bedrock",
            "account": ACCOUNT,
            "time": _iso(self.now()),
            "region": REGION,
            "resources": [job.run.id],
            "detail": {"version": "0.0", **detail, "jobStatus": shown["status"]},
        }

    async def _post(
        self, client: httpx.AsyncClient, url: str, secret: str, event: dict[str, Any]
    ) -> None:
        """Again while the target is busy or broken, as EventBridge does; another 4xx is final."""
        headers = {
            "content-type": "application/json; charset=utf-8",
            "user-agent": "Amazon/EventBridge/ApiDestinations",
            "x-api-key": secret,
        }
        for pause in (0.5, 2.0, 5.0, 15.0, 60.0):
            try:
                answer = await client.post(url, content=orjson.dumps(event), headers=headers)
                status = answer.status_code
            except httpx.TransportError:
                status = 0
            self.sent.append((event["detail"]["jobStatus"], status))
            again = status in (0, 409, 429) or status >= 500
            if not again or secret == "forged":  # noqa: S105 - a word, not a secret
                return
            await asyncio.sleep(pause)

    # Shared by the routes

    def page(self, request: Request, name: str, rows: list[dict[str, Any]]) -> Response:
        query = request.query_params
        most, start = int(query.get("maxResults", 100)), int(query.get("nextToken", 0))
        if not 1 <= most <= 1000:
            raise _invalid("maxResults must be between 1 and 1000.")
        more = {"nextToken": str(start + most)} if start + most < len(rows) else {}
        return json_response({name: rows[start : start + most], **more})


def check_lines(lines: list[dict[str, Any]], base_model: str, fewest: int) -> str | None:
    """What is wrong with training data in the form of the model's family."""
    if len(lines) < fewest:
        return f"The file has {len(lines)} examples; at least {fewest} are needed."
    claude = base_model.startswith("anthropic.")
    known = {"system", "messages"} if claude else {"schemaVersion", "system", "messages"}
    for number, line in enumerate(lines, 1):
        if unknown := sorted(line.keys() - known):
            return f"Line {number} has the unknown field {unknown[0]}."
        if not claude and line.get("schemaVersion") != "bedrock-conversation-2024":
            return f"Line {number} has another schemaVersion than bedrock-conversation-2024."
        if "system" in line and isinstance(line["system"], str) != claude:
            return f"Line {number} has a malformed system."
        if wrong := _check_turns(line.get("messages"), parts=not claude, last="assistant"):
            return f"Line {number}: {wrong}."
    return None


def _check_turns(messages: Any, *, parts: bool, last: str) -> str | None:
    if not isinstance(messages, list) or not messages:
        return "there are no messages"
    for number, message in enumerate(messages):
        if message.get("role") != ("user", "assistant")[number % 2]:
            return "roles must alternate between user and assistant, and begin with user"
        content = message.get("content")
        if parts:
            shaped = isinstance(content, list) and all("text" in part for part in content)
            content = shaped and "".join(part["text"] for part in content)
        if not isinstance(content, str) or not content.strip():
            return f"message {number} has no text"
    return None if messages[-1]["role"] == last else f"the last message must be the {last}'s"


def _signature(
    request: Request, body: bytes, s3: bool, key_id: str, secret: str, names: str
) -> str:
    """Over what came, as it came."""
    signer = (S3SigV4Auth if s3 else SigV4Auth)(
        Credentials(key_id, secret), "s3" if s3 else "bedrock", REGION
    )
    path, query = request.scope["raw_path"].decode(), request.scope["query_string"].decode()
    url = f"http://{request.headers['host']}{path}" + (f"?{query}" if query else "")
    headers = {name: request.headers.get(name, "") for name in names.split(";")}
    seen = AWSRequest(request.method, url, headers=headers, data=body)
    seen.context["timestamp"] = request.headers["x-amz-date"]
    text = signer.string_to_sign(seen, signer.canonical_request(seen))
    return str(signer.signature(text, seen))


def _details(run: Run) -> dict[str, Any]:
    """The parts of a job; those before the one that it is in are done."""
    names = ("validationDetails", "dataProcessingDetails", "trainingDetails")
    begun = [at for phase in (Phase.VALIDATING, Phase.QUEUED, Phase.RUNNING)
             if (at := next((at for one, at in run.history if one is phase), None))]  # fmt: skip
    word = {
        Phase.SUCCEEDED: "Completed",
        Phase.FAILED: "Failed",
        Phase.STOPPING: "Stopping",
        Phase.CANCELLED: "Stopped",
    }.get(run.phase, "InProgress")
    found: dict[str, Any] = {}
    for number, name in enumerate(names):
        if number >= len(begun):
            found[name] = {"status": "NotStarted"}
            continue
        last = number == len(begun) - 1
        changed = run.entered_at if last else begun[number + 1]
        found[name] = {
            "status": word if last else "Completed",
            "creationTime": _iso(begun[number]),
            "lastModifiedTime": _iso(changed),
        }
    return found


def _final(run: Run) -> dict[str, Any]:
    """The metrics that a finished job and its model show."""
    validated = [p.validation_loss for p in run.points if p.validation_loss is not None]
    return {
        "trainingMetrics": {"trainingLoss": run.points[-1].training_loss},
        "validationMetrics": [{"validationLoss": loss} for loss in validated[-1:]],
    }


def _metrics_csv(name: str, values: list[tuple[int, float]], steps: int, epochs: int) -> bytes:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["step_number", "epoch_number", name, "perplexity"])
    for step, value in values:
        rows.writerow([step - 1, (step - 1) * epochs // steps, value, round(2.718281828**value, 4)])
    return out.getvalue().encode()


def _is_between(value: str, least: float, most: float) -> bool:
    try:
        return least <= float(value) <= most
    except ValueError:
        return False


def _etag(stored: Stored) -> str:
    return f'"{hashlib.md5(stored.content, usedforsecurity=False).hexdigest()}"'


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
