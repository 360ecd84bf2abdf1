"""How Azure OpenAI lets in: a key for the models, and Entra's token for the resource manager."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from app.providers.errors import ProviderDenied, ProviderMissing, ProviderRefused
from app.providers.http import Http

_BEFORE_THE_END = 300.0


class ApiKey(httpx.Auth):
    def __init__(self, key: str) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Any:
        request.headers["api-key"] = self._key
        yield request


class Entra(httpx.Auth):
    """A token for the resource manager: asked for when it is needed, and kept until shortly before
    its end. `login` is without a credential of its own, and sends the secret once."""

    def __init__(self, login: Http, url: Callable[[], str], form: Mapping[str, str]) -> None:
        self._login, self._url, self._form = login, url, form
        self._token, self._until = "", 0.0
        self._asking = asyncio.Lock()

    async def async_auth_flow(self, request: httpx.Request) -> Any:
        token = await self._valid()
        request.headers["authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:  # revoked before its time
            request.headers["authorization"] = f"Bearer {await self._valid(other_than=token)}"
            yield request

    async def _valid(self, other_than: str | None = None) -> str:
        async with self._asking:
            if time.monotonic() >= self._until or self._token == other_than:
                asked_at = time.monotonic()
                try:
                    told = await self._login.json("POST", self._url(), data=self._form, once=True)
                except (ProviderRefused, ProviderMissing) as trouble:
                    # A wrong tenant, client or secret: nothing else is in the request.
                    raise ProviderDenied(str(trouble)) from trouble
                self._token = str(told.get("access_token", ""))
                lasts = float(told.get("expires_in") or 0)
                self._until = asked_at + lasts - min(_BEFORE_THE_END, lasts / 2)
            return self._token
