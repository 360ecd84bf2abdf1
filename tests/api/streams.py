"""Streams over plain HTTP, as clients read them."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from tests.support import Api

SSE = {"accept": "text/event-stream"}
MULTIPART = {"accept": "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/json"}


@dataclass(frozen=True)
class Event:
    kind: str
    data: Any
    id: str | None


@asynccontextmanager
async def stream(
    api: Api, headers: dict[str, str], query: str, **variables: Any
) -> AsyncIterator[httpx.Response]:
    body = {"query": query, "variables": variables}
    async with api.http.stream("POST", "/graphql", json=body, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        yield response


async def events(response: httpx.Response) -> AsyncGenerator[Event, None]:
    """As a browser reads them; comments are passed over."""
    found: dict[str, str] = {}
    async for line in response.aiter_lines():
        if not line:
            if "data" in found:
                data = orjson.loads(found["data"]) if found["data"] else None
                yield Event(found["event"], data, found.get("id"))
            found = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value


async def parts(response: httpx.Response) -> AsyncGenerator[Any, None]:
    """The payload of each part, as soon as its boundary came; heartbeats are passed over."""
    text = ""
    async for chunk in response.aiter_text():
        *whole, text = (text + chunk).split("\r\n--graphql")
        for part in whole:
            content = orjson.loads(part.rpartition("\r\n\r\n")[2] or "{}")
            if "payload" in content:
                yield content["payload"]


async def results(
    api: Api, headers: dict[str, str], query: str, **variables: Any
) -> AsyncGenerator[dict[str, Any], None]:
    """The data of each result; closing it drops the connection."""
    async with stream(api, headers, query, **variables) as response:
        if "text/event-stream" in headers["accept"]:
            async with aclosing(events(response)) as found:
                async for event in found:
                    if event.data is not None:
                        yield event.data["data"]
        else:
            async with aclosing(parts(response)) as found:
                async for payload in found:
                    yield payload["data"]
