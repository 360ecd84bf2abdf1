"""The datasets of the simulated Fireworks: sent in one request, or to its storage."""

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from app.simulators.answers import json_response
from app.simulators.cases import count_tokens, read_lines
from app.simulators.fireworks.base import ACCOUNT, FireworksBase, when
from app.simulators.runs import Plan

_LARGEST_DIRECT = 150_000_000


@dataclass
class Dataset:
    name: str
    about: dict[str, Any]
    created_at: float
    content: bytes = b""
    ready_at: float | None = None


class FireworksDatasets(FireworksBase):
    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.datasets: dict[str, Dataset] = {}

    def table(self) -> list[tuple[str, str, Any]]:
        datasets = f"{ACCOUNT}/datasets"
        return [
            ("POST", datasets, self.create_dataset),
            ("GET", datasets, self.list_datasets),
            ("POST", f"{datasets}/{{id}}:upload", self.upload),
            ("POST", f"{datasets}/{{id}}:getUploadEndpoint", self.upload_endpoint),
            ("POST", f"{datasets}/{{id}}:validateUpload", self.validate_upload),
            ("GET", f"{datasets}/{{id}}:getDownloadEndpoint", self.download_endpoint),
            ("GET", f"{datasets}/{{id}}", self.get_dataset),
            ("DELETE", f"{datasets}/{{id}}", self.delete_dataset),
        ]

    async def create_dataset(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        id = str(asked.get("datasetId") or "")
        if wrong := self.wrong_id(id, "A dataset's id"):
            return wrong
        name = self.full("datasets", id)
        if name in self.datasets:
            return self.no("ALREADY_EXISTS", f"There is a dataset {name}.")
        made = Dataset(name, asked.get("dataset") or {}, self.now())
        self.datasets[name] = made
        return json_response(self.dataset_object(made))

    def dataset_of(self, request: Request) -> Dataset | None:
        return self.datasets.get(self.full("datasets", request.path_params["id"]))

    def dataset_object(self, dataset: Dataset) -> dict[str, Any]:
        lines, _ = read_lines(dataset.content) if dataset.content else ([], None)
        return {
            **dataset.about,
            "name": dataset.name,
            "state": "READY" if self.is_ready(dataset) else "UPLOADING",
            "status": {"code": "OK", "message": ""},
            "createTime": when(dataset.created_at),
            "updateTime": when(dataset.ready_at or dataset.created_at),
            "createdBy": "owner@acme.example",
            "estimatedTokenCount": str(count_tokens(lines)),
        }

    def is_ready(self, dataset: Dataset | None) -> bool:
        return bool(dataset and dataset.ready_at is not None and dataset.ready_at <= self.now())

    async def list_datasets(self, request: Request) -> Response:
        return self.page(request, "datasets", [*map(self.dataset_object, self.datasets.values())])

    async def get_dataset(self, request: Request) -> Response:
        found = self.dataset_of(request)
        return json_response(self.dataset_object(found)) if found else self.nothing("such dataset")

    async def delete_dataset(self, request: Request) -> Response:
        if self.datasets.pop(self.full("datasets", request.path_params["id"]), None) is None:
            return self.nothing("such dataset")
        return json_response({})

    async def upload(self, request: Request) -> Response:
        found = self.dataset_of(request)
        file = (await request.form()).get("file")
        if found is None:
            return self.nothing("such dataset")
        if not isinstance(file, UploadFile):
            return self.no("INVALID_ARGUMENT", "file is required.")
        content = await file.read()
        if len(content) > _LARGEST_DIRECT:
            return self.no("INVALID_ARGUMENT", "More than 150 MB: use getUploadEndpoint.")
        found.content, found.ready_at = content, self.now() + self.settling
        return json_response(
            {
                "id": found.name.rsplit("/", 1)[-1],
                "object": "file",
                "bytes": len(content),
                "created_at": int(self.now()),
                "filename": file.filename,
                "purpose": "fine-tune",
            }
        )

    async def upload_endpoint(self, request: Request) -> Response:
        found = self.dataset_of(request)
        if found is None:
            return self.nothing("such dataset")
        sizes = orjson.loads(await request.body()).get("filenameToSize") or {}
        if not sizes:
            return self.no("INVALID_ARGUMENT", "filenameToSize is required.")

        def keep(content: bytes) -> bytes:
            found.content += content
            return b""

        found.content = b""
        urls = {
            name: self.sign(request, "PUT", f"{found.name}/{name}", keep, int(size))
            for name, size in sizes.items()
        }
        return json_response({"filenameToSignedUrls": urls})

    async def validate_upload(self, request: Request) -> Response:
        found = self.dataset_of(request)
        if found is None:
            return self.nothing("such dataset")
        if not found.content:
            return self.no("FAILED_PRECONDITION", "Nothing was uploaded.")
        found.ready_at = self.now() + self.settling
        return json_response({})

    async def download_endpoint(self, request: Request) -> Response:
        found = self.dataset_of(request)
        if found is None:
            return self.nothing("such dataset")
        url = self.sign(request, "GET", f"{found.name}/data.jsonl", lambda _: found.content)
        return json_response({"filenameToSignedUrls": {"data.jsonl": url}})
