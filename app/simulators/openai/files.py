"""The simulated OpenAI's files."""

from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from app.simulators.answers import json_response
from app.simulators.openai.base import OpenAIBase
from app.simulators.runs import Plan


@dataclass
class StoredFile:
    id: str
    filename: str
    purpose: str
    content: bytes
    created_at: float


class OpenAIFiles(OpenAIBase):
    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.files: dict[str, StoredFile] = {}

    def file_routes(self) -> list[tuple[str, str, Any]]:
        return [
            ("POST", "/files", self.upload),
            ("GET", "/files", self.list_files),
            ("GET", "/files/{id}", self.get_file),
            ("DELETE", "/files/{id}", self.delete_file),
            ("GET", "/files/{id}/content", self.content),
        ]

    async def upload(self, request: Request) -> Response:
        form = await request.form()
        file, purpose = form.get("file"), str(form.get("purpose", ""))
        if not isinstance(file, UploadFile):
            return self.refusal(400, "missing_required_parameter", "file is required.", "file")
        if not purpose:
            return self.refusal(
                400, "missing_required_parameter", "purpose is required.", "purpose"
            )
        stored = self.keep(file.filename or "file", purpose, await file.read())
        return json_response(self.file_object(stored))

    def keep(self, filename: str, purpose: str, content: bytes) -> StoredFile:
        stored = StoredFile(self.id("file-"), filename, purpose, content, self.now())
        self.files[stored.id] = stored
        return stored

    def file_object(self, file: StoredFile) -> dict[str, Any]:
        return {
            "id": file.id,
            "object": "file",
            "bytes": len(file.content),
            "created_at": int(file.created_at),
            "filename": file.filename,
            "purpose": file.purpose,
            "status": "processed",
            "expires_at": None,
            "status_details": None,
        }

    async def list_files(self, request: Request) -> Response:
        purpose = request.query_params.get("purpose")
        rows = [f for f in self.files.values() if purpose is None or f.purpose == purpose]
        rows.sort(key=lambda f: f.created_at, reverse=request.query_params.get("order") != "asc")
        return self.page(request, [self.file_object(f) for f in rows], 10_000)

    async def get_file(self, request: Request) -> Response:
        file = self.files.get(request.path_params["id"])
        return json_response(self.file_object(file)) if file else self.nothing("file")

    async def delete_file(self, request: Request) -> Response:
        file = self.files.pop(request.path_params["id"], None)
        if file is None:
            return self.nothing("file")
        return json_response({"id": file.id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        file = self.files.get(request.path_params["id"])
        if file is None:
            return self.nothing("file")
        return Response(file.content, media_type="application/octet-stream")
