"""How Bedrock and the bucket are asked, and how they refuse."""

import html
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
from botocore.credentials import Credentials

from app.providers.base import Adapter
from app.providers.bedrock.signing import Signed
from app.providers.errors import ProviderExists, ProviderRefused

MOST_ROWS = 1000


class Service(Adapter):
    secrets = ("access_key_id", "secret_access_key", "session_token")
    urls = {
        "base_url": "https://bedrock.{region}.amazonaws.com",
        "runtime_url": "https://bedrock-runtime.{region}.amazonaws.com",
        "storage_url": "https://{bucket}.s3.{region}.amazonaws.com",
    }
    hosts = ("*.amazonaws.com",)

    def auth(self, client: httpx.AsyncClient) -> httpx.Auth:
        secrets, settings = self.account.secrets, self.account.settings
        credentials = Credentials(
            secrets["access_key_id"],
            secrets["secret_access_key"],
            secrets.get("session_token") or None,
        )
        return Signed(credentials, settings.get("region", ""), self.url("storage_url"))

    def read_refusal(
        self, response: httpx.Response, body: Any
    ) -> tuple[str | None, str | None, str | None]:
        """The type is in a header, with a URL behind a colon at times; S3 answers in XML."""
        if body is None:
            words = response.text
            return between(words, "Code"), between(words, "Message"), None
        kind = response.headers.get("x-amzn-errortype", "").partition(":")[0]
        message = body.get("message") or body.get("Message") if isinstance(body, dict) else None
        return kind or None, message, None

    async def _control(self, method: str, path: str, **request: Any) -> Any:
        try:
            return await self.http.json(method, f"{self.url('base_url')}{path}", **request)
        except ProviderRefused as refused:
            if refused.reason == "ConflictException":
                raise ProviderExists(f"{self.capabilities.name} says: {refused}") from refused
            raise

    async def _pages(
        self, path: str, rows: str, asked: dict[str, str], most: int
    ) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        while len(found) < most:
            page = await self._control("GET", f"{path}?{query(asked)}")
            found += page.get(rows) or []
            if not page.get("nextToken"):
                break
            asked["nextToken"] = str(page["nextToken"])
        return found[:most]


def between(words: str, tag: str) -> str | None:
    found = re.search(f"<{tag}>([^<]*)</{tag}>", words)
    return html.unescape(found[1]) if found else None


def query(asked: Mapping[str, str]) -> str:
    """Escaped as it is signed: httpx writes a space as '+'."""
    return "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in asked.items())
