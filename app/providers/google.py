"""What Google's APIs share: a service account's access token, and the form of their errors.

The grant is RFC 7523's, with the claims that google-auth 2.63 sends.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from google.auth import crypt, jwt

from app.core import clock
from app.providers.errors import (
    ProviderBusy,
    ProviderDenied,
    ProviderExists,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
)
from app.providers.http import Http

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LIFETIME = 3600
_EARLY = 240.0  # seconds before its end a token is renewed, as google-auth does


@dataclass(frozen=True)
class Key:
    """What of a service account's JSON key is used. Its `token_uri` is not: whoever writes the
    JSON would choose where our signature goes."""

    email: str
    project: str
    signer: Any

    def assertion(self) -> str:
        now = int(clock.now().timestamp())
        claims = {
            "iss": self.email,
            "scope": SCOPE,
            "aud": TOKEN_URL,  # whichever address it is sent to
            "iat": now,
            "exp": now + _LIFETIME,
        }
        made: bytes = jwt.encode(self.signer, claims)  # type: ignore[no-untyped-call]
        return made.decode()


def read_key(text: str) -> Key:
    """Raises ProviderDenied."""
    try:
        told = orjson.loads(text)
        signer = crypt.RSASigner.from_string(  # type: ignore[no-untyped-call]
            told["private_key"], told.get("private_key_id")
        )
        return Key(str(told["client_email"]), str(told.get("project_id") or ""), signer)
    except (ValueError, TypeError, KeyError, AttributeError):
        # Not `from`: the cause may quote the key.
        raise ProviderDenied(
            "The service account is not a JSON key of Google's: it needs client_email and"
            " private_key."
        ) from None


class ServiceAccountAuth(httpx.Auth):
    """Signs in when a request needs it, and again shortly before the token ends. The key is read
    only then, so that a wrong one is a refused credential and not a broken start."""

    def __init__(self, text: str, token_url: str, http: Http) -> None:
        self._text, self._url, self._http = text, token_url, http
        self._key: Key | None = None
        self._token, self._until = "", 0.0
        self._lock = asyncio.Lock()

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        known = self._token
        token = await self._valid()
        request.headers["authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401 and token == known:
            # It was revoked before its time. Nothing was done, so even a create may go again.
            if self._token == token:
                self._until = 0.0
            request.headers["authorization"] = f"Bearer {await self._valid()}"
            yield request

    async def _valid(self) -> str:
        async with self._lock:
            if time.monotonic() >= self._until:
                self._key = self._key or read_key(self._text)
                body = {"grant_type": GRANT, "assertion": self._key.assertion()}
                told = await self._exchange(body)
                self._token = str(told["access_token"])
                lasts = float(told.get("expires_in") or _LIFETIME)
                self._until = time.monotonic() + max(lasts - _EARLY, lasts / 2)
            return self._token

    async def _exchange(self, body: dict[str, str]) -> dict[str, Any]:
        """Once: the request that waits for it is repeated as a whole. Nothing of that was sent."""
        try:
            told = await self._http.json("POST", self._url, data=body, once=True)
        except (ProviderRefused, ProviderMissing, ProviderExists) as refusal:
            raise ProviderDenied(f"Google does not sign the account in: {refusal}") from None
        except ProviderBusy:
            raise
        except ProviderUnreachable as trouble:
            raise ProviderUnreachable(str(trouble), sent=False) from trouble
        if not isinstance(told, dict) or not told.get("access_token"):
            raise ProviderUnreachable("Google answers without a token.", sent=False)
        return told


def read_error(status: int, body: Any) -> tuple[str | None, str | None, str | None]:
    """Code, message and parameter: of Vertex AI's errors, Cloud Storage's, and OAuth's."""
    body = body[0] if isinstance(body, list) and body else body
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        return error, body.get("error_description") or error, None
    if not isinstance(error, dict):
        return None, None, None
    reasons = [row.get("reason") for row in error.get("errors") or [] if isinstance(row, dict)]
    fields = [
        violation.get("field")
        for detail in error.get("details") or []
        if isinstance(detail, dict)
        for violation in detail.get("fieldViolations") or []
    ]
    code = error.get("status") or next(iter(reasons), None)
    return code, error.get("message"), next(iter(fields), None)
