"""The one outgoing HTTP client of the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from app.core.errors import Unavailable


@dataclass(frozen=True)
class Reply:
    """The head of an answer, and its body as it comes."""

    status: int
    content_type: str
    chunks: AsyncIterator[bytes]


class Egress:
    """Connections are kept and reused; no redirect is followed."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(connect=5, read=300, write=30, pool=5),
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=50),
            trust_env=False,
        )

    @asynccontextmanager
    async def post(self, url: str, body: bytes, token: str) -> AsyncIterator[Reply]:
        """Send JSON and stream what comes back. Raises Unavailable when nobody answers."""
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",  # the answer is passed on as it comes
            "authorization": f"Bearer {token}",
        }
        request = self._client.build_request("POST", url, content=body, headers=headers)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TransportError as trouble:
            raise Unavailable(
                "The model's server does not answer now. Try again in a moment."
            ) from trouble
        try:
            yield Reply(
                response.status_code,
                response.headers.get("content-type", "application/json"),
                response.aiter_raw(),
            )
        finally:
            await response.aclose()

    async def get_json(self, url: str, token: str | None = None) -> tuple[int, bytes]:
        """Raises Unavailable when nobody answers."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            response = await self._client.get(url, headers=headers)
        except httpx.TransportError as trouble:
            raise Unavailable(f"Nobody answers at {url}.") from trouble
        return response.status_code, response.content

    async def post_json(
        self, url: str, body: bytes, token: str, *, longest: int = 16 << 20
    ) -> tuple[int, bytes]:
        """Raises Unavailable when nobody answers, or with more than `longest` bytes."""
        content = bytearray()
        async with self.post(url, body, token) as reply:
            try:
                async for chunk in reply.chunks:
                    content += chunk
                    if len(content) > longest:
                        raise Unavailable(f"{url} answers with more than {longest:,} bytes.")
            except httpx.TransportError as trouble:
                raise Unavailable(f"{url} broke off.") from trouble
            return reply.status, bytes(content)

    async def close(self) -> None:
        await self._client.aclose()
