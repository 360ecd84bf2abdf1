"""A small server with the product's doors, on a real socket: what the verbs meet in these tests."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

JOB = {
    "id": "ftjob_1", "name": "support [bold]\x1b[31m", "status": "SUCCEEDED",
    "requestedAction": None, "provider": "LOCAL", "baseModel": "tiny", "method": "supervised",
    "createdAt": "2026-01-01T00:00:00.000Z", "finishedAt": None, "error": None,
    "progress": {"step": 10, "totalSteps": 10, "percent": 100.0},
    "latestMetrics": {"step": 10, "trainingLoss": 0.5, "validationLoss": 0.25},
    "resolvedHyperparameters": {"total_steps": 10},
    "model": {"id": "model_1", "name": "ft:tiny::1"},
}  # fmt: skip


def event(seq: int, type: str, message: str, step: int | None = None, **data: Any) -> Any:
    return {
        "cursor": f"s{seq}", "type": type, "level": "INFO", "message": message, "attempt": 1,
        "at": "2026-01-01T00:00:00.000Z", "step": step, "data": data,
    }  # fmt: skip


EVENTS = [
    event(1, "STATUS", "queued → running", after="running"),
    event(2, "METRICS", "Step 0", 0, values={"validation_loss": 2.0}),
    event(3, "METRICS", "Step 10", 10, values={"training_loss": 0.5, "validation_loss": 0.25}),
    event(4, "STATUS", "running → over", after="succeeded"),
]


@dataclass
class StandIn:
    """`answers` holds the `data` for each root field; `asked` what came in."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/graphql", self._graphql, methods=["POST"]),
                WebSocketRoute("/graphql", self._live),
                Route("/v1/files", self._upload, methods=["POST"]),
                Route("/v1/files/{id}", self._delete, methods=["DELETE"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

    async def _graphql(self, request: Request) -> Response:
        if request.headers["authorization"] != "Bearer lt_key":
            refusal = {"message": "No such key.", "extensions": {"code": "API_KEY_INVALID"}}
            return JSONResponse({"errors": [refusal]}, 401)
        asked = await request.json()
        self.asked.append(asked)
        found = {
            name: answer
            for name, answer in self.answers.items()
            if f"{name}(" in asked["query"] or f"{name} {{" in asked["query"]
        }
        if found:
            return JSONResponse({"data": found})
        return JSONResponse({"errors": [{"message": "Not in the script."}]})

    async def _live(self, socket: WebSocket) -> None:
        await socket.accept("graphql-transport-ws")
        await socket.receive_json()
        await socket.send_json({"type": "connection_ack"})
        asked = (await socket.receive_json())["payload"]["variables"]
        after = int(asked["after"].removeprefix("s"))
        for one in EVENTS[after : after + 2]:
            await socket.send_json(
                {"id": "1", "type": "next", "payload": {"data": {"jobEvents": one}}}
            )
        if after + 2 < len(EVENTS):
            await socket.close(1012)
            return
        await socket.send_json({"id": "1", "type": "complete"})
        await asyncio.sleep(1)

    async def _upload(self, request: Request) -> Response:
        async with request.form() as form:
            file = form["file"]
            assert not isinstance(file, str)
            assert form["purpose"] == "fine-tune"
            self.uploads.append(await file.read())
        return JSONResponse({"id": f"file_{len(self.uploads)}", "bytes": len(self.uploads[-1])})

    async def _delete(self, request: Request) -> Response:
        self.deleted.append(request.path_params["id"])
        return JSONResponse({"deleted": True})

    async def _chat(self, request: Request) -> Response:
        asked = await request.json()
        self.asked.append(asked)
        if asked["model"] == "nobody":
            return JSONResponse({"error": {"message": "No such model.", "code": "gone"}}, 404)
        words = ("Hel", "lo \x1b[0m", "there")
        if not asked.get("stream"):
            return JSONResponse({"choices": [{"message": {"content": "".join(words)}}]})
        lines = [f'data: {{"choices":[{{"delta":{{"content":{_quoted(w)}}}}}]}}\n\n' for w in words]
        return StreamingResponse(iter([*lines, "data: [DONE]\n\n"]), media_type="text/event-stream")


def _quoted(text: str) -> str:
    return '"' + text.replace("\x1b", "\\u001b") + '"'


@contextmanager
def serving(stand_in: StandIn) -> Iterator[str]:
    """Run it in a thread of its own: the verbs own the main thread's event loop."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            stand_in.app(), log_level="critical", lifespan="off", ws="websockets-sansio"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
