"""What all parts of the simulated Bedrock share: its account, its refusals, its pages."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.simulators.answers import json_response
from app.simulators.runs import Plan, Run
from app.simulators.simulator import Simulator

ACCESS_KEY_ID = "AKIASIMULATED0000001"
SECRET_ACCESS_KEY = "simulated+secret/access+key+0000000001"  # noqa: S105 - opens only this
REGION, ACCOUNT, BUCKET = "us-west-2", "123456789012", "luthier-tuning"
FOUNDATION = f"arn:aws:bedrock:{REGION}::foundation-model/"
OWN = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:"

MODELS: dict[str, tuple[str, str, str | None]] = {
    "anthropic.claude-3-haiku-20240307-v1:0:200k": ("Anthropic", "Claude 3 Haiku", "2026-09-10"),
    "amazon.nova-2-lite-v1:0:256k": ("Amazon", "Nova 2 Lite", None),
    "amazon.nova-pro-v1:0:300k": ("Amazon", "Nova Pro", None),
    "amazon.nova-lite-v1:0:300k": ("Amazon", "Nova Lite", None),
    "amazon.nova-micro-v1:0:128k": ("Amazon", "Nova Micro", None),
    "meta.llama3-1-70b-instruct-v1:0:128k": ("Meta", "Llama 3.1 70B", None),
    "meta.llama3-1-8b-instruct-v1:0:128k": ("Meta", "Llama 3.1 8B", None),
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
        return f"{OWN}custom-model/{self.base_model}/{self.number}"


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def invalid(message: str) -> Refused:
    return Refused(400, "ValidationException", message)


def missing(message: str) -> Refused:
    return Refused(404, "ResourceNotFoundException", message)


class BedrockBase(Simulator):
    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.jobs: dict[str, Job] = {}

    def refusal(self, status: int, code: str, message: str, param: str | None = None) -> Response:
        return json_response(
            {"message": message}, status, **{"x-amzn-errortype": _CODES.get(code, code)}
        )

    async def asked(self, request: Request, *needed: str) -> dict[str, Any]:
        try:
            asked = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            raise Refused(400, "SerializationException", "The body is not JSON.") from None
        for name in needed:
            if not asked.get(name):
                raise invalid(f"1 validation error detected: {name} must not be null.")
        for name, pattern in PATTERNS.items():
            value = asked.get(name)
            if value is None:
                continue
            fits = isinstance(value, str) and len(value) <= _LONGEST.get(name, 63)
            if not fits or not re.fullmatch(pattern, value):
                raise invalid(
                    f"Value {value!r} at {name!r} failed to satisfy constraint: Member must "
                    f"satisfy regular expression pattern: {pattern}"
                )
        return dict(asked)

    def repeated(self, asked: Mapping[str, Any], made: Any) -> Any:
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

    def page(self, request: Request, name: str, rows: list[dict[str, Any]]) -> Response:
        query = request.query_params
        most, start = int(query.get("maxResults", 100)), int(query.get("nextToken", 0))
        if not 1 <= most <= 1000:
            raise invalid("maxResults must be between 1 and 1000.")
        more = {"nextToken": str(start + most)} if start + most < len(rows) else {}
        return json_response({name: rows[start : start + most], **more})
