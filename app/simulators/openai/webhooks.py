"""The simulated OpenAI's webhook endpoints, and what they are told."""

import base64
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.core import signatures
from app.simulators.answers import json_response
from app.simulators.openai.base import OpenAIBase
from app.simulators.runs import Plan, Run
from app.simulators.webhooks import Message, Messenger


@dataclass
class Endpoint:
    id: str
    name: str
    url: str
    secret: str
    event_types: list[str]
    created_at: float


class OpenAIWebhooks(OpenAIBase, Messenger):
    endpoint_word = "webhook_endpoint"

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.endpoints: dict[str, Endpoint] = {}

    def webhook_routes(self) -> list[tuple[str, str, Any]]:
        return [
            ("POST", "/webhook_endpoints", self.create_endpoint),
            ("GET", "/webhook_endpoints", self.list_endpoints),
            ("DELETE", "/webhook_endpoints/{id}", self.delete_endpoint),
        ]

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

    def ended(self) -> Iterable[Run]:
        """The jobs that have ended since this was asked the last time."""
        raise NotImplementedError

    def messages(self) -> Iterable[Message]:
        for run in self.ended() if self.endpoints else ():
            kind = f"fine_tuning.job.{run.phase}"
            event = {
                "id": f"evt_{run.id[6:]}",
                "object": "event",
                "created_at": int(self.now()),
                "type": kind,
                "data": {"id": run.id},
            }
            body = orjson.dumps(event)
            headers = partial(self._headers, f"wh_{run.id[6:]}", body)
            for to in self.endpoints.values():
                if kind in to.event_types:
                    yield Message(kind, to.url, to.secret, body, headers, _is_taken)

    def _headers(self, id: str, body: bytes, secret: str) -> dict[str, str]:
        timestamp = int(self.now())
        return {
            "content-type": "application/json",
            "user-agent": "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)",
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures.sign(secret, id, timestamp, body),
        }


def _is_taken(status: int) -> bool:
    return 200 <= status < 300
