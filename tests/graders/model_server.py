"""A model's server that speaks OpenAI's chat completions, and misbehaves as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

TOKEN = "a-token-for-graders"


class ModelServer:
    """`answers` are given one after the other, the last one again and again, while `may_answer`
    is set."""

    def __init__(self) -> None:
        self.url, self.token = "", TOKEN
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.requests: list[dict[str, Any]] = []
        self.answers: list[tuple[int, Any]] = []

    def say(self, *contents: str | tuple[int, Any]) -> None:
        """Texts of the model, or a status and body of the server's."""
        self.requests.clear()
        self.answers = [
            (200, completion(content)) if isinstance(content, str) else content
            for content in contents
        ]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower().split("\r\n")
                length = next(int(line[16:]) for line in lines if line.startswith("content-length"))
                self.requests.append(json.loads(await reader.readexactly(length)))
                await self.may_answer.wait()
                status, body = self._answer(lines)
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
                    f"content-length: {len(content)}\r\n\r\n".encode()
                    + content
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, lines: list[str]) -> tuple[int, Any]:
        if not lines[0].startswith("post /v1/chat/completions "):
            return 404, refusal(404, "no such route")
        if f"authorization: bearer {self.token}" not in lines:
            return 401, refusal(401, "wrong token")
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    server = ModelServer()
    listening = await asyncio.start_server(server._serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    yield server
    listening.close()


def completion(
    content: str | None, *, finish: str = "stop", refused: str | None = None
) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "refusal": refused}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "judge-2026-01-01",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42},
    }


def refusal(status: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", "param": None, "code": None}}
