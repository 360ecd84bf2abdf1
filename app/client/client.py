"""The client itself: GraphQL over HTTP, file uploads, chat completions, live streams."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from app.client.errors import ApiError, Refused, Unreachable
from app.client.live import LiveStream, OnState
from app.client.timing import Timing
from app.client.upload import CountedFile, OnProgress

_JOB_EVENTS = """
subscription ($jobId: ID!, $after: String, $types: [JobEventType!]) {
  jobEvents(jobId: $jobId, after: $after, types: $types) {
    cursor type level message at attempt step data
  }
}"""
_JOB_CHANGES = """
subscription ($filter: JobFilter, $after: String) {
  jobChanges(filter: $filter, after: $after) {
    cursor type at jobId statusThen matches
    job { id name status } progress { step totalSteps percent estimatedFinishAt }
  }
}"""
_DEPLOYMENT_CHANGES = """
subscription ($modelId: ID, $after: String) {
  deploymentChanges(modelId: $modelId, after: $after) {
    cursor at deploymentId statusThen
    deployment { id status endpoint error { code message } model { id name } }
  }
}"""
_LEDGER_NOW = "{ viewer { organization { cursor } } }"


class Client:
    """Use it as `async with Client(url, api_key) as client`, or call `close` at the end."""

    def __init__(self, url: str, api_key: str, *, timing: Timing | None = None) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key
        self._timing = timing or Timing()
        # A proxy of the environment never leads back to this very machine.
        host = urlsplit(self.url).hostname or ""
        self._here = host in ("localhost", "::1") or host.startswith("127.")
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(self._timing.answer, connect=self._timing.connect),
            trust_env=not self._here,
        )

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def execute(
        self, document: str, variables: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The `data` of a query or mutation. Raises ApiError when there is any error."""
        body = {"query": document, "variables": variables or {}}
        answer = _json(await self._send("POST", "/graphql", json=body))
        if answer.get("errors"):
            raise ApiError.of_graphql(answer["errors"])
        data: dict[str, Any] = answer.get("data") or {}
        return data

    async def mutate(self, document: str, input: dict[str, Any]) -> dict[str, Any]:
        """The payload of a one-field mutation over `$input`. Raises Refused on `userErrors`."""
        data = await self.execute(document, {"input": input})
        payload: dict[str, Any] = next(iter(data.values()))
        if refusals := payload.get("userErrors"):
            raise Refused.of_user_errors(refusals)
        return payload

    async def upload(
        self, path: Path, purpose: str = "fine-tune", on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """Send a file in pieces, telling `on_progress(sent, size)`. Returns what it became."""
        with path.open("rb") as file:
            counted = CountedFile(file, on_progress)
            response = await self._send(
                "POST",
                "/v1/files",
                data={"purpose": purpose},
                files={"file": (path.name, counted, "application/octet-stream")},
            )
        return _json(response)

    async def delete_file(self, id: str) -> None:
        await self._send("DELETE", f"/v1/files/{id}")

    async def chat(self, model: str, messages: list[dict[str, Any]], **options: Any) -> str:
        """The model's answer. Options are those of OpenAI's chat completions."""
        body = {"model": model, "messages": messages, **options}
        answer = _json(await self._send("POST", "/v1/chat/completions", json=body))
        return str(answer["choices"][0]["message"].get("content") or "")

    async def chat_stream(
        self, model: str, messages: list[dict[str, Any]], **options: Any
    ) -> AsyncGenerator[str, None]:
        """The answer piece by piece."""
        body = {"model": model, "messages": messages, **options, "stream": True}
        try:
            async with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.is_error:
                    await response.aread()
                    _json(response)
                async for line in response.aiter_lines():
                    if line.startswith("data:") and (piece := _piece(line[5:].strip())):
                        yield piece
        except httpx.HTTPError as trouble:
            raise self._unreachable(trouble) from trouble

    def subscribe(
        self,
        document: str,
        variables: dict[str, Any] | None = None,
        *,
        cursor: str | None = None,
        on_state: OnState | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Each event's `data`, across lost connections, until the server completes the stream.

        The document must take `$after: String` and select the cursor, found at the path `cursor`
        (such as "data.jobEvents.cursor"; left out: that of the only root field). Give
        `variables["after"]` for a promise that holds from the first moment: without it "from now"
        is not known until the first event has come.
        """
        return LiveStream(
            f"ws{self.url.removeprefix('http')}/graphql",
            self._api_key,
            document,
            variables or {},
            cursor=cursor,
            timing=self._timing,
            proxy=None if self._here else True,
            on_state=on_state,
        ).events()

    async def watch_job(
        self,
        job_id: str,
        after: str = "0",
        *,
        types: list[str] | None = None,
        on_state: OnState | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """A job's events after a cursor ("0": all of them), until the job is over."""
        variables = {"jobId": job_id, "after": after, "types": types}
        async with aclosing(self._watch(_JOB_EVENTS, variables, on_state)) as events:
            async for event in events:
                yield event

    async def watch_changes(
        self,
        filter: dict[str, Any] | None = None,
        after: str | None = None,
        *,
        on_state: OnState | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The organization's ledger of jobs, without end; from now when `after` is left out."""
        variables = {"filter": filter, "after": after or await self.ledger_position()}
        async with aclosing(self._watch(_JOB_CHANGES, variables, on_state)) as events:
            async for event in events:
                yield event

    async def watch_deployments(
        self,
        model_id: str | None = None,
        after: str | None = None,
        *,
        on_state: OnState | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The ledger of deployments, without end; from now when `after` is left out."""
        variables = {"modelId": model_id, "after": after or await self.ledger_position()}
        async with aclosing(self._watch(_DEPLOYMENT_CHANGES, variables, on_state)) as events:
            async for event in events:
                yield event

    async def _watch(
        self, document: str, variables: dict[str, Any], on_state: OnState | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        async with aclosing(self.subscribe(document, variables, on_state=on_state)) as events:
            async for data in events:
                (event,) = data.values()
                yield event

    async def ledger_position(self) -> str:
        """Where the organization's ledger ends now."""
        data = await self.execute(_LEDGER_NOW)
        return str(data["viewer"]["organization"]["cursor"])

    async def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **content)
        except (httpx.HTTPError, httpx.InvalidURL) as trouble:
            raise self._unreachable(trouble) from trouble
        if response.is_error:
            _json(response)
        return response

    def _unreachable(self, trouble: Exception) -> Unreachable:
        reason = str(trouble) or type(trouble).__name__
        return Unreachable(f"No answer from {self.url}: {reason}.")


def _json(response: httpx.Response) -> dict[str, Any]:
    """The body. Raises ApiError for a failed request, in whichever envelope its error comes."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    body = body if isinstance(body, dict) else {}
    if body.get("errors"):
        raise ApiError.of_graphql(body["errors"])
    if isinstance(error := body.get("error"), dict):
        raise _of_openai(error)
    status = response.status_code
    raise ApiError(f"The server answered with HTTP status {status} only.", f"HTTP_{status}")


def _of_openai(error: dict[str, Any]) -> ApiError:
    code = str(error.get("code") or error.get("type") or "UNKNOWN").upper()
    return ApiError(str(error.get("message", "The server gave no reason.")), code, [error])


def _piece(data: str) -> str:
    """What one server-sent event adds to the answer."""
    if data == "[DONE]":
        return ""
    event = json.loads(data)
    if isinstance(error := event.get("error"), dict):
        raise _of_openai(error)
    choices = event.get("choices") or [{}]
    return str((choices[0].get("delta") or {}).get("content") or "")
