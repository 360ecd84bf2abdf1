"""What a simulated Google has beside Vertex AI: accounts that sign in, and Cloud Storage.

Tokens follow the real clock, not the simulator's: letting a job's time pass ends no token.
"""

import hashlib
import json
import secrets
import time
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt
from google.auth.exceptions import GoogleAuthError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.simulators.answers import at_time, json_response

AUDIENCE = TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def refusal(status: int, code: str, message: str, param: str | None = None) -> Response:
    """Google's form of an error; `code` is used if it is one of its words."""
    error: dict[str, Any] = {
        "code": status,
        "message": message,
        "status": code if code.isupper() else WORDS.get(status, "UNKNOWN"),
    }
    if param:
        violation = {"field": param, "description": message}
        kind = "type.googleapis.com/google.rpc.BadRequest"
        error["details"] = [{"@type": kind, "fieldViolations": [violation]}]
    return json_response({"error": error}, status)


@cache
def _private_key(number: int) -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def service_account(
    project: str = "luthier-simulated", token_uri: str = TOKEN_URI, number: int = 0
) -> str:
    """A service account's JSON key; in one process the same for the same `number`."""
    pem = _private_key(number)
    return json.dumps(
        {
            "type": "service_account",
            "project_id": project,
            "private_key_id": hashlib.sha256(pem.encode()).hexdigest()[:40],
            "private_key": pem,
            "client_email": f"tuner-{number}@{project}.iam.gserviceaccount.com",
            "client_id": "100000000000000000000",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": token_uri,
            "universe_domain": "googleapis.com",
        }
    )


class Accounts:
    """Who may sign in, and the tokens that were given out."""

    def __init__(self) -> None:
        self.lasting = 3600.0
        """Seconds that a token holds."""
        self.grants = 0
        self._public: dict[str, bytes] = {}
        self._tokens: dict[str, float] = {}

    def trust(self, account: str) -> None:
        told = json.loads(account)
        key = serialization.load_pem_private_key(told["private_key"].encode(), None)
        self._public[told["client_email"]] = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def issue(self) -> str:
        token = f"ya29.simulated-{secrets.token_hex(24)}"
        self._tokens[token] = time.time() + self.lasting
        return token

    def revoke(self) -> None:
        """All of them."""
        self._tokens.clear()

    def admits(self, request: Request) -> bool:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self._tokens.get(token, 0.0) > time.time()

    async def grant(self, request: Request) -> Response:
        """The OAuth token endpoint."""
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        given = {name: values[0] for name, values in form.items()}
        if given.get("grant_type") != _GRANT:
            return _no("unsupported_grant_type", "Invalid grant_type.")
        assertion = given.get("assertion", "")
        try:
            claims = jwt.decode(assertion, verify=False)  # type: ignore[no-untyped-call]
            public = self._public.get(claims.get("iss"))
            if public is None:
                return _no("invalid_grant", "Invalid grant: account not found")
            jwt.decode(  # type: ignore[no-untyped-call]
                assertion, public, audience=AUDIENCE, clock_skew_in_seconds=300
            )
        except (GoogleAuthError, ValueError) as wrong:
            return _no("invalid_grant", f"Invalid JWT: {wrong}")
        if not claims.get("scope"):
            return _no("invalid_scope", "Empty or missing scope not allowed.")
        self.grants += 1
        token = self.issue()
        lasts = int(self.lasting)
        return json_response({"access_token": token, "expires_in": lasts, "token_type": "Bearer"})


def _no(error: str, description: str) -> Response:
    return json_response({"error": error, "error_description": description}, 400)


@dataclass
class StoredObject:
    bucket: str
    name: str
    content: bytes
    content_type: str
    created_at: float

    def shown(self) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/1",
            "name": self.name,
            "bucket": self.bucket,
            "generation": "1",
            "contentType": self.content_type,
            "size": str(len(self.content)),
            "timeCreated": at_time(self.created_at),
            "updated": at_time(self.created_at),
        }


class Storage:
    """Cloud Storage's JSON API, as far as tuning needs it. There is every bucket."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], StoredObject] = {}

    def routes(self, door: Any) -> list[Route]:
        objects = "/storage/v1/b/{bucket}/o"
        table = [
            ("POST", f"/upload{objects}", self.upload),
            ("GET", objects, self.list),
            ("GET", f"{objects}/{{name:path}}", self.get),
            ("DELETE", f"{objects}/{{name:path}}", self.delete),
        ]
        return [Route(path, door(handler), methods=[method]) for method, path, handler in table]

    def put(
        self, bucket: str, name: str, content: bytes, content_type: str = "application/jsonl"
    ) -> StoredObject:
        stored = StoredObject(bucket, name, content, content_type, time.time())
        self.objects[bucket, name] = stored
        return stored

    def read(self, uri: str) -> bytes | None:
        """What lies at a `gs://` address."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        found = self.objects.get((bucket, name)) if uri.startswith("gs://") else None
        return found.content if found else None

    async def upload(self, request: Request) -> Response:
        name = request.query_params.get("name")
        if request.query_params.get("uploadType") != "media" or not name:
            return refusal(400, "invalid", "Needed are uploadType=media and a name.", "name")
        kind = request.headers.get("content-type", "application/octet-stream")
        stored = self.put(request.path_params["bucket"], name, await request.body(), kind)
        return json_response(stored.shown())

    async def list(self, request: Request) -> Response:
        bucket, prefix = request.path_params["bucket"], request.query_params.get("prefix", "")
        rows = [
            stored.shown()
            for (where, name), stored in sorted(self.objects.items())
            if where == bucket and name.startswith(prefix)
        ]
        return json_response({"kind": "storage#objects", **({"items": rows} if rows else {})})

    async def get(self, request: Request) -> Response:
        found = self.objects.get((request.path_params["bucket"], request.path_params["name"]))
        if found is None:
            return refusal(404, "notFound", "No such object.")
        if request.query_params.get("alt") == "media":
            return Response(found.content, media_type=found.content_type)
        return json_response(found.shown())

    async def delete(self, request: Request) -> Response:
        gone = self.objects.pop((request.path_params["bucket"], request.path_params["name"]), None)
        return Response(status_code=204) if gone else refusal(404, "notFound", "No such object.")
