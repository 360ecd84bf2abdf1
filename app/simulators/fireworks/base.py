"""What all parts of the simulated Fireworks share: its door, errors, pages and signed URLs.

Names, states and JSON keys are those of fireworks-ai 1.2.28; errors are gRPC's over HTTP.
"""

import base64
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.simulators.answers import json_response
from app.simulators.runs import Plan
from app.simulators.simulator import Simulator

# gRPC's code, and the HTTP status that goes with it.
CODES = {
    "INVALID_ARGUMENT": (3, 400),
    "NOT_FOUND": (5, 404),
    "ALREADY_EXISTS": (6, 409),
    "PERMISSION_DENIED": (7, 403),
    "RESOURCE_EXHAUSTED": (8, 429),
    "FAILED_PRECONDITION": (9, 400),
    "INTERNAL": (13, 500),
    "UNAVAILABLE": (14, 503),
    "UNAUTHENTICATED": (16, 401),
}
_BY_STATUS = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14}
ACCOUNT = "/v1/accounts/{account}"
PUBLIC = "fireworks"
BASES = {
    "accounts/fireworks/models/llama-v3p1-8b-instruct": "Llama 3.1 8B Instruct",
    "accounts/fireworks/models/llama-v3p1-70b-instruct": "Llama 3.1 70B Instruct",
    "accounts/fireworks/models/qwen2p5-7b-instruct": "Qwen2.5 7B Instruct",
}
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MOST, _USUAL = 200, 50


@dataclass
class Permission:
    """What a signed URL allows."""

    method: str
    ends: float
    size: int | None
    act: Callable[[bytes], bytes]
    """Takes what was put, gives what is got."""


class FireworksBase(Simulator):
    name = "fireworks"
    account: ClassVar[str] = "acme"
    key_prefix = "fw_"

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.settling = 0.1
        """Seconds until what was uploaded or promoted is ready."""
        self.signed_for = 3600.0
        self.permissions: dict[str, Permission] = {}

    # Errors and the door

    def refusal(self, status: int, code: str, message: str, param: str | None = None) -> Response:
        return json_response(
            {"code": _BY_STATUS.get(status, 2), "message": message, "details": []}, status
        )

    def no(self, code: str, message: str) -> Response:
        number, status = CODES[code]
        return json_response({"code": number, "message": message, "details": []}, status)

    def nothing(self, what: str) -> Response:
        return self.no("NOT_FOUND", f"There is no {what}, or it is not yours.")

    def door(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            given = given or request.headers.get("x-api-key", "")
            if not given.startswith(self.key_prefix):
                return self.no("UNAUTHENTICATED", f"The API key {given} is not valid.")
            account = request.path_params.get("account", self.account)
            looks = request.method == "GET" and "/models" in request.url.path
            if account != self.account and not (account == PUBLIC and looks):
                return self.no("PERMISSION_DENIED", f"This key is not of the account {account}.")
            response: Response = await handler(request)
            return response

        return answer

    def table(self) -> list[tuple[str, str, Any]]:
        """Method, path and handler; verbs before what they could be taken for."""
        raise NotImplementedError

    def routes(self) -> list[Route]:
        return [
            Route("/_storage/{name:path}", self.storage, methods=["GET", "PUT"]),
            *(
                Route(path, self.door(handler), methods=[method])
                for method, path, handler in self.table()
            ),
        ]

    # Names and pages

    def full(self, collection: str, id: str) -> str:
        """The full name of one of the account's own."""
        return id if id.startswith("accounts/") else f"accounts/{self.account}/{collection}/{id}"

    def wrong_id(self, id: str, what: str) -> Response | None:
        if _ID.fullmatch(id):
            return None
        words = f"{what} must be at most 63 of a-z, 0-9 and '-', and begin and end without '-'."
        return self.no("INVALID_ARGUMENT", f"{id!r}: {words}")

    def page(self, request: Request, plural: str, rows: list[dict[str, Any]]) -> Response:
        """`filter` knows states and display names, which is what people filter for."""
        query = request.query_params
        for field, wanted in re.findall(r'(\w+)\s*=\s*"([^"]*)"', query.get("filter", "")):
            rows = [row for row in rows if row.get(_camel(field)) == wanted]
        for term in reversed([term for term in query.get("orderBy", "name").split(",") if term]):
            field, _, direction = term.strip().partition(" ")
            rows = _sorted(rows, _camel(field), direction == "desc")
        size = min(_MOST, int(query.get("pageSize") or _USUAL) or _USUAL)
        try:
            start = int(base64.urlsafe_b64decode(query.get("pageToken") or "MA=="))
        except ValueError:
            return self.no("INVALID_ARGUMENT", "The page token is not one of ours.")
        more = base64.urlsafe_b64encode(str(start + size).encode()).decode()
        return json_response(
            {
                plural: rows[start : start + size],
                "nextPageToken": more if start + size < len(rows) else "",
                "totalSize": len(rows),
            }
        )

    # Storage behind signed URLs

    def sign(
        self,
        request: Request,
        method: str,
        name: str,
        act: Callable[[bytes], bytes],
        size: int | None = None,
    ) -> str:
        token = secrets.token_urlsafe(24)
        self.permissions[token] = Permission(method, self.now() + self.signed_for, size, act)
        return f"{request.base_url}_storage/{name}?X-Goog-Signature={token}"

    async def storage(self, request: Request) -> Response:
        """Google's: it knows the signature, and will not have a credential beside it."""
        allowed = self.permissions.get(request.query_params.get("X-Goog-Signature", ""))
        if request.headers.get("authorization"):
            return _xml(400, "InvalidArgument", "Only one way of authentication is allowed.")
        if allowed is None or allowed.method != request.method:
            return _xml(403, "SignatureDoesNotMatch", "Access denied.")
        if self.now() > allowed.ends:
            return _xml(400, "ExpiredToken", "The provided token has expired.")
        content = await request.body()
        if allowed.size is not None and len(content) != allowed.size:
            return _xml(400, "EntityTooLarge", "This is not the size that was announced.")
        return Response(allowed.act(content), media_type="application/octet-stream")


def when(seconds: float | None) -> str | None:
    """RFC 3339 with nanoseconds, as Go writes it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def _sorted(rows: list[dict[str, Any]], field: str, descending: bool) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row.get(field) or ""), reverse=descending)


def _camel(field: str) -> str:
    head, *rest = field.split("_")
    return head + "".join(word.title() for word in rest)


def _xml(status: int, code: str, message: str) -> Response:
    words = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Response(words, status, media_type="application/xml")
