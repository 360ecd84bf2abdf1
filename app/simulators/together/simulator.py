"""A simulated Together: files, fine-tuning jobs, their events, checkpoints and metrics, endpoints.

Wire format: the SDK 3.1.1's types, and Together's page on training metrics. It trains nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.simulators.answers import at_time, json_response
from app.simulators.cases import count_tokens, read_lines
from app.simulators.runs import OVER, Phase, Plan, Run
from app.simulators.together.events import events_of, metrics_of
from app.simulators.together.limits import MODELS, limits_of, wrong_with
from app.simulators.together.old_endpoints import SLUG, MadeModel
from app.simulators.together.serving import PROJECT, ServingSimulator

WORDS = {
    Phase.VALIDATING: "pending",
    Phase.QUEUED: "queued",
    Phase.RUNNING: "running",
    Phase.STOPPING: "cancel_requested",
    Phase.SUCCEEDED: "completed",
    Phase.FAILED: "error",
    Phase.CANCELLED: "cancelled",
}
_DOLLARS = 0.48  # per million tokens
_SETTLED_BATCH = 8


@dataclass
class Job:
    run: Run
    asked: dict[str, Any]

    @property
    def epochs(self) -> int:
        return int(self.asked.get("n_epochs") or 1)

    @property
    def lora(self) -> bool:
        return (self.asked.get("training_type") or {}).get("type") != "Full"

    @property
    def name(self) -> str:
        base = str(self.asked["model"]).rpartition("/")[2]
        suffix = self.asked.get("suffix")
        return f"{SLUG}/{base}-" + (f"{suffix}-" if suffix else "") + self.run.id[3:11]

    @property
    def checkpoint_steps(self) -> list[int]:
        """Evenly, the last at the end."""
        many, steps = int(self.asked.get("n_checkpoints") or 1), self.run.plan.steps
        return sorted({steps * number // many for number in range(1, many + 1)} - {0})


class TogetherSimulator(ServingSimulator):
    name = "together"
    creating: ClassVar[tuple[str, ...]] = ("/v1/fine-tunes",)
    key_prefix = "tgp_"

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.jobs: dict[str, Job] = {}

    def routes(self) -> list[Route]:
        jobs = "/v1/fine-tunes"
        table: list[tuple[str, str, Any]] = [
            ("GET", f"{jobs}/models/limits", self.limits),
            ("GET", f"{jobs}/models/supported", self.supported),
            ("POST", f"{jobs}/estimate-price", self.estimate),
            ("POST", jobs, self.create),
            ("GET", jobs, self.list_jobs),
            ("GET", f"{jobs}/{{id}}", self.get_job),
            ("DELETE", f"{jobs}/{{id}}", self.delete_job),
            ("POST", f"{jobs}/{{id}}/cancel", self.cancel),
            ("GET", f"{jobs}/{{id}}/events", self.events),
            ("GET", f"{jobs}/{{id}}/checkpoints", self.checkpoints),
            ("GET", f"{jobs}/{{id}}/metrics", self.metrics),
            ("GET", "/v1/finetune/download", self.download),
            *self.file_routes(),
            *self.serving_routes(),
            *self.old_routes(),
        ]
        return [
            Route(path, self.door(handler), methods=[method]) for method, path, handler in table
        ]

    def door(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            if not given.startswith(f"Bearer {self.key_prefix}"):
                return self.refusal(
                    401, "invalid_api_key", f"Invalid API key provided: {given[7:]}."
                )
            if request.path_params.get("project", PROJECT) != PROJECT:
                return self.nothing("project")
            response: Response = await handler(request)
            return response

        return answer

    # What can be tuned

    async def limits(self, request: Request) -> Response:
        model = request.query_params.get("model_name", "")
        if not self.tunable(model):
            return self.refusal(404, "model_not_found", f"{model} cannot be tuned.", "model_name")
        return json_response(limits_of(self.base_of(model)))

    async def supported(self, request: Request) -> Response:
        names = [name for name in MODELS if self.tunable(name)]
        parents = [{"name": name, "parent_model": name} for name in names]
        return json_response({"models": names, "detailed_models": parents})

    def tunable(self, model: str) -> bool:
        return self.base_of(model) in MODELS and model not in self.cheats.expired_models

    def base_of(self, model: str) -> str:
        """Of a job's id or its model's name, the base."""
        for job in self.jobs.values():
            if model.partition(":")[0] in (job.run.id, job.name):
                return str(job.asked["model"])
        return model

    async def estimate(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        epochs, evals = int(asked.get("n_epochs") or 1), int(asked.get("n_evals") or 0)
        tokens = {}
        for name, short in (("training_file", "train"), ("validation_file", "eval")):
            file = self.files.get(asked.get(name) or "")
            if asked.get(name) and file is None:
                return self.refusal(404, "not_found", f"There is no file {asked[name]}.", name)
            state = self.state_of(file) if file else "COMPLETED"
            if state != "COMPLETED":
                why = "invalid" if state == "INVALID_FORMAT" else "not_validated"
                unknown = {"unavailable_reason": f"{short}_file_{why}"}
                return json_response({"estimation_available": False, **unknown})
            tokens[short] = count_tokens(read_lines(file.content or b"")[0]) if file else 0
        trained, evaluated = tokens["train"] * epochs, tokens["eval"] * evals
        return json_response(
            {
                "estimation_available": True,
                "estimated_total_price": (trained + evaluated) * _DOLLARS / 1e6,
                "allowed_to_proceed": True,
                "user_limit": 100.0,
                "estimated_train_token_count": trained,
                "estimated_eval_token_count": evaluated,
            }
        )

    # Jobs

    async def create(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        if start := asked.get("from_checkpoint"):
            asked["model"] = asked.get("model") or self.base_of(start)
        if not self.tunable(str(asked.get("model") or "")):
            return self.refusal(
                404, "model_not_found", f"{asked.get('model')} cannot be tuned.", "model"
            )
        if wrong := wrong_with(asked) or self.wrong_file(asked):
            param, message = wrong
            return self.refusal(400, "invalid_request", message, param)
        return json_response(self.row(self.begin(asked)))

    def wrong_file(self, asked: dict[str, Any]) -> tuple[str, str] | None:
        method = (asked.get("training_method") or {}).get("method", "sft")
        for name in ("training_file", "validation_file"):
            if name == "validation_file" and not asked.get(name):
                continue
            file = self.files.get(str(asked.get(name)))
            if file is None or file.content is None:
                return name, f"There is no file {asked.get(name)}."
            if self.state_of(file) == "INVALID_FORMAT":
                return name, f"The file {file.id} is not valid: {file.wrong}"
            if file.format and (file.format == "PREFERENCE_OPENAI") != (method == "dpo"):
                return name, f"The format {file.format} is not one for {method}."
        return None

    def begin(self, asked: dict[str, Any]) -> Job:
        lines, _ = read_lines(self.files[asked["training_file"]].content or b"")
        seed = asked.get("random_seed")
        # A cancelled job takes a while to end, always.
        stopping = self.plan.stopping or self.plan.step_seconds
        run = Run(
            id=self.id("ft-"),
            created_at=self.now(),
            plan=replace(self.plan, stopping=stopping),
            seed=42 if seed is None else seed,
            tokens=count_tokens(lines) * int(asked.get("n_epochs") or 1),
            has_validation=bool(asked.get("validation_file") and asked.get("n_evals")),
        )
        job = Job(run, asked)
        self.runs[run.id], self.jobs[run.id] = run, job
        return job

    async def list_jobs(self, request: Request) -> Response:
        return json_response({"data": [self.row(self.jobs[run.id]) for run in self.newest()]})

    async def get_job(self, request: Request) -> Response:
        return self.about(request, self.whole)

    async def cancel(self, request: Request) -> Response:
        job = self.job_of(request)
        if job and job.run.phase in OVER:
            word = WORDS[job.run.phase]
            return self.refusal(400, "invalid_request", f"A job that is {word} has ended.")
        if job:
            job.run.cancel(self.now())
        return self.about(request, self.row)

    async def delete_job(self, request: Request) -> Response:
        job = self.job_of(request)
        if job and job.run.phase not in OVER:
            return self.refusal(400, "invalid_request", "Cancel the job before it is deleted.")
        if job:
            del self.jobs[job.run.id], self.runs[job.run.id]
            return json_response({"message": f"Fine-tune job {job.run.id} deleted."})
        return self.nothing("fine-tune job")

    async def events(self, request: Request) -> Response:
        return self.about(request, lambda job: {"data": self.told(job)})

    async def checkpoints(self, request: Request) -> Response:
        return self.about(request, lambda job: {"data": self.saved(job)})

    async def metrics(self, request: Request) -> Response:
        asked: dict[str, Any] = dict(request.query_params)
        for name in ("logged_at_from", "logged_at_to"):
            if name in asked:
                asked[name] = datetime.fromisoformat(asked[name]).timestamp()
        return self.about(request, lambda job: {"metrics": metrics_of(job.run, job.epochs, asked)})

    async def download(self, request: Request) -> Response:
        asked = request.query_params
        run = self.run_of(asked.get("ft_id", ""))
        if run is None:
            return self.nothing("fine-tune job")
        job, step = self.jobs[run.id], int(asked.get("checkpoint_step") or 0)
        kinds = ("merged", "adapter") if job.lora else ("model_output_path",)
        if not step and asked.get("checkpoint") not in kinds:
            return self.refusal(400, "invalid_request", f"One of {kinds}.", "checkpoint")
        if self.status_of(run) != "completed":
            return self.refusal(400, "invalid_request", "The job has not completed.", "ft_id")
        words = f"simulated weights of {job.name}, step {step or run.plan.steps}"
        return Response(words.encode(), media_type="application/x-tar")

    def about(self, request: Request, show: Callable[[Job], dict[str, Any]]) -> Response:
        job = self.job_of(request)
        return json_response(show(job)) if job else self.nothing("fine-tune job")

    def job_of(self, request: Request) -> Job | None:
        run = self.run_of(request.path_params["id"])
        return self.jobs[run.id] if run else None

    def status_of(self, run: Run) -> str:
        """Training ends before the job does: its model is still put away."""
        if run.phase is Phase.SUCCEEDED:
            passed = self.now() - run.entered_at
            for word, share in (("compressing", 0.5), ("uploading", 1.0)):
                if passed < share * run.plan.step_seconds:
                    return word
        return self.word(run, WORDS[run.phase])

    def told(self, job: Job) -> list[dict[str, Any]]:
        done = self.status_of(job.run) == "completed"
        return events_of(job.run, job.name, job.checkpoint_steps, job.epochs, done)

    def row(self, job: Job) -> dict[str, Any]:
        """What is said of a job in a list, and to who makes or cancels it."""
        run, asked = job.run, job.asked
        left = (run.plan.steps - run.step) * run.plan.step_seconds
        running = run.phase is Phase.RUNNING
        price = run.trained_tokens * _DOLLARS / 1e6 if run.phase in OVER else 0
        return {
            **{name: asked[name] for name in _ECHOED if name in asked},
            "id": run.id,
            "status": self.status_of(run),
            "user_id": "user_simulated",
            "created_at": at_time(run.created_at),
            "updated_at": at_time(run.points[-1].at if running and run.points else run.entered_at),
            "started_at": at_time(run.entered_at) if running else None,
            "model_output_name": job.name,
            "adapter_output_name": f"{job.name}-adapter" if job.lora else None,
            "n_epochs": job.epochs,
            "batch_size": _SETTLED_BATCH
            if asked.get("batch_size") in (None, "max")
            else asked["batch_size"],
            "training_type": asked.get("training_type")
            or {"type": "Lora", "lora_r": 8, "lora_alpha": 16},
            "token_count": run.trained_tokens,
            "total_price": int(price * 1e9),
            "progress": {"estimate_available": running, "seconds_remaining": int(left)},
            "random_seed": run.seed,
            "suffix": asked.get("suffix"),
            "events": self.told(job),
        }

    def whole(self, job: Job) -> dict[str, Any]:
        """More than a row, but for the suffix and the seed, which the SDK's type does not have."""
        run, row = job.run, self.row(job)
        for name in ("suffix", "random_seed"):
            row.pop(name)
        made = {model.name: model for model in self.made_by(job)}
        for kind, name in (("model", job.name), ("adapter", f"{job.name}-adapter")):
            if name in made:
                row[f"{kind}_object_id"] = made[name].id
                row[f"{kind}_object_name"] = name
                row[f"{kind}_object_revision_id"] = "rv_simulated"
        return row | {
            "epochs_completed": run.step * job.epochs // run.plan.steps,
            "eval_steps": run.plan.steps // 4 if run.has_validation else 0,
            "model_output_path": f"s3://simulated/{job.name}" if made else None,
            "queue_depth": 0,
            "param_count": MODELS[job.asked["model"]],
        }

    def saved(self, job: Job) -> list[dict[str, Any]]:
        rows = []
        for model in self.made_by(job):
            last, step = job.run.plan.steps, _step_of(model.name) or job.run.plan.steps
            kind = "Final" if step == last else "Intermediate"
            rows.append(
                {
                    "step": step,
                    "created_at": at_time(job.run.at(step).at),
                    "path": f"s3://simulated/{model.name}",
                    "checkpoint_type": f"{kind} {'Adapter' if model.adapter else 'Model'}"
                    f" (step {step})",
                    "checkpoint": "adapter" if model.adapter else "model",
                    "object_id": model.id,
                    "object_name": model.name,
                    "object_revision_id": "rv_simulated",
                }
            )
        return sorted(rows, key=lambda row: row["step"])

    # Models

    def made(self) -> list[MadeModel]:
        return [model for run in self.newest() for model in self.made_by(self.jobs[run.id])]

    def made_by(self, job: Job) -> list[MadeModel]:
        run, base = job.run, str(job.asked["model"])
        found = []
        for step in job.checkpoint_steps[:-1]:
            if step <= run.step:
                name = f"{job.name}-step-{step}"
                found.append(MadeModel(f"ml_{run.id[3:15]}{step}", name, base, job.lora))
        if self.status_of(run) == "completed":
            found.append(MadeModel(f"ml_{run.id[3:15]}", job.name, base, False))
            if job.lora:
                adapter = f"{job.name}-adapter"
                found.append(MadeModel(f"ml_{run.id[3:15]}a", adapter, base, True))
        return found


_ECHOED = (
    "model",
    "training_file",
    "validation_file",
    "training_method",
    "learning_rate",
    "lr_scheduler",
    "warmup_ratio",
    "max_grad_norm",
    "weight_decay",
    "max_seq_length",
    "packing",
    "n_checkpoints",
    "n_evals",
    "from_checkpoint",
    "wandb_project_name",
)


def _step_of(name: str) -> int | None:
    _, marked, step = name.rpartition("-step-")
    return int(step) if marked and step.isdigit() else None
