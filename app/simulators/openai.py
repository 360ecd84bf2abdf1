"""A simulated OpenAI: files, fine-tuning jobs, events, checkpoints, models, chat, webhooks.

Answers carry every field that the SDK's types name (openai-openapi 2.3.0). It trains nothing.
"""

import asyncio
import base64
import csv
import io
import secrets
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx
import orjson
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.core import signatures
from app.simulators.runs import OVER, Phase, Plan, Point, Run
from app.simulators.simulator import Simulator, count_tokens, json_response, read_lines

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
_FEWEST_LINES = 10
_FORGED = "what a forger signs with"
MODELS: dict[str, str | None] = {
    "gpt-4.1-2025-04-14": "2027-01-14",
    "gpt-4.1-mini-2025-04-14": "2027-01-14",
    "gpt-4.1-nano-2025-04-14": None,
    "gpt-4o-2024-08-06": "2027-01-14",
    "gpt-4o-mini-2024-07-18": "2027-01-14",
    "o4-mini-2025-04-16": None,
}


@dataclass
class StoredFile:
    id: str
    filename: str
    purpose: str
    content: bytes
    created_at: float


@dataclass
class Job:
    """What was asked, beside its run."""

    run: Run
    asked: dict[str, Any]
    suffix: str | None
    result_file: str | None = None
    announced: bool = False
    lines: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Endpoint:
    id: str
    name: str
    url: str
    secret: str
    event_types: list[str]
    created_at: float


class OpenAISimulator(Simulator):
    name = "openai"
    creating: ClassVar[tuple[str, ...]] = ("/fine_tuning/jobs",)
    base = "/v1"
    key_prefix = "sk-"

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.files: dict[str, StoredFile] = {}
        self.jobs: dict[str, Job] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.deleted_models: set[str] = set()
        self.sent: list[tuple[str, int]] = []
        """Webhooks: the type, and what was answered."""

    def refusal(self, status: int, code: str, message: str, param: str | None = None) -> Response:
        kind = "invalid_request_error" if status < 500 else "server_error"
        return json_response(
            {"error": {"message": message, "type": kind, "param": param, "code": code}}, status
        )

    def routes(self) -> list[Route]:
        return [
            Route(self.base + path, self.door(handler), methods=[method])
            for method, path, handler in self.table()
        ]

    def table(self) -> list[tuple[str, str, Any]]:
        """Verb, path and handler of everything behind the door."""
        jobs = "/fine_tuning/jobs"
        return [
            ("POST", "/files", self.upload),
            ("GET", "/files", self.list_files),
            ("GET", "/files/{id}", self.get_file),
            ("DELETE", "/files/{id}", self.delete_file),
            ("GET", "/files/{id}/content", self.content),
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
            ("POST", "/webhook_endpoints", self.create_endpoint),
            ("GET", "/webhook_endpoints", self.list_endpoints),
            ("DELETE", "/webhook_endpoints/{id}", self.delete_endpoint),
        ]

    def admits(self, request: Request) -> bool:
        return request.headers.get("authorization", "").startswith(f"Bearer {self.key_prefix}")

    def door(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            if not self.admits(request):
                given = request.headers.get("authorization", "")[7:]
                return self.refusal(401, "invalid_api_key", f"Incorrect API key provided: {given}.")
            response: Response = await handler(request)
            response.headers["x-request-id"] = f"req_{secrets.token_hex(8)}"
            return response

        return answer

    # Files

    async def upload(self, request: Request) -> Response:
        form = await request.form()
        file, purpose = form.get("file"), str(form.get("purpose", ""))
        if not isinstance(file, UploadFile):
            return self.refusal(400, "missing_required_parameter", "file is required.", "file")
        if not purpose:
            return self.refusal(
                400, "missing_required_parameter", "purpose is required.", "purpose"
            )
        stored = self.keep(file.filename or "file", purpose, await file.read())
        return json_response(self.file_object(stored))

    def keep(self, filename: str, purpose: str, content: bytes) -> StoredFile:
        stored = StoredFile(self.id("file-"), filename, purpose, content, self.now())
        self.files[stored.id] = stored
        return stored

    def file_object(self, file: StoredFile) -> dict[str, Any]:
        return {
            "id": file.id,
            "object": "file",
            "bytes": len(file.content),
            "created_at": int(file.created_at),
            "filename": file.filename,
            "purpose": file.purpose,
            "status": "processed",
            "expires_at": None,
            "status_details": None,
        }

    async def list_files(self, request: Request) -> Response:
        purpose = request.query_params.get("purpose")
        rows = [f for f in self.files.values() if purpose is None or f.purpose == purpose]
        rows.sort(key=lambda f: f.created_at, reverse=request.query_params.get("order") != "asc")
        return self.page(request, [self.file_object(f) for f in rows], 10_000)

    async def get_file(self, request: Request) -> Response:
        file = self.files.get(request.path_params["id"])
        return json_response(self.file_object(file)) if file else self.nothing("file")

    async def delete_file(self, request: Request) -> Response:
        file = self.files.pop(request.path_params["id"], None)
        if file is None:
            return self.nothing("file")
        return json_response({"id": file.id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        file = self.files.get(request.path_params["id"])
        if file is None:
            return self.nothing("file")
        return Response(file.content, media_type="application/octet-stream")

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
        return self.page(request, list(reversed(self.events_of(job))), 20)

    async def checkpoints(self, request: Request) -> Response:
        job = self.job_of(request)
        if job is None:
            return self.nothing("fine-tuning job")
        rows = [self.checkpoint(job, step) for step in reversed(job.run.checkpoint_steps)]
        return self.page(request, rows, 10)

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

    def events_of(self, job: Job) -> list[dict[str, Any]]:
        """The oldest first; each always with the same id."""
        told: list[tuple[float, str, str, str, dict[str, Any] | None]] = [
            (p.at, "info", _step_words(p, job.run), "metrics", _step_data(p, job.run))
            for p in job.run.points
        ]
        for phase, at in job.run.history:
            words = {
                Phase.VALIDATING: f"Validating training file: {job.asked['training_file']}",
                Phase.QUEUED: "Files validated, moving job to queued state",
                Phase.RUNNING: "Fine-tuning job started",
                Phase.PAUSED: "Fine-tuning job paused",
                Phase.SUCCEEDED: "The job has successfully completed",
                Phase.CANCELLED: "The job has been cancelled",
                Phase.FAILED: "The job failed due to an invalid training file. "
                + (job.run.failure[1] if job.run.failure else ""),
            }.get(phase)
            if words:
                told.append(
                    (at, "error" if phase is Phase.FAILED else "info", words, "message", None)
                )
        told.sort(key=lambda row: row[0])  # the last step comes before the success it brings
        return [
            {
                "id": f"ftevent-{job.run.id[6:14]}{number:05d}",
                "object": "fine_tuning.job.event",
                "created_at": int(at),
                "level": level,
                "message": message,
                "type": kind,
                "data": data or {},
            }
            for number, (at, level, message, kind, data) in enumerate(told)
        ]

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

    # Webhooks

    async def create_endpoint(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        made = Endpoint(
            self.id("we_"),
            asked.get("name", ""),
            asked["url"],
            "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
            asked.get("event_types", []),
            self.now(),
        )
        self.endpoints[made.id] = made
        return json_response({**self.endpoint_object(made), "signing_secret": made.secret})

    async def list_endpoints(self, request: Request) -> Response:
        return self.page(request, [self.endpoint_object(e) for e in self.endpoints.values()], 20)

    async def delete_endpoint(self, request: Request) -> Response:
        if self.endpoints.pop(request.path_params["id"], None) is None:
            return self.nothing("webhook endpoint")
        id, word = request.path_params["id"], f"{self.endpoint_word}.deleted"
        return json_response({"id": id, "object": word, "deleted": True})

    endpoint_word = "webhook_endpoint"

    def endpoint_object(self, endpoint: Endpoint) -> dict[str, Any]:
        return {
            "id": endpoint.id,
            "object": self.endpoint_word,
            "created_at": int(endpoint.created_at),
            "updated_at": int(endpoint.created_at),
            "name": endpoint.name,
            "url": endpoint.url,
            "event_types": endpoint.event_types,
            "signing_secret_hint": endpoint.secret[-4:],
        }

    async def background(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            sending: set[asyncio.Task[None]] = set()
            while True:
                await asyncio.sleep(0.05)
                if not self.endpoints or self.cheats.down:
                    continue
                for run in self.newest():
                    job = self.jobs[run.id]
                    if run.phase in OVER and not job.announced:
                        job.announced = True
                        for endpoint in self.endpoints.values():
                            task = asyncio.create_task(self._tell(client, endpoint, run))
                            sending.add(task)
                            task.add_done_callback(sending.discard)

    async def _tell(self, client: httpx.AsyncClient, endpoint: Endpoint, run: Run) -> None:
        cheats, kind = self.cheats, f"fine_tuning.job.{run.phase}"
        if kind not in endpoint.event_types or self.chance.random() < cheats.drop_webhooks:
            return
        body = orjson.dumps(
            {
                "id": f"evt_{run.id[6:]}",
                "object": "event",
                "created_at": int(self.now()),
                "type": kind,
                "data": {"id": run.id},
            }
        )
        id = f"wh_{run.id[6:]}"
        times = 3 if self.chance.random() < cheats.repeat_webhooks else 1
        forged = self.chance.random() < cheats.forge_webhooks
        for number in range(times + forged):
            await asyncio.sleep(self.chance.random() * cheats.late_webhooks)
            secret = _FORGED if forged and number == times else endpoint.secret
            await self._post(client, endpoint.url, id, secret, kind, body)

    async def _post(
        self, client: httpx.AsyncClient, url: str, id: str, secret: str, kind: str, body: bytes
    ) -> None:
        """Again and again, as long as nobody takes it."""
        for pause in (0.5, 2.0, 5.0, 15.0, 60.0):
            timestamp = int(self.now())
            headers = {
                "content-type": "application/json",
                "user-agent": "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)",
                "webhook-id": id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signatures.sign(secret, id, timestamp, body),
            }
            try:
                status = (await client.post(url, content=body, headers=headers)).status_code
            except httpx.TransportError:
                status = 0
            self.sent.append((kind, status))
            if 200 <= status < 300 or secret == _FORGED:
                return
            await asyncio.sleep(pause)

    # Shared by the routes

    def nothing(self, what: str) -> Response:
        return self.refusal(404, "not_found", f"There is no such {what}.", "id")

    def page(self, request: Request, rows: list[dict[str, Any]], usual: int) -> Response:
        query = request.query_params
        limit = int(query.get("limit", usual))
        start = 0
        if after := query.get("after"):
            places = [number for number, row in enumerate(rows) if row["id"] == after]
            if not places:
                return self.refusal(404, "not_found", f"There is no {after}.", "after")
            start = places[0] + 1
        shown = rows[start : start + limit]
        return json_response(
            {
                "object": "list",
                "data": shown,
                "has_more": start + limit < len(rows),
                "first_id": shown[0]["id"] if shown else None,
                "last_id": shown[-1]["id"] if shown else None,
            }
        )


def check_lines(
    lines: list[dict[str, Any]], method: str, fewest: int = _FEWEST_LINES
) -> str | None:
    """What is wrong with training data in OpenAI's own formats."""
    if len(lines) < fewest:
        return f"The file has {len(lines)} examples; at least {fewest} are needed."
    for number, line in enumerate(lines, 1):
        if method == "dpo":
            if not {"input", "preferred_output", "non_preferred_output"} <= line.keys():
                return f"Line {number} lacks input, preferred_output or non_preferred_output."
        elif not isinstance(line.get("messages"), list) or not line["messages"]:
            return f"Line {number} has no messages."
        elif method == "supervised" and line["messages"][-1].get("role") != "assistant":
            return f"Line {number} does not end with the assistant's message."
        elif method == "reinforcement" and line["messages"][-1].get("role") != "user":
            return f"Line {number} does not end with the user's message."
    return None


def chat_answer(asked: dict[str, Any], model: str, created: int) -> Response:
    """What a model that is none says, whole or as a stream."""
    last = (asked.get("messages") or [{}])[-1].get("content") or ""
    words = f"(simulated {model}) {last if isinstance(last, str) else ''}".strip()
    tokens = {"prompt_tokens": 8, "completion_tokens": 8, "total_tokens": 16}
    head = {"id": "chatcmpl-simulated", "created": created, "model": model}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": words, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return json_response(
            {**head, "object": "chat.completion", "choices": [choice], "usage": tokens}
        )
    chunks = [
        {"index": 0, "delta": {"role": "assistant", "content": words}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "stop"},
    ]
    parts: list[dict[str, Any]] = [{"choices": [chunk]} for chunk in chunks]
    if (asked.get("stream_options") or {}).get("include_usage"):
        parts.append({"choices": [], "usage": tokens})
    lines = [
        b"data: %b\n\n" % orjson.dumps({**head, "object": "chat.completion.chunk", **part})
        for part in parts
    ]
    return Response(b"".join([*lines, b"data: [DONE]\n\n"]), media_type="text/event-stream")


def result_csv(points: list[Point]) -> bytes:
    """In base64, as the guides' notebooks expect it."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(
        ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    )
    for p in points:
        validation = [p.validation_loss, p.validation_accuracy]
        shown = ["" if value is None else value for value in validation]
        rows.writerow([p.step, p.training_loss, p.training_accuracy, *shown])
    return base64.b64encode(out.getvalue().encode())


def _step_words(point: Point, run: Run) -> str:
    words = f"Step {point.step}/{run.plan.steps}: training loss={point.training_loss:.2f}"
    if point.validation_loss is not None:
        words += f", validation loss={point.validation_loss:.2f}"
    return words


def _step_data(point: Point, run: Run) -> dict[str, Any]:
    data: dict[str, Any] = {
        "step": point.step,
        "total_steps": run.plan.steps,
        "train_loss": point.training_loss,
        "train_mean_token_accuracy": point.training_accuracy,
    }
    if point.validation_loss is not None:
        data["valid_loss"] = point.validation_loss
        data["valid_mean_token_accuracy"] = point.validation_accuracy
    return data
