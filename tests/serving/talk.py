"""Short ways to ask."""

import json
from typing import Any

import httpx

PATH = "/v1/chat/completions"


def question(model: str, text: str = "Which wood?", **settings: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 24, **settings}


async def ask(
    client: httpx.AsyncClient, model: str, text: str = "Which wood?", **settings: Any
) -> Any:
    reply = await client.post(PATH, json=question(model, text, **settings))
    assert reply.status_code == 200, reply.text
    return reply.json()


async def answer(
    client: httpx.AsyncClient, model: str, text: str = "Which wood?", **settings: Any
) -> str:
    return str((await ask(client, model, text, **settings))["choices"][0]["message"]["content"])


async def refused(client: httpx.AsyncClient, status: int, **settings: Any) -> Any:
    reply = await client.post(PATH, json={**question("tiny"), **settings})
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def stream(client: httpx.AsyncClient, body: dict[str, Any]) -> list[Any]:
    """The chunks; the frame around them is checked here."""
    async with client.stream("POST", PATH, json={**body, "stream": True}) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        raw = (await reply.aread()).decode()
    events = raw.split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def texts(chunks: list[Any]) -> dict[int, str]:
    out: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            index = choice["index"]
            out[index] = out.get(index, "") + choice["delta"].get("content", "")
    return out
