"""The account's own bucket: there is no route for data, and metrics are written there too."""

import html
import re
from typing import Any
from urllib.parse import quote, unquote

import httpx

from app.providers.bedrock.service import Service, between, query
from app.providers.errors import ProviderDenied, ProviderRefused

_TOKEN_TROUBLE = frozenset({"ExpiredToken", "InvalidToken"})
_KEY = re.compile(r"<Key>([^<]*)</Key>")


class Storage(Service):
    async def _stored(self, method: str, url: str, **request: Any) -> httpx.Response:
        try:
            answer = await self.http.call(method, url, **request)
        except ProviderRefused as refused:
            if refused.reason in _TOKEN_TROUBLE:  # 400 here, 403 everywhere else
                raise ProviderDenied(f"{self.capabilities.name} says: {refused}") from refused
            raise
        if answer.status_code >= 300:
            raise ProviderRefused(
                f"The bucket {self.account.settings['bucket']!r} is not in the region "
                f"{self.account.settings['region']!r}.",
                reason="bucket_elsewhere",
                param="bucket",
            )
        return answer

    def _place(self, name: str) -> str:
        """A key in the bucket."""
        prefix = (self.account.settings.get("prefix") or "").strip("/")
        return f"{prefix}/{name}" if prefix else name

    def _uri(self, key: str) -> str:
        return f"s3://{self.account.settings['bucket']}/{key}"

    def _object(self, key: str) -> str:
        return f"{self.url('storage_url')}/{quote(key, safe='/-_.~')}"

    async def _keys(self, prefix: str, most: int = 10_000) -> list[str]:
        """Read without a parser of XML, whose entities are a risk; names come escaped."""
        found: list[str] = []
        asked = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
        asked["max-keys"] = str(min(most, 1000))
        while len(found) < most:
            answer = await self._stored("GET", f"{self.url('storage_url')}?{query(asked)}")
            found += [unquote(html.unescape(key)) for key in _KEY.findall(answer.text)]
            more = between(answer.text, "NextContinuationToken")
            if not more:
                break
            asked["continuation-token"] = more
        return found[:most]
