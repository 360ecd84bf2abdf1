"""What all parts of the simulated OpenAI share: its door, errors and pages."""

import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.simulators.answers import json_response, openai_error
from app.simulators.simulator import Simulator


class OpenAIBase(Simulator):
    base = "/v1"
    key_prefix = "sk-"

    def refusal(self, status: int, code: str, message: str, param: str | None = None) -> Response:
        return openai_error(status, code, message, param)

    def routes(self) -> list[Route]:
        return [
            Route(self.base + path, self.door(handler), methods=[method])
            for method, path, handler in self.table()
        ]

    def table(self) -> list[tuple[str, str, Any]]:
        """Verb, path and handler of everything behind the door."""
        raise NotImplementedError

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
