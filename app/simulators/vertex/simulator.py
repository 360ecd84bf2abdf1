"""A simulated Vertex AI: tuning jobs, endpoints, and what they answer. It trains nothing.

Answers are JSON of protobuf as google-genai 3.4.0's types have it: 64-bit numbers are text. Where
metrics lie is an assumption (`app.providers.vertex.files` says which); Google documents none.
"""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.simulators.answers import at_time, json_response
from app.simulators.cases import count_tokens, read_lines
from app.simulators.runs import OVER, Phase, Plan, Point, Run
from app.simulators.simulator import Simulator
from app.simulators.vertex.google import Accounts, Storage, refusal, service_account
from app.simulators.vertex.lines import check_lines, generated

MODELS = ("gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro")
SPECS = {
    "supervisedTuningSpec": ("supervised", "supervisedTuningDataStats"),
    "preferenceOptimizationSpec": ("dpo", "preferenceOptimizationDataStats"),
    "reinforcementTuningSpec": ("reinforcement", "reinforcementTuningDataStats"),
}
STATES = {
    Phase.VALIDATING: "JOB_STATE_RUNNING",
    Phase.QUEUED: "JOB_STATE_RUNNING",
    Phase.RUNNING: "JOB_STATE_RUNNING",
    Phase.STOPPING: "JOB_STATE_CANCELLING",
    Phase.SUCCEEDED: "JOB_STATE_SUCCEEDED",
    Phase.FAILED: "JOB_STATE_FAILED",
    Phase.CANCELLED: "JOB_STATE_CANCELLED",
}
PARTS = {
    Phase.VALIDATING: "TUNING_JOB_STATE_PROCESSING_DATASET",
    Phase.QUEUED: "TUNING_JOB_STATE_WAITING_FOR_CAPACITY",
    Phase.RUNNING: "TUNING_JOB_STATE_TUNING",
}
_ADAPTERS = {f"ADAPTER_SIZE_{word}" for word in ("ONE", "TWO", "FOUR", "EIGHT", "SIXTEEN",
                                                 "THIRTY_TWO")}  # fmt: skip
_LABEL = re.compile(r"[\w-]{0,63}")
_FILTER = re.compile(r'\s*labels\.([\w-]+)\s*=\s*"?([^"]*)"?\s*')
_PLACE = "/projects/{project}/locations/{location}"


@dataclass
class Job:
    """What was asked, beside its run."""

    run: Run
    asked: dict[str, Any]
    spec: str
    lines: int
    number: str
    parent: str

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = self.asked[self.spec].get("hyperParameters") or {}
        return found


class VertexSimulator(Simulator):
    """Who signs in with `service_account()` is known to it; `accounts.trust` lets others in."""

    name = "vertex"
    creating: ClassVar[tuple[str, ...]] = ("/tuningJobs",)

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.accounts, self.storage = Accounts(), Storage()
        self.accounts.trust(service_account())
        self.jobs: dict[str, Job] = {}
        self.undeployed: dict[str, float] = {}
        """Endpoints without their model, and since when."""
        self.deleted: set[str] = set()
        self.knows_filters = True

    def refusal(self, status: int, code: str, message: str, param: str | None = None) -> Response:
        return refusal(status, code, message, param)

    def routes(self) -> list[Route]:
        jobs, endpoint = f"{_PLACE}/tuningJobs", f"{_PLACE}/endpoints/{{id}}"
        model = f"{_PLACE}/publishers/google/models/{{id}}"
        table: list[tuple[str, str, Any]] = [
            ("POST", jobs, self.create),
            ("GET", jobs, self.list_jobs),
            ("POST", f"{jobs}/{{id}}:cancel", self.cancel),
            ("GET", f"{jobs}/{{id}}", self.get_job),
            ("POST", f"{endpoint}:generateContent", self.generate),
            ("POST", f"{endpoint}:undeployModel", self.undeploy),
            ("GET", endpoint, self.get_endpoint),
            ("DELETE", endpoint, self.delete_endpoint),
            ("GET", f"{endpoint}/operations/{{operation}}", self.get_operation),
            ("POST", f"{model}:generateContent", self.generate),
        ]
        found = [
            Route(f"/{version}{path}", self.door(handler), methods=[method])
            for version in ("v1", "v1beta1")
            for method, path, handler in table
        ]
        token = Route("/token", self.accounts.grant, methods=["POST"])
        account = Route("/_service_account", self._service_account, methods=["GET"])
        return [token, account, *self.storage.routes(self.storage_door), *found]

    async def _service_account(self, request: Request) -> Response:
        """For a simulator in a process of its own: the JSON key that it lets in."""
        return Response(service_account(), media_type="application/json")

    def door(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            if not self.accounts.admits(request):
                words = "Request had invalid authentication credentials."
                return self.refusal(401, "UNAUTHENTICATED", words)
            found: Response = await handler(request)
            return found

        return answer

    def storage_door(self, handler: Any) -> Any:
        """Metrics lie there as far as they are measured."""

        async def answer(request: Request) -> Response:
            for run in self.newest():
                job = self.jobs[run.id]
                if run.points:
                    bucket, _, folder = self.metrics_uri(job).removeprefix("gs://").partition("/")
                    lines = [orjson.dumps(_measured(point)) for point in run.points]
                    self.storage.put(bucket, f"{folder}metrics.jsonl", b"\n".join(lines))
            found: Response = await handler(request)
            return found

        return self.door(answer)

    # Jobs

    async def create(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        spec = next((name for name in SPECS if asked.get(name)), None)
        if wrong := self.wrong(asked, spec):
            return self.refusal(*wrong)
        assert spec is not None  # noqa: S101 - `wrong` has seen to it
        parent = "projects/{project}/locations/{location}".format_map(request.path_params)
        job = self.begin(asked, spec, parent)
        # Google shows a new job as pending; here that lasts for this one answer.
        fresh = {**self.job_object(job), "state": "JOB_STATE_PENDING"}
        fresh.pop("tuningJobState", None)
        return json_response(fresh)

    def wrong(
        self, asked: dict[str, Any], spec: str | None
    ) -> tuple[int, str, str, str | None] | None:
        def no(words: str, param: str) -> tuple[int, str, str, str | None]:
            return 400, "INVALID_ARGUMENT", words, param

        if spec is None:
            return no("A tuning spec is required.", "tuning_spec")
        before = asked.get("preTunedModel") or {}
        name = before.get("tunedModelName") or before.get("tuned_model_name")
        base = asked.get("baseModel")
        if base in self.cheats.expired_models or (base not in MODELS if base else not name):
            return no(f"Base model {base} is not supported.", "base_model")
        if name and name not in [self.model(job) for job in self.jobs.values()]:
            return 404, "NOT_FOUND", f"The model {name} is not found.", None
        for field in ("trainingDatasetUri", "validationDatasetUri"):
            uri = asked[spec].get(field)
            if (uri or field[0] == "t") and self.storage.read(str(uri)) is None:
                return no(f"There is no file {uri}.", field)
        told = asked[spec].get("hyperParameters") or {}
        if told.get("adapterSize", "ADAPTER_SIZE_FOUR") not in _ADAPTERS:
            return no(f"Invalid adapter size {told['adapterSize']}.", "adapter_size")
        if spec == "reinforcementTuningSpec" and not (
            asked[spec].get("singleRewardConfig") or asked[spec].get("compositeRewardConfig")
        ):
            return no("A reward config is required.", "reward_config")
        for key, value in (asked.get("labels") or {}).items():
            if not (_LABEL.fullmatch(value) and value == value.lower()):
                return no(f"Invalid value {value!r} of the label {key}.", "labels")
        if len(asked.get("tunedModelDisplayName") or "") > 128:
            return no("The display name is too long.", "tuned_model_display_name")
        return None

    def begin(self, asked: dict[str, Any], spec: str, parent: str) -> Job:
        content = self.storage.read(asked[spec]["trainingDatasetUri"]) or b""
        lines, wrong = read_lines(content)
        wrong = wrong or check_lines(lines, SPECS[spec][0])
        number = self.number("job")
        run = Run(
            id=f"{parent}/tuningJobs/{number}",
            created_at=self.now(),
            plan=self.plan,
            seed=self.chance.randrange(2**31),
            tokens=count_tokens(lines),
            has_validation=bool(asked[spec].get("validationDatasetUri")),
            failure=("INVALID_ARGUMENT", wrong, None) if wrong else None,
        )
        job = Job(run, asked, spec, len(lines), number, parent)
        self.runs[run.id], self.jobs[run.id] = run, job
        return job

    def number(self, what: str) -> str:
        return str(int(self.id(what)[len(what) :][:15], 16))

    async def list_jobs(self, request: Request) -> Response:
        query = request.query_params
        parent = "projects/{project}/locations/{location}".format_map(request.path_params)
        rows = [self.jobs[run.id] for run in self.newest()]
        rows = [job for job in rows if job.parent == parent]
        if wanted := query.get("filter"):
            match = _FILTER.fullmatch(wanted)
            if match is None or not self.knows_filters:
                return self.refusal(400, "INVALID_ARGUMENT", f"Invalid filter {wanted}.", "filter")
            key, value = match.groups()
            rows = [job for job in rows if (job.asked.get("labels") or {}).get(key) == value]
        start = int(query.get("pageToken") or 0)
        size = min(int(query.get("pageSize") or 50), 100)
        shown: dict[str, Any] = {}
        if some := rows[start : start + size]:
            shown["tuningJobs"] = [self.job_object(job) for job in some]
        if start + size < len(rows):
            shown["nextPageToken"] = str(start + size)
        return json_response(shown)

    async def get_job(self, request: Request) -> Response:
        job = self.job_of(request)
        return json_response(self.job_object(job)) if job else self.nothing("tuning job")

    async def cancel(self, request: Request) -> Response:
        job = self.job_of(request)
        if job is None:
            return self.nothing("tuning job")
        if not job.run.cancel(self.now()):
            words = f"The job is in the state {STATES[job.run.phase]} and cannot be cancelled."
            return self.refusal(400, "FAILED_PRECONDITION", words)
        return json_response({})

    def job_of(self, request: Request) -> Job | None:
        name = "projects/{project}/locations/{location}/tuningJobs/{id}"
        run = self.run_of(name.format_map(request.path_params))
        return self.jobs[run.id] if run else None

    def job_object(self, job: Job) -> dict[str, Any]:
        run, asked = job.run, job.asked
        begun = {Phase.QUEUED, Phase.RUNNING, Phase.SUCCEEDED} & {at for at, _ in run.history}
        # 64-bit numbers as text, what was not asked as Google settles it.
        told = {"epochCount": 3, "learningRateMultiplier": 1.0, **job.told}
        told = {name: str(told[name]) if name.endswith("Count") else told[name] for name in told}
        found: dict[str, Any] = {
            "name": run.id,
            **asked,
            job.spec: {**asked[job.spec], "hyperParameters": told},
            "state": self.word(run, STATES[run.phase]),
            "createTime": at_time(run.created_at),
            "updateTime": at_time(run.points[-1].at if run.points else run.entered_at),
            "experiment": f"{job.parent}/metadataStores/default/contexts/tuning-{job.number}",
            "pipelineJob": f"{job.parent}/pipelineJobs/{job.number}",
        }
        if run.phase in PARTS:
            found["tuningJobState"] = PARTS[run.phase]
        if run.started_at:
            found["startTime"] = at_time(run.started_at)
            found["gcsMetricsUri"] = self.metrics_uri(job)
        if run.finished_at:
            found["endTime"] = at_time(run.finished_at)
        if begun:
            counted = {
                "tuningDatasetExampleCount": str(job.lines),
                "totalBillableTokenCount": str(run.tokens),
                "tuningStepCount": str(run.plan.steps),
            }
            found["tuningDataStats"] = {SPECS[job.spec][1]: counted}
        if run.points:
            epochs = int(told["epochCount"]) * run.step // run.plan.steps
            found["tuningJobMetadata"] = {
                "completedStepCount": str(run.step),
                "completedEpochCount": str(epochs),
            }
        if run.phase is Phase.SUCCEEDED:
            found["tunedModel"] = self.tuned(job)
        if run.phase is Phase.FAILED and run.failure:
            found["error"] = {"code": 3, "message": run.failure[1]}
        if run.phase is Phase.CANCELLED:
            found["error"] = {"code": 1, "message": "The job was cancelled."}
        return found

    def metrics_uri(self, job: Job) -> str:
        bucket = job.asked[job.spec]["trainingDatasetUri"][5:].partition("/")[0]
        return f"gs://{bucket}/tuning-metrics/{job.number}/"

    # Models and endpoints

    def model(self, job: Job) -> str:
        return f"{job.parent}/models/{job.number}@1"

    def endpoint(self, job: Job, step: int) -> str:
        last = step == job.run.plan.steps
        return f"{job.parent}/endpoints/{job.number}{'' if last else f'{step:04d}'}"

    def tuned(self, job: Job) -> dict[str, Any]:
        steps = job.run.checkpoint_steps
        if job.asked[job.spec].get("exportLastCheckpointOnly"):
            steps = steps[-1:]
        last = job.run.plan.steps
        rows = [
            {
                "checkpointId": str(number),
                "epoch": str(number),
                "step": str(step),
                "endpoint": self.endpoint(job, step),
            }
            for number, step in enumerate(steps, 1)
        ]
        made = {"model": self.model(job), "endpoint": self.endpoint(job, last)}
        return {**made, "checkpoints": rows}

    def endpoints(self) -> dict[str, Job]:
        found = {}
        for run in self.newest():
            if run.phase is Phase.SUCCEEDED and run.phase in OVER:
                job = self.jobs[run.id]
                for row in [self.tuned(job), *self.tuned(job)["checkpoints"]]:
                    found[row["endpoint"]] = job
        gone = {*self.deleted, *self.cheats.expired_models}
        return {name: job for name, job in found.items() if name not in gone}

    def endpoint_of(self, request: Request) -> tuple[str, Job | None]:
        name = "projects/{project}/locations/{location}/endpoints/{id}"
        named = name.format_map(request.path_params)
        return named, self.endpoints().get(named)

    async def get_endpoint(self, request: Request) -> Response:
        name, job = self.endpoint_of(request)
        if job is None:
            return self.nothing("endpoint")
        deployed = {"id": job.number, "model": self.model(job)}
        return json_response(
            {
                "name": name,
                "displayName": job.asked.get("tunedModelDisplayName") or "tuned",
                "createTime": at_time(job.run.entered_at),
                **({} if name in self.undeployed else {"deployedModels": [deployed]}),
            }
        )

    async def undeploy(self, request: Request) -> Response:
        name, job = self.endpoint_of(request)
        asked = orjson.loads(await request.body())
        if job is None or name in self.undeployed or asked.get("deployedModelId") != job.number:
            return self.nothing("deployed model")
        self.undeployed[name] = self.now()
        return json_response({"name": f"{name}/operations/1", "done": False})

    async def get_operation(self, request: Request) -> Response:
        name, _ = self.endpoint_of(request)
        done = self.now() - self.undeployed.get(name, self.now()) > 0.05
        return json_response({"name": f"{name}/operations/1", "done": done})

    async def delete_endpoint(self, request: Request) -> Response:
        name, job = self.endpoint_of(request)
        if job is None:
            return self.nothing("endpoint")
        if name not in self.undeployed:
            words = "The endpoint still has a deployed model."
            return self.refusal(400, "FAILED_PRECONDITION", words)
        self.deleted.add(name)
        return json_response({"name": f"{name}/operations/2", "done": True, "response": {}})

    async def generate(self, request: Request) -> Response:
        name, job = self.endpoint_of(request)
        model = request.path_params["id"]
        if "/publishers/" in request.url.path:
            if model not in MODELS or model in self.cheats.expired_models:
                return self.nothing("model")
        elif job is None or name in self.undeployed:
            return self.nothing("endpoint with a model")
        asked = orjson.loads(await request.body())
        if not asked.get("contents"):
            return self.refusal(400, "INVALID_ARGUMENT", "contents is not specified.", "contents")
        return json_response(generated(asked, model, at_time(self.now())))

    def nothing(self, what: str) -> Response:
        return self.refusal(404, "NOT_FOUND", f"The {what} is not found.")


def _measured(point: Point) -> dict[str, Any]:
    row: dict[str, Any] = {
        "step": point.step,
        "train_total_loss": point.training_loss,
        "train_fraction_of_correct_next_step_preds": point.training_accuracy,
    }
    if point.validation_loss is not None:
        row["eval_total_loss"] = point.validation_loss
        row["eval_fraction_of_correct_next_step_preds"] = point.validation_accuracy
    return row
