"""A simulated OpenAI: files, fine-tuning jobs, events, checkpoints, models, chat, webhooks.

Answers carry every field that the SDK's types name (openai-openapi 2.3.0). It trains nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.simulators.answers import chat_answer, json_response
from app.simulators.cases import check_lines, count_tokens, read_lines
from app.simulators.openai.events import events_of, result_csv
from app.simulators.openai.files import OpenAIFiles
from app.simulators.openai.webhooks import OpenAIWebhooks
from app.simulators.runs import OVER, Phase, Plan, Run

WORDS = {
    Phase.VALIDATING: "validating_files",
    Phase.QUEUED: "queued",
    Phase.RUNNING: "running",
    Phase.PAUSED: "paused",
    Phase.STOPPING: "running",
    Phase.SUCCEEDED: "succeeded",
    Phase.FAILED: "failed",
    Phase.CANCELLED: "cancelled",
}
MODELS: dict[str, str | None] = {
    "gpt-4.1-2025-04-14": "2027-01-14",
    "gpt-4.1-mini-2025-04-14": "2027-01-14",
    "gpt-4.1-nano-2025-04-14": None,
    "gpt-4o-2024-08-06": "2027-01-14",
    "gpt-4o-mini-2024-07-18": "2027-01-14",
    "o4-mini-2025-04-16": None,
}


@dataclass
class Job:
    """What was asked, beside its run."""

    run: Run
    asked: dict[str, Any]
    suffix: str | None
    result_file: str | None = None
    announced: bool = False
    lines: int = 0


class OpenAISimulator(OpenAIFiles, OpenAIWebhooks):
    name = "openai"
    creating: ClassVar[tuple[str, ...]] = ("/fine_tuning/jobs",)

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.jobs: dict[str, Job] = {}
        self.deleted_models: set[str] = set()

    def table(self) -> list[tuple[str, str, Any]]:
        jobs = "/fine_tuning/jobs"
        return [
            *self.file_routes(),
            ("POST", jobs, self.create),
            ("GET", jobs, self.list_jobs),
            ("GET", f"{jobs}/{{id}}", self.get_job),
            ("POST", f"{jobs}/{{id}}/cancel", self.cancel),
            ("POST", f"{jobs}/{{id}}/pause", self.pause),
            ("POST", f"{jobs}/{{id}}/resume", self.resume),
            ("GET", f"{jobs}/{{id}}/events", self.events),
            ("GET", f"{jobs}/{{id}}/checkpoints", self.checkpoints),
            ("GET", "/models", self.list_models),
            ("GET", "/models/{id:path}", self.get_model),
            ("DELETE", "/models/{id:path}", self.delete_model),
            ("POST", "/chat/completions", self.chat),
            *self.webhook_routes(),
        ]

    # Jobs

    async def create(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        for name in ("model", "training_file"):
            if not asked.get(name):
                return self.refusal(400, "missing_required_parameter", f"{name} is required.", name)
        if not self.tunable(asked["model"]):
            return self.refusal(
                404, "model_not_found", f"The model {asked['model']} cannot be tuned.", "model"
            )
        for name in ("training_file", "validation_file"):
            if asked.get(name) and asked[name] not in self.files:
                return self.refusal(400, "invalid_file", f"There is no file {asked[name]}.", name)
        job = self.begin(asked)
        return json_response(self.job_object(job), self.created_status)

    created_status = 200

    def tunable(self, model: str) -> bool:
        return model in MODELS or model.startswith("ft:")

    def begin(self, asked: dict[str, Any]) -> Job:
        method = (asked.get("method") or {}).get("type", "supervised")
        lines, wrong = read_lines(self.files[asked["training_file"]].content)
        wrong = wrong or check_lines(lines, method)
        told = ((asked.get("method") or {}).get(method) or {}).get("hyperparameters") or {}
        epochs = told.get("n_epochs", "auto")
        epochs = 3 if epochs in ("auto", None) else epochs
        seed = asked.get("seed")
        run = Run(
            id=self.id("ftjob-"),
            created_at=self.now(),
            plan=self.plan,
            seed=seed if seed is not None else self._seed(),
            tokens=count_tokens(lines) * int(epochs),
            has_validation=bool(asked.get("validation_file")),
            failure=("invalid_training_file", wrong, "training_file") if wrong else None,
        )
        job = Job(run, asked, asked.get("suffix"), lines=len(lines))
        self.runs[run.id], self.jobs[run.id] = run, job
        return job

    def _seed(self) -> int:
        return self.chance.randrange(2**31)

    async def list_jobs(self, request: Request) -> Response:
        rows = self.newest()
        for name, value in request.query_params.items():
            if (name, value) == ("metadata", "null"):
                rows = [run for run in rows if not self.jobs[run.id].asked.get("metadata")]
            if name.startswith("metadata["):
                key = name[9:-1]
                rows = [
                    run
                    for run in rows
                    if (self.jobs[run.id].asked.get("metadata") or {}).get(key) == value
                ]
        return self.page(request, [self.job_object(self.jobs[run.id]) for run in rows], 20)

    async def get_job(self, request: Request) -> Response:
        job = self.job_of(request)
        return json_response(self.job_object(job)) if job else self.nothing("fine-tuning job")

    async def cancel(self, request: Request) -> Response:
        return self.told(request, "cancel", lambda run: run.cancel(self.now()))

    async def pause(self, request: Request) -> Response:
        return self.told(request, "pause", lambda run: run.pause(self.now()))

    async def resume(self, request: Request) -> Response:
        return self.told(request, "resume", lambda run: run.resume(self.now()))

    def told(self, request: Request, verb: str, do: Any) -> Response:
        job = self.job_of(request)
        if job is None:
            return self.nothing("fine-tuning job")
        if not do(job.run):
            word = WORDS[job.run.phase]
            return self.refusal(
                400, "invalid_request", f"Cannot {verb} a job with status {word}.", None
            )
        return json_response(self.job_object(job))

    async def events(self, request: Request) -> Response:
        job = self.job_of(request)
        if job is None:
            return self.nothing("fine-tuning job")
        return self.page(request, events_of(job.run, job.asked["training_file"])[::-1], 20)

    async def checkpoints(self, request: Request) -> Response:
        job = self.job_of(request)
        if job is None:
            return self.nothing("fine-tuning job")
        rows = [self.checkpoint(job, step) for step in reversed(job.run.checkpoint_steps)]
        return self.page(request, rows, 10)

    def ended(self) -> Iterable[Run]:
        for run in self.newest():
            job = self.jobs[run.id]
            if run.phase in OVER and not job.announced:
                job.announced = True
                yield run

    def job_of(self, request: Request) -> Job | None:
        run = self.run_of(request.path_params["id"])
        return self.jobs[run.id] if run else None

    def job_object(self, job: Job) -> dict[str, Any]:
        run, asked = job.run, job.asked
        method = asked.get("method") or {
            "type": "supervised",
            "supervised": {"hyperparameters": asked.get("hyperparameters") or {}},
        }
        kind = method["type"]
        told = (method.get(kind) or {}).get("hyperparameters") or {}
        settled = {
            name: (value if told.get(name, "auto") in ("auto", None) else told[name])
            for name, value in self.automatic(job).items()
        }
        begun = run.phase in OVER or run.phase in (Phase.RUNNING, Phase.PAUSED)
        shown = {**told, **(settled if begun else dict.fromkeys(settled, "auto") | told)}
        method = {**method, kind: {**(method.get(kind) or {}), "hyperparameters": shown}}
        if run.phase is Phase.SUCCEEDED and job.result_file is None:
            name, content = self.result(run)
            job.result_file = self.keep(name, "fine-tune-results", content).id
        failed = run.failure if run.phase is Phase.FAILED else None
        left = (run.plan.steps - run.step) * run.plan.step_seconds
        return {
            "id": run.id,
            "object": "fine_tuning.job",
            "created_at": int(run.created_at),
            "finished_at": int(run.finished_at) if run.finished_at else None,
            "model": asked["model"],
            "fine_tuned_model": self.model_name(job) if run.phase is Phase.SUCCEEDED else None,
            "organization_id": "org-simulated",
            "status": self.word(run, self.words()[run.phase]),
            "training_file": asked["training_file"],
            "validation_file": asked.get("validation_file"),
            "result_files": [job.result_file] if job.result_file else [],
            "trained_tokens": run.tokens if run.phase is Phase.SUCCEEDED else None,
            "estimated_finish": int(self.now() + left) if run.phase is Phase.RUNNING else None,
            "error": (
                {"code": failed[0], "message": failed[1], "param": failed[2]} if failed else None
            ),
            "hyperparameters": shown if kind == "supervised" else {},
            "method": method,
            "seed": run.seed,
            "metadata": asked.get("metadata"),
            "integrations": asked.get("integrations") or [],
            "user_provided_suffix": job.suffix,
        }

    def result(self, run: Run) -> tuple[str, bytes]:
        """The name and the content of the file with its metrics."""
        return "step_metrics.csv", result_csv(run.points)

    def words(self) -> dict[Phase, str]:
        return WORDS

    def automatic(self, job: Job) -> dict[str, Any]:
        return {
            "n_epochs": 3,
            "batch_size": max(1, job.lines // 50),
            "learning_rate_multiplier": 1.8,
        }

    def model_name(self, job: Job, step: int | None = None) -> str:
        base = job.asked["model"].split(":")[1 if job.asked["model"].startswith("ft:") else 0]
        name = f"ft:{base}:simulated:{job.suffix or ''}:{job.run.id[6:14]}"
        return f"{name}:ckpt-step-{step}" if step else name

    def checkpoint(self, job: Job, step: int) -> dict[str, Any]:
        point = job.run.at(step)
        last = step == job.run.plan.steps
        return {
            "id": f"ftckpt_{job.run.id[6:14]}{step}",
            "object": "fine_tuning.job.checkpoint",
            "created_at": int(point.at),
            "fine_tuned_model_checkpoint": self.model_name(job, None if last else step),
            "fine_tuning_job_id": job.run.id,
            "step_number": step,
            "metrics": {
                "step": step,
                "train_loss": point.training_loss,
                "train_mean_token_accuracy": point.training_accuracy,
                "valid_loss": point.validation_loss,
                "valid_mean_token_accuracy": point.validation_accuracy,
                "full_valid_loss": point.validation_loss,
                "full_valid_mean_token_accuracy": point.validation_accuracy,
            },
        }

    # Models and chat

    def made(self) -> dict[str, Job]:
        found = {}
        for run in self.newest():
            job = self.jobs[run.id]
            for step in run.checkpoint_steps:
                found[self.model_name(job, step)] = job
            if run.phase is Phase.SUCCEEDED:
                found[self.model_name(job)] = job
        gone = {*self.deleted_models, *self.cheats.expired_models}
        return {name: job for name, job in found.items() if name not in gone}

    async def list_models(self, request: Request) -> Response:
        bases = {
            name: ends for name, ends in MODELS.items() if name not in self.cheats.expired_models
        }
        rows = [self.model_object(name, "system", ends) for name, ends in bases.items()]
        rows += [self.model_object(name, "org-simulated", None) for name in self.made()]
        return json_response({"object": "list", "data": rows})

    async def get_model(self, request: Request) -> Response:
        id = request.path_params["id"]
        if id in MODELS and id not in self.cheats.expired_models:
            return json_response(self.model_object(id, "system", MODELS[id]))
        if id in self.made():
            return json_response(self.model_object(id, "org-simulated", None))
        return self.refusal(404, "model_not_found", f"The model {id!r} does not exist.", "model")

    async def delete_model(self, request: Request) -> Response:
        id = request.path_params["id"]
        if id not in self.made():
            return self.refusal(
                404, "model_not_found", f"The model {id!r} does not exist.", "model"
            )
        self.deleted_models.add(id)
        return json_response({"id": id, "object": "model", "deleted": True})

    def model_object(self, id: str, owner: str, ends: str | None) -> dict[str, Any]:
        return {
            "id": id,
            "object": "model",
            "created": int(self.now()),
            "owned_by": owner,
            "shutdown_date": ends,
        }

    def answers(self, model: str) -> bool:
        """Whether this name can be called."""
        return model in self.made() or (model in MODELS and model not in self.cheats.expired_models)

    async def chat(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        model = str(asked.get("model"))
        if not self.answers(model):
            return self.refusal(
                404, "model_not_found", f"The model {model!r} does not exist.", "model"
            )
        return chat_answer(asked, model, int(self.now()))
