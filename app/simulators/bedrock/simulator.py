"""A simulated Amazon Bedrock, with the bucket that its data lies in, on one socket.

Paths, fields, patterns and errors are those of the service's model in botocore 1.44.5. Every
signature is checked. Claude 3 Haiku can still be tuned here, though its end of life is over. It
trains nothing.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.simulators.answers import at_time, json_response
from app.simulators.bedrock.base import FOUNDATION, MODELS, OWN, Job, Refused, invalid, missing
from app.simulators.bedrock.cases import check_lines
from app.simulators.bedrock.events import WORDS, Events
from app.simulators.bedrock.serving import Serving, final
from app.simulators.bedrock.signing import Doors
from app.simulators.bedrock.storage import Storage
from app.simulators.cases import count_tokens, read_lines
from app.simulators.runs import Phase, Plan, Run

_JOBS = "/model-customization-jobs"
_FEWEST_LINES = 8  # theirs are 8 for Nova and 32 for Claude; enough to notice an empty file
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


class BedrockSimulator(Doors, Storage, Serving, Events):
    name = "bedrock"
    creating: ClassVar[tuple[str, ...]] = (_JOBS,)

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.details = True
        """Whether jobs tell `statusDetails`, which are promised for distillation only."""

    def routes(self) -> list[Route]:
        table: list[tuple[str, str, Any]] = [
            ("POST", _JOBS, self.create),
            ("GET", _JOBS, self.list_jobs),
            ("POST", f"{_JOBS}/{{id:path}}/stop", self.stop),
            ("GET", f"{_JOBS}/{{id:path}}", self.get_job),
            *self.serving_routes(),
        ]
        return [
            Route("/_targets", self.set_targets, methods=["GET", "PUT"]),
            *(Route(path, self.door(do), methods=[verb]) for verb, path, do in table),
            *(
                Route(path, self.s3_door(do), methods=[verb])
                for verb, path, do in self.storage_routes()
            ),
        ]

    async def create(self, request: Request) -> Response:
        asked = await self.asked(request, "jobName", "customModelName", "roleArn",
                                 "baseModelIdentifier", "trainingDataConfig", "outputDataConfig",
                                 )  # fmt: skip
        if (before := self.repeated(asked, self.jobs.values())) is not None:
            return json_response({"jobArn": before.run.id}, 201)
        if any(job.asked["jobName"] == asked["jobName"] for job in self.jobs.values()):
            raise Refused(400, "ConflictException", "The job name is already in use.")
        base = str(asked["baseModelIdentifier"]).removeprefix(FOUNDATION)
        if base not in MODELS or base in self.cheats.expired_models:
            raise invalid("The provided model identifier is invalid.")
        if asked.get("customizationType", "FINE_TUNING") != "FINE_TUNING":
            raise invalid("The simulator knows the customization type FINE_TUNING only.")
        told = self._numbers(asked.get("hyperParameters") or {}, base)
        training = self.read(asked["trainingDataConfig"].get("s3Uri"))
        validators = (asked.get("validationDataConfig") or {}).get("validators") or []
        validation = [self.read(one.get("s3Uri")) for one in validators]
        self.bucket_of(asked["outputDataConfig"].get("s3Uri"))
        lines, wrong = read_lines(training)
        wrong = wrong or check_lines(lines, base, _FEWEST_LINES)
        for content in validation:
            more, bad = read_lines(content)
            wrong = wrong or bad or check_lines(more, base, 1)
        number = self.id("")[:12]
        run = Run(
            id=f"{OWN}model-customization-job/{base}/{number}",
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

    def _numbers(self, told: Mapping[str, Any], base: str) -> dict[str, str]:
        known = CLAUDE_NUMBERS if base.startswith("anthropic.") else OTHER_NUMBERS
        for name, value in told.items():
            if name not in known:
                raise invalid(f"Hyperparameter {name} is not supported for {base}.")
            _, least, most = known[name]
            if not isinstance(value, str) or not _is_between(value, least, most):
                raise invalid(f"Hyperparameter {name} must be between {least} and {most}.")
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
        raise missing("The provided job identifier does not exist.")

    def summary(self, job: Job) -> dict[str, Any]:
        run = job.run
        row = {
            "jobArn": run.id,
            "jobName": job.asked["jobName"],
            "baseModelArn": FOUNDATION + job.base_model,
            "status": self.word(run, WORDS[run.phase]),
            "creationTime": at_time(run.created_at),
            "lastModifiedTime": at_time(run.entered_at),
            "customModelName": job.asked["customModelName"],
            "customizationType": "FINE_TUNING",
        }
        if self.details:
            row["statusDetails"] = _details(run)
        if run.finished_at:
            row["endTime"] = at_time(run.finished_at)
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
            shown |= {"outputModelArn": job.model_arn, **final(run)}
        return {name: value for name, value in shown.items() if value is not None}


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
            "creationTime": at_time(begun[number]),
            "lastModifiedTime": at_time(changed),
        }
    return found


def _is_between(value: str, least: float, most: float) -> bool:
    try:
        return least <= float(value) <= most
    except ValueError:
        return False
