"""A simulated Fireworks AI: datasets, both kinds of tuning jobs, checkpoints, and serving.

Only supervised jobs show progress, cost and a signed URL of their metrics; a preference job's
metrics are asked for (types of fireworks-ai 1.2.28). The columns of the metrics file are our guess.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.simulators.answers import json_response
from app.simulators.cases import check_lines, count_tokens, read_lines
from app.simulators.fireworks.base import ACCOUNT, when
from app.simulators.fireworks.datasets import FireworksDatasets
from app.simulators.fireworks.serving import FireworksServing, Model
from app.simulators.runs import Phase, Plan, Point, Run

SFT, DPO = "supervisedFineTuningJobs", "dpoJobs"
WORDS = {
    Phase.VALIDATING: "VALIDATING",
    Phase.QUEUED: "PENDING",
    Phase.RUNNING: "RUNNING",
    Phase.PAUSED: "PAUSED",
    Phase.STOPPING: "CANCELLING",
    Phase.SUCCEEDED: "COMPLETED",
    Phase.FAILED: "FAILED",
    Phase.CANCELLED: "CANCELLED",
}
_FEWEST_LINES = 3
_PRICE = 0.5e-6
_AUTOMATIC = {
    "epochs": 1,
    "learningRate": 1e-4,
    "loraRank": 8,
    "maxContextLength": 8192,
    "batchSize": 65536,
}


@dataclass
class Job:
    """What was asked, beside its run."""

    run: Run
    kind: str
    name: str
    asked: dict[str, Any]
    training: dict[str, Any]
    metrics_url: str = ""
    metrics_url_ends: float = 0.0


class FireworksSimulator(FireworksDatasets, FireworksServing):
    creating: ClassVar[tuple[str, ...]] = (f"/{SFT}", f"/{DPO}")

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.jobs: dict[str, Job] = {}

    def table(self) -> list[tuple[str, str, Any]]:
        jobs = f"{ACCOUNT}/{{kind}}"
        own: list[tuple[str, str, Any]] = [
            ("GET", "/v1/accounts", self.list_accounts),
            ("GET", f"{ACCOUNT}/operations/{{id}}", self.operation),
        ]
        # The other kinds of things have their routes before these, which take any.
        rest: list[tuple[str, str, Any]] = [
            ("POST", jobs, self.create),
            ("GET", jobs, self.list_jobs),
            ("POST", f"{jobs}/{{id}}:cancel", self.cancel),
            ("POST", f"{jobs}/{{id}}:resume", self.resume),
            ("GET", f"{jobs}/{{id}}:getMetricsFileEndpoint", self.metrics_endpoint),
            ("GET", f"{jobs}/{{id}}/checkpoints", self.checkpoints),
            ("POST", f"{jobs}/{{id}}/checkpoints/{{checkpoint}}:promote", self.promote),
            ("GET", f"{jobs}/{{id}}", self.get_job),
            ("DELETE", f"{jobs}/{{id}}", self.delete_job),
        ]
        return [*own, *FireworksDatasets.table(self), *FireworksServing.table(self), *rest]

    async def list_accounts(self, request: Request) -> Response:
        row = {"name": f"accounts/{self.account}", "email": "owner@acme.example", "state": "READY"}
        return self.page(request, "accounts", [row])

    # Jobs

    async def create(self, request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind not in (SFT, DPO):
            return self.nothing("such thing")
        asked = orjson.loads(await request.body())
        parameter = "supervisedFineTuningJobId" if kind == SFT else "dpoJobId"
        id = request.query_params.get(parameter) or self.id("")[:16]
        training = asked if kind == SFT else asked.get("trainingConfig") or {}
        output = self.full("models", training.get("outputModel") or id)
        if wrong := self.wrong_id(id, "A job's id") or self.wrong_id(
            output.rsplit("/", 1)[-1], "outputModel"
        ):
            return wrong
        if f"{kind}/{id}" in self.runs:
            return self.no("ALREADY_EXISTS", f"There is a job {kind}/{id}.")
        if output in self.made():
            return self.no("ALREADY_EXISTS", f"There is a model {output}.")
        starts = [training[name] for name in ("baseModel", "warmStartFrom") if training.get(name)]
        if len(starts) != 1 or not self.known(starts[0]):
            return self.no("INVALID_ARGUMENT", "baseModel or warmStartFrom must name a model.")
        for name in ("dataset", "evaluationDataset"):
            if asked.get(name) or name == "dataset":
                found = self.datasets.get(self.full("datasets", str(asked.get(name))))
                if not self.is_ready(found):
                    return self.no("INVALID_ARGUMENT", f"{name} {asked.get(name)} is not ready.")
        return json_response(
            self.job_object(request, self.begin(kind, id, asked, training, output))
        )

    def begin(
        self, kind: str, id: str, asked: dict[str, Any], training: dict[str, Any], output: str
    ) -> Job:
        content = self.datasets[self.full("datasets", asked["dataset"])].content
        lines, wrong = read_lines(content)
        wrong = wrong or check_lines(lines, "dpo" if kind == DPO else "supervised", _FEWEST_LINES)
        settled = {**_AUTOMATIC, **{key: value for key, value in training.items() if value}}
        run = Run(
            id=f"{kind}/{id}",
            created_at=self.now(),
            plan=self.plan,
            seed=self.chance.randrange(2**31),
            tokens=count_tokens(lines) * int(settled["epochs"]),
            has_validation=bool(asked.get("evaluationDataset") or asked.get("evalAutoCarveout")),
            failure=("INVALID_ARGUMENT", wrong, None) if wrong else None,
        )
        name = f"accounts/{self.account}/{kind}/{id}"
        job = Job(run, kind, name, asked, {**settled, "outputModel": output})
        self.runs[run.id], self.jobs[run.id] = run, job
        return job

    def job_of(self, request: Request) -> Job | None:
        run = self.run_of(f"{request.path_params['kind']}/{request.path_params['id']}")
        return self.jobs[run.id] if run else None

    def job_object(self, request: Request, job: Job) -> dict[str, Any]:
        run, failure = job.run, job.run.failure if job.run.phase is Phase.FAILED else None
        # A status has gRPC's name, whatever the reason.
        status = {"code": "INVALID_ARGUMENT", "message": failure[1]} if failure else {"code": "OK"}
        found = {
            "name": job.name,
            "state": self.word(run, f"JOB_STATE_{WORDS[run.phase]}"),
            "status": {"message": "", **status},
            "createTime": when(run.created_at),
            "updateTime": when(run.entered_at),
            "completedTime": when(run.finished_at),
            "createdBy": "owner@acme.example",
        }
        if job.kind == DPO:
            loss = {"method": "GRPO", **(job.asked.get("lossConfig") or {})}
            return {**job.asked, "trainingConfig": job.training, "lossConfig": loss, **found}
        share, epochs = run.step / run.plan.steps, int(job.training["epochs"])
        cost = round(run.tokens * _PRICE * 1e9)
        return {
            **job.training,
            **found,
            "jobProgress": {
                "percent": int(100 * share),
                "epoch": min(epochs - 1, int(epochs * share)),
                "inputTokens": run.trained_tokens,
                "outputTokens": 0,
            },
            "estimatedCost": {
                "currencyCode": "USD",
                "units": str(cost // 10**9),
                "nanos": cost % 10**9,
            },
            "metricsFileSignedUrl": self.metrics_url(request, job),
            "trainerLogsSignedUrl": "",
        }

    async def list_jobs(self, request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind not in (SFT, DPO):
            return self.nothing("such thing")
        jobs = [self.jobs[run.id] for run in self.newest() if self.jobs[run.id].kind == kind]
        return self.page(request, kind, [self.job_object(request, job) for job in jobs])

    async def get_job(self, request: Request) -> Response:
        job = self.job_of(request)
        return json_response(self.job_object(request, job)) if job else self.nothing("such job")

    async def delete_job(self, request: Request) -> Response:
        job = self.job_of(request)
        if job is None:
            return self.nothing("such job")
        del self.runs[job.run.id]
        return json_response({})

    async def cancel(self, request: Request) -> Response:
        job = self.job_of(request)
        if job is None:
            return self.nothing("such job")
        if not job.run.cancel(self.now()):
            return self.no("FAILED_PRECONDITION", f"The job is {WORDS[job.run.phase]}.")
        return json_response({})

    async def resume(self, request: Request) -> Response:
        job = self.job_of(request)
        if job is None:
            return self.nothing("such job")
        if not job.run.resume(self.now()):
            return self.no("FAILED_PRECONDITION", f"The job is {WORDS[job.run.phase]}.")
        return json_response(self.job_object(request, job))

    # Metrics

    async def metrics_endpoint(self, request: Request) -> Response:
        job = self.job_of(request)
        if job is None:
            return self.nothing("such job")
        url = self.metrics_url(request, job)
        return json_response({"signedUrl": url}) if url else self.nothing("metrics yet")

    def metrics_url(self, request: Request, job: Job) -> str:
        """The same for a while, then a new one."""
        if job.run.points and self.now() > job.metrics_url_ends - self.signed_for / 2:
            name = f"{job.name}/metrics.jsonl"
            job.metrics_url = self.sign(request, "GET", name, lambda _: metrics_file(job))
            job.metrics_url_ends = self.now() + self.signed_for
        return job.metrics_url

    # Checkpoints

    def saved(self, job: Job) -> list[int]:
        """At each so many steps, if that was asked for, and in the end."""
        every, run = int(job.training.get("samplerCheckpointSaveIntervalSteps") or 0), job.run
        last = run.step if run.phase is Phase.SUCCEEDED else None
        return [p.step for p in run.points if p.step == last or (every and p.step % every == 0)]

    async def checkpoints(self, request: Request) -> Response:
        job = self.job_of(request)
        if job is None:
            return self.nothing("such job")
        rows = []
        for step in self.saved(job):
            at = when(job.run.at(step).at)
            for id, kind, promotable in (
                (f"step-{step}", "INFERENCE_LORA", True),
                (f"state-{step}", "TRAINING_LORA", False),
            ):
                rows.append(
                    {
                        "name": f"{job.name}/checkpoints/{id}",
                        "createTime": at,
                        "updateTime": at,
                        "checkpointType": f"CHECKPOINT_TYPE_{kind}",
                        "promotable": promotable,
                    }
                )
        return self.page(request, "checkpoints", rows)

    async def promote(self, request: Request) -> Response:
        job, id = self.job_of(request), request.path_params["checkpoint"]
        if job is None or id not in [f"step-{step}" for step in self.saved(job)]:
            return self.nothing("such checkpoint, or it cannot be promoted,")
        asked = orjson.loads(await request.body())
        name = self.full("models", str(asked.get("output_model") or ""))
        if wrong := self.wrong_id(name.rsplit("/", 1)[-1], "output_model"):
            return wrong
        if name in self.made():
            return self.no("ALREADY_EXISTS", f"There is a model {name}.")
        if asked.get("base_model") != self.base_of(job):
            return self.no("INVALID_ARGUMENT", f"base_model is not {self.base_of(job)}.")
        now = self.now()
        model = Model(name, self.base_of(job), job.name, now, now + self.settling)
        self.promoted[name] = model
        if not asked.get("async_promotion"):
            return json_response({"model": self.model_object(model)})
        return json_response({"operation": self.operation_object(model)})

    def operation_object(self, model: Model) -> dict[str, Any]:
        id, done = model.name.rsplit("/", 1)[-1], model.ready_at <= self.now()
        found = {"name": f"accounts/{self.account}/operations/{id}", "done": done}
        kind = {"@type": "type.googleapis.com/gateway.Model"}
        return {**found, "response": {**kind, **self.model_object(model)}} if done else found

    async def operation(self, request: Request) -> Response:
        model = self.promoted.get(self.full("models", request.path_params["id"]))
        return json_response(self.operation_object(model)) if model else self.nothing("operation")

    # Models

    def base_of(self, job: Job) -> str:
        """Of an adapter that was trained on, its base."""
        if base := job.training.get("baseModel"):
            return str(base)
        return self.made()[job.training["warmStartFrom"]].base

    def tuned(self) -> dict[str, Model]:
        found: dict[str, Model] = {}
        for run in reversed(self.newest()):
            job, at = self.jobs[run.id], run.finished_at
            if run.phase is Phase.SUCCEEDED and at is not None:
                training = job.training
                start = training.get("baseModel") or training["warmStartFrom"]
                before = found.get(start) or self.promoted.get(start)
                base = before.base if before else start
                name = training["outputModel"]
                found[name] = Model(name, base, job.name, at, at, training["loraRank"])
        return found


def metrics_file(job: Job) -> bytes:
    """JSON lines."""
    return b"".join(orjson.dumps(_row(job, point)) + b"\n" for point in job.run.points)


def _row(job: Job, point: Point) -> dict[str, Any]:
    steps, epochs = job.run.plan.steps, job.training["epochs"]
    row = {
        "step": point.step,
        "epoch": round(epochs * point.step / steps, 4),
        "loss": point.training_loss,
        "accuracy": point.training_accuracy,
        "learning_rate": job.training["learningRate"] * (1 - point.step / steps),
    }
    if point.validation_loss is not None:
        row |= {"eval_loss": point.validation_loss, "eval_accuracy": point.validation_accuracy}
    if job.kind == DPO:
        gain = round(point.step / steps, 4)
        row |= {"rewards/chosen": gain, "rewards/rejected": -gain, "rewards/margins": 2 * gain}
    return row
