"""A simulated Together's files: announced, put to a signed URL on another socket, processed.

Wire format: the SDK 3.1.1 as it was read off the wire; the names of what processing finds are of
its types.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from app.simulators.answers import json_response, openai_error
from app.simulators.cases import read_lines
from app.simulators.runs import Plan
from app.simulators.simulator import Simulator, listening

_COLUMNS = {
    "CONVERSATION": ({"messages"}, {"tools"}),
    "PREFERENCE_OPENAI": ({"input", "preferred_output", "non_preferred_output"}, set[str]()),
    "INSTRUCTION": ({"prompt", "completion"}, set[str]()),
    "GENERAL": ({"text"}, set[str]()),
}
_TYPES = ("jsonl", "parquet", "csv")


@dataclass
class StoredFile:
    id: str
    filename: str
    purpose: str
    kind: str
    checksum: str
    created_at: float
    token: str = ""
    content: bytes | None = None
    processing_since: float | None = None
    lines: int = 0
    format: str | None = None
    wrong: str | None = None


class FilesSimulator(Simulator):
    ports: ClassVar[int] = 2

    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.files: dict[str, StoredFile] = {}
        self.store_requests: list[tuple[str, int]] = []
        """What came to the store: the method, and what was answered."""

    def file_routes(self) -> list[tuple[str, str, Any]]:
        return [
            ("POST", "/v1/files", self.announce),
            ("POST", "/v1/files/upload", self.upload),
            ("GET", "/v1/files", self.list_files),
            ("GET", "/v1/files/{id}", self.get_file),
            ("DELETE", "/v1/files/{id}", self.delete_file),
            ("GET", "/v1/files/{id}/content", self.content),
            ("POST", "/v1/files/{id}/preprocess", self.preprocess),
        ]

    @asynccontextmanager
    async def served(self, port: int = 0) -> AsyncIterator[str]:
        """The store listens on a port of its own, as storage does."""
        beside = port and port + 1
        async with listening(self.store(), beside) as store, super().served(port) as url:
            self.origins = (store,)
            yield url

    def store(self) -> ASGIApp:
        return Starlette(routes=[Route("/bucket/{id}", self.put, methods=["PUT"])])

    # The three steps

    async def announce(self, request: Request) -> Response:
        form = await request.form()
        told = {name: str(form.get(name) or "") for name in ("purpose", "file_name", "file_type")}
        for name, value in told.items():
            if not value:
                return self.refusal(400, "missing_field", f"{name} is required.", name)
        if told["file_type"] not in _TYPES:
            return self.refusal(400, "invalid_file_type", "Unknown file type.", "file_type")
        checksum = str(form.get("checksum") or "")
        if there := self.same_content(checksum):
            return json_response({"file_id": there.id, "message": "file already exists"}, 409)
        file = self.keep(told["file_name"], told["purpose"], told["file_type"], checksum)
        file.token = secrets.token_urlsafe(24)
        where = f"{self.origins[0]}/bucket/{file.id}?signature={file.token}"
        return Response(status_code=302, headers={"location": where, "x-together-file-id": file.id})

    async def put(self, request: Request) -> Response:
        """The store: the token in the URL is the permission, and a second one is refused."""
        file = self.files.get(request.path_params["id"])
        content, status = await request.body(), 200
        if "authorization" in request.headers:
            status = 400
        elif file is None or request.query_params.get("signature") != file.token:
            status = 403
        elif file.checksum not in ("", hashlib.sha256(content).hexdigest()):
            status = 400
        else:
            file.content = content
        self.store_requests.append(("PUT", status))
        words = {400: "InvalidRequest", 403: "AccessDenied"}.get(status)
        body = f"<Error><Code>{words}</Code></Error>" if words else ""
        return Response(body, status, media_type="application/xml")

    async def preprocess(self, request: Request) -> Response:
        file = self.files.get(request.path_params["id"])
        if file is None:
            return self.nothing("file")
        if file.content is None:
            return self.refusal(400, "not_uploaded", "The file has not been uploaded.", "id")
        self.process(file)
        return json_response(self.file_object(file))

    async def upload(self, request: Request) -> Response:
        """All at once, as an older page has it."""
        form = await request.form()
        sent = form.get("file")
        if not isinstance(sent, UploadFile):
            return self.refusal(400, "missing_field", "file is required.", "file")
        content = await sent.read()
        checksum = hashlib.sha256(content).hexdigest()
        name = str(form.get("file_name") or sent.filename or "file.jsonl")
        file = self.keep(name, str(form.get("purpose") or "fine-tune"), "jsonl", checksum)
        file.content = content
        self.process(file)
        return json_response(self.file_object(file))

    # The files

    def keep(self, name: str, purpose: str, kind: str, checksum: str) -> StoredFile:
        file = StoredFile(self.id("file-"), name, purpose, kind, checksum, self.now())
        self.files[file.id] = file
        return file

    def same_content(self, checksum: str) -> StoredFile | None:
        return next(
            (
                file
                for file in self.files.values()
                if checksum and file.checksum == checksum and file.content is not None
            ),
            None,
        )

    def process(self, file: StoredFile) -> None:
        if file.processing_since is None:
            file.processing_since = self.now()
            lines, wrong = read_lines(file.content or b"")
            file.lines = len(lines)
            file.format, file.wrong = (None, wrong) if wrong else _looked_at(lines)

    def state_of(self, file: StoredFile) -> str:
        if file.processing_since is None:
            return "PENDING"
        passed = self.now() - file.processing_since
        if passed < self.plan.validating:
            return "QUEUED" if passed < self.plan.validating / 4 else "RUNNING"
        return "INVALID_FORMAT" if file.wrong else "COMPLETED"

    def file_object(self, file: StoredFile) -> dict[str, Any]:
        state = self.state_of(file)
        made = {
            "id": file.id,
            "object": "file",
            "created_at": int(file.created_at),
            "filename": file.filename,
            "bytes": len(file.content or b""),
            "purpose": file.purpose,
            "FileType": file.kind,
            "LineCount": file.lines,
            "processing_status": state,
            "Processed": state == "COMPLETED",  # SDK 2.x does not do without
        }
        if state in ("COMPLETED", "INVALID_FORMAT"):
            made["validation_report"] = {
                "file_id": file.id,
                "valid": file.wrong is None,
                "nlines": file.lines,
                "dataset_format": file.format,
                **({"error": file.wrong, "error_type": "INVALID_FORMAT"} if file.wrong else {}),
            }
        return made

    async def list_files(self, request: Request) -> Response:
        rows = sorted(self.files.values(), key=lambda file: -file.created_at)
        return json_response({"data": [self.file_object(file) for file in rows]})

    async def get_file(self, request: Request) -> Response:
        file = self.files.get(request.path_params["id"])
        return json_response(self.file_object(file)) if file else self.nothing("file")

    async def delete_file(self, request: Request) -> Response:
        file = self.files.pop(request.path_params["id"], None)
        return json_response({"id": file.id, "deleted": True}) if file else self.nothing("file")

    async def content(self, request: Request) -> Response:
        file = self.files.get(request.path_params["id"])
        if file is None or file.content is None:
            return self.nothing("file")
        return Response(file.content, media_type="application/octet-stream")

    def refusal(self, status: int, code: str, message: str, param: str | None = None) -> Response:
        return openai_error(status, code, message, param)

    def nothing(self, what: str) -> Response:
        return self.refusal(404, "not_found", f"There is no such {what}.", "id")


def _looked_at(lines: list[dict[str, Any]]) -> tuple[str | None, str | None]:
    """The format of training data, and what is wrong with it."""
    columns = lines[0].keys()
    format = next((name for name, (needed, _) in _COLUMNS.items() if needed <= columns), None)
    if format is None:
        return None, "Error parsing file. The columns of line 1 are those of no known format."
    needed, more = _COLUMNS[format]
    for number, line in enumerate(lines, 1):
        if not needed <= line.keys() or line.keys() - needed - more:
            return format, f"Line {number} has not the columns of the format {format}."
        if wrong := _wrong(format, line):
            return format, f"Line {number}: {wrong}"
    return format, None


def _wrong(format: str, line: dict[str, Any]) -> str | None:
    if format == "CONVERSATION":
        roles = [message.get("role") for message in line["messages"]]
        if not set(roles) <= {"system", "user", "assistant", "tool"}:
            return "a message has an unknown role."
        return None if "assistant" in roles else "no message is the assistant's."
    if format == "PREFERENCE_OPENAI":
        for name in ("preferred_output", "non_preferred_output"):
            if [message.get("role") for message in line[name]] != ["assistant"]:
                return f"{name} is not exactly one message of the assistant."
    return None
