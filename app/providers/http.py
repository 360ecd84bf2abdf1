"""Requests to a provider: paced, retried where that is safe, and every answer made typed."""

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from app.core import clock
from app.core.egress import Reply
from app.providers.errors import (
    ProviderBusy,
    ProviderDenied,
    ProviderExists,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
)
from app.providers.urls import Allowed

_TRIES = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
_WAITED_FOR = 10.0  # a longer `retry-after` is the caller's to keep
_LARGEST = 64 << 20
_AGAIN = frozenset({408, 500, 502, 503, 504})
_SECRET = re.compile(r"(sk-|whsec_|fw_|tgp_|AKIA|ASIA|Bearer\s+)[A-Za-z0-9_\-./+=]{6,}")

ReadRefusal = Callable[[httpx.Response, Any], tuple[str | None, str | None, str | None]]


class Pace:
    """A token bucket: so many requests a second, some at once, none while the provider asks for
    a pause. One per credential and process."""

    def __init__(self, per_second: float = 10.0, burst: float = 20.0) -> None:
        self._per_second, self._burst = per_second, burst
        self._tokens, self._counted = burst, time.monotonic()
        self._closed_until = 0.0

    async def turn(self) -> None:
        while True:
            now = time.monotonic()
            self._tokens += (now - self._counted) * self._per_second
            self._tokens, self._counted = min(self._tokens, self._burst), now
            wait = max(self._closed_until - now, (1 - self._tokens) / self._per_second)
            if wait <= 0:
                self._tokens -= 1
                return
            await asyncio.sleep(wait)

    def close(self, seconds: float) -> None:
        """Nobody asks for this long: one 429 speaks for all."""
        self._closed_until = max(self._closed_until, time.monotonic() + seconds)


class Bearer(httpx.Auth):
    """A key as most take it, and headers that go with it."""

    def __init__(self, key: str, headers: Mapping[str, str] | None = None) -> None:
        self._headers = {"authorization": f"Bearer {key}", **(headers or {})}

    def auth_flow(self, request: httpx.Request) -> Any:
        request.headers.update(self._headers)
        yield request


class Http:
    def __init__(
        self,
        client: httpx.AsyncClient,
        who: str,
        *,
        auth: httpx.Auth | None,
        pace: Pace,
        secrets: tuple[str, ...],
        read_refusal: ReadRefusal,
        allowed: Allowed,
    ) -> None:
        self._client, self._who, self._auth, self._pace = client, who, auth, pace
        self._secrets = [one for one in secrets if len(one) >= 6]
        self._read_refusal, self._allowed = read_refusal, allowed

    async def json(self, method: str, url: str, **request: Any) -> Any:
        """The JSON of the answer; {} when it is empty. Takes what `call` takes."""
        response = await self.call(method, url, **request)
        if not response.content.strip():
            return {}
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError:
            raise ProviderUnreachable(
                f"{self._who} answered with something else than JSON."
            ) from None

    async def call(
        self, method: str, url: str, *, once: bool = False, **request: Any
    ) -> httpx.Response:
        """Send, and read the whole answer. `once`: never a second time, whatever comes of it.

        Takes httpx's `params`, `json`, `content`, `data`, `files`, `headers`. Raises what
        `app.providers.errors` lists; a redirect is an answer like any other.
        """
        tries, pause = (1 if once else _TRIES), _FIRST_PAUSE
        while True:
            tries -= 1
            await self._pace.turn()
            try:
                return self._judged(await self._send(method, url, request, self._auth))
            except ProviderUnreachable as trouble:
                asked = trouble.seconds if isinstance(trouble, ProviderBusy) else None
                if asked is not None:
                    self._pace.close(min(asked, _WAITED_FOR))
                if not tries or (asked or 0) > _WAITED_FOR:
                    raise
            if asked is None:
                await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 - jitter
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def signed(self, method: str, url: str, **request: Any) -> httpx.Response:
        """To a URL that is its own permission: without the credential."""
        await self._allowed.require_public(url)
        return self._judged(await self._send(method, url, request, None))

    @asynccontextmanager
    async def stream(self, url: str, body: dict[str, Any]) -> AsyncIterator[Reply]:
        """POST JSON and pass on what comes back, refusals too, as it comes."""
        await self._pace.turn()
        request = self._client.build_request(
            "POST",
            url,
            content=orjson.dumps(body),
            headers={"content-type": "application/json", "accept-encoding": "identity"},
        )
        try:
            response = await self._client.send(request, auth=self._auth, stream=True)
        except httpx.TransportError as trouble:
            raise self._unreachable(trouble) from trouble
        try:
            kind = response.headers.get("content-type", "application/json")
            yield Reply(response.status_code, kind, response.aiter_raw())
        finally:
            await response.aclose()

    def clean(self, words: str) -> str:
        """A provider's words without our secrets, which some of them quote."""
        for secret in self._secrets:
            words = words.replace(secret, "[secret]")
        return _SECRET.sub("[secret]", words)[:2000]

    async def _send(
        self, method: str, url: str, request: dict[str, Any], auth: httpx.Auth | None
    ) -> httpx.Response:
        built = self._client.build_request(method, url, **request)
        try:
            response = await self._client.send(built, auth=auth, stream=True)
            try:
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > _LARGEST:
                        raise ProviderUnreachable(f"{self._who} answered with too many bytes.")
                response._content = bytes(content)
            finally:
                await response.aclose()
        except httpx.TransportError as trouble:
            raise self._unreachable(trouble) from trouble
        return response

    def _unreachable(self, trouble: httpx.TransportError) -> ProviderUnreachable:
        never_sent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
        return ProviderUnreachable(
            f"{self._who} does not answer ({type(trouble).__name__}).",
            sent=not isinstance(trouble, never_sent),
        )

    def _judged(self, response: httpx.Response) -> httpx.Response:
        status = response.status_code
        if status < 400:
            return response
        try:
            body = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            body = None
        code, message, param = self._read_refusal(response, body)
        words = self.clean(str(message or response.reason_phrase or "no reason given"))
        said = f"{self._who} says: {words} (HTTP {status})"
        final = {"insufficient_quota", "quotaExceeded", "billing_limit"}
        if status == 429 and code not in final:
            raise ProviderBusy(said, _retry_after(response.headers))
        if status in _AGAIN:
            if status == 503 and (asked := _retry_after(response.headers)) is not None:
                raise ProviderBusy(said, asked)
            raise ProviderUnreachable(said)
        if status in (401, 403):
            raise ProviderDenied(said)
        if status == 404:
            raise ProviderMissing(said)
        if status == 409:
            raise ProviderExists(said, body)
        raise ProviderRefused(words, reason=str(code or status), param=param)


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds, from `retry-after-ms`, or `retry-after` as seconds or an HTTP date."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        if asked := headers.get("retry-after"):
            if asked.replace(".", "", 1).isdigit():
                return float(asked)
            return max(0.0, (parsedate_to_datetime(asked) - clock.now()).total_seconds())
    except (ValueError, TypeError):
        pass
    return None
