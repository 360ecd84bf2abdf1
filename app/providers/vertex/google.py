"""What Google's APIs share: a service account's access token, and the form of their errors.

The grant is RFC 7523's, with the claims that google-auth 2.63 sends.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator
from typing import Any
from weakref import WeakKeyDictionary

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
_MOST_GRANTS = 1000
_EARLY = 240.0  # seconds before its end a token is renewed, as google-auth does


def project_of(text: str) -> str:
    """The project of a service account's JSON key. Raises ProviderDenied."""
    project = _read(text).get("project_id")
    if not isinstance(project, str) or not project:
        raise ProviderDenied("The service account's JSON key names no project.")
    return project


def _assertion(text: str) -> str:
    """Signed with the JSON key. Its `token_uri` is not used: whoever writes the JSON would choose
    where our signature goes. Raises ProviderDenied."""
    told, now = _read(text), int(clock.now().timestamp())
    claims = {
        "iss": told.get("client_email"),
        "scope": SCOPE,
        "aud": TOKEN_URL,  # whichever address it is sent to
        "iat": now,
        "exp": now + _LIFETIME,
    }
    try:
        signer = crypt.RSASigner.from_string(  # type: ignore[no-untyped-call]
            told["private_key"], told.get("private_key_id")
        )
        made: bytes = jwt.encode(signer, claims)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _unreadable() from None  # the cause may quote the key
    return made.decode()


def _read(text: str) -> dict[str, Any]:
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise _unreadable() from None
    if not isinstance(told, dict) or not told.get("client_email"):
        raise _unreadable()
    return told


def _unreadable() -> ProviderDenied:
    return ProviderDenied(
        "The service account is not a JSON key of Google's: it needs client_email and private_key."
    )


class Grant:
    """A token, as long as it lasts."""

    def __init__(self) -> None:
        self.token, self.until = "", 0.0
        self.lock = asyncio.Lock()


_GRANTS: WeakKeyDictionary[httpx.AsyncClient, dict[str, Grant]] = WeakKeyDictionary()


def _grant_of(client: httpx.AsyncClient, text: str, url: str) -> Grant:
    """Adapters come and go; who asks with the same client and key shares the token."""
    known = _GRANTS.setdefault(client, {})
    key = hashlib.sha256(f"{url}\n{text}".encode()).hexdigest()
    known[key] = found = known.pop(key, None) or Grant()
    if len(known) > _MOST_GRANTS:
        del known[next(iter(known))]
    return found


class ServiceAccountAuth(httpx.Auth):
    """Signs in when a request needs it, and again shortly before the token ends. The key is read
    only then, so that a wrong one is a refused credential and not a broken start."""

    def __init__(self, client: httpx.AsyncClient, text: str, token_url: str, http: Http) -> None:
        self._text, self._url, self._http = text, token_url, http
        self._grant = _grant_of(client, text, token_url)

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        known = self._grant.token
        token = await self._valid()
        request.headers["authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401 and token == known:
            # It was revoked before its time. Nothing was done, so even a create may go again.
            if self._grant.token == token:
                self._grant.until = 0.0
            request.headers["authorization"] = f"Bearer {await self._valid()}"
            yield request

    async def _valid(self) -> str:
        grant = self._grant
        async with grant.lock:
            if time.monotonic() >= grant.until:
                told = await self._exchange(
                    {"grant_type": GRANT, "assertion": _assertion(self._text)}
                )
                lasts = float(told.get("expires_in") or _LIFETIME)
                grant.token = str(told["access_token"])
                grant.until = time.monotonic() + max(lasts - _EARLY, lasts / 2)
            return grant.token

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
