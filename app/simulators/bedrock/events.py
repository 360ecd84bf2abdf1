"""The events of the simulated Bedrock's jobs, as an API destination of EventBridge sends them."""

import uuid
from collections.abc import Iterable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.simulators.answers import at_time, json_response
from app.simulators.bedrock.base import ACCOUNT, REGION, BedrockBase, Job
from app.simulators.runs import Phase, Plan
from app.simulators.webhooks import Message, Messenger

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


class Events(BedrockBase, Messenger):
    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.targets: list[tuple[str, str]] = []
        """Where events go: a URL, and what its header `x-api-key` is. Also `PUT /_targets`,
        `[{"url", "secret"}, …]`."""

    def job_object(self, job: Job) -> dict[str, Any]:
        """As the API shows it."""
        raise NotImplementedError

    async def set_targets(self, request: Request) -> Response:
        if request.method == "PUT":
            rows = orjson.loads(await request.body())
            self.targets = [(str(row["url"]), str(row["secret"])) for row in rows]
        return json_response([{"url": url} for url, _ in self.targets])

    def messages(self) -> Iterable[Message]:
        for run in self.newest() if self.targets else ():
            job = self.jobs[run.id]
            if job.announced == (word := WORDS[run.phase]):
                continue
            job.announced = word
            event = self.event(job)
            kind, body = event["detail"]["jobStatus"], orjson.dumps(event)
            for url, secret in self.targets:
                yield Message(kind, url, secret, body, _headers, _is_final)

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
            "time": at_time(self.now()),
            "region": REGION,
            "resources": [job.run.id],
            "detail": {"version": "0.0", **detail, "jobStatus": shown["status"]},
        }


def _headers(secret: str) -> dict[str, str]:
    return {
        "content-type": "application/json; charset=utf-8",
        "user-agent": "Amazon/EventBridge/ApiDestinations",
        "x-api-key": secret,
    }


def _is_final(status: int) -> bool:
    """It asks again while the target is busy or broken; another 4xx is final."""
    return not (status in (0, 409, 429) or status >= 500)
