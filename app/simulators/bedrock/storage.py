"""The simulated Bedrock's bucket: of S3 there is what a client of this needs."""

import base64
import csv
import hashlib
import io
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response

from app.simulators.answers import at_time
from app.simulators.bedrock.base import BUCKET, BedrockBase, Job, Refused, invalid
from app.simulators.runs import Plan


@dataclass
class Stored:
    content: bytes
    at: float
    kind: str = "application/octet-stream"


class Storage(BedrockBase):
    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.buckets: dict[str, dict[str, Stored]] = {BUCKET: {}}
        self.most_keys = 1000
        """Of a bucket on one page."""

    def storage_routes(self) -> list[tuple[str, str, Any]]:
        return [
            ("PUT", "/{bucket}", self.create_bucket),
            ("GET", "/{bucket}", self.list_objects),
            ("PUT", "/{bucket}/{key:path}", self.put_object),
            ("GET", "/{bucket}/{key:path}", self.get_object),
            ("DELETE", "/{bucket}/{key:path}", self.delete_object),
        ]

    def bucket_of(self, uri: Any) -> tuple[dict[str, Stored], str]:
        """The bucket of an `s3://` URI, and the key."""
        name, _, key = str(uri or "").removeprefix("s3://").partition("/")
        if not str(uri).startswith("s3://") or name not in self.buckets:
            raise invalid(f"Could not access the S3 URI {uri}.")
        return self.buckets[name], key

    def read(self, uri: Any) -> bytes:
        bucket, key = self.bucket_of(uri)
        if key not in bucket:
            raise invalid(f"Could not validate that the S3 object {uri} exists.")
        return bucket[key].content

    def bucket(self, request: Request) -> dict[str, Stored]:
        """With everything that the jobs have written by now."""
        for run in self.newest():
            self._write(self.jobs[run.id])
        found = self.buckets.get(request.path_params["bucket"])
        if found is None:
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist")
        return found

    def _write(self, job: Job) -> None:
        run = job.run
        uri = job.asked["outputDataConfig"]["s3Uri"].rstrip("/")
        bucket, folder = self.bucket_of(f"{uri}/model-customization-job-{job.number}")
        validation = "validation_artifacts/post_fine_tuning_validation/validation"
        epochs = int(job.asked["hyperParameters"]["epochCount"])
        for key, name, values in (
            (
                "training_artifacts/step_wise_training_metrics.csv",
                "training_loss",
                [(p.step, p.training_loss) for p in run.points],
            ),
            (
                f"{validation}/validation_metrics.csv",
                "validation_loss",
                [(p.step, p.validation_loss) for p in run.points if p.validation_loss is not None],
            ),
        ):
            if values:
                content = _metrics_csv(name, values, run.plan.steps, epochs)
                bucket[f"{folder}/{key}"] = Stored(content, run.points[-1].at, "text/csv")

    async def create_bucket(self, request: Request) -> Response:
        self.buckets.setdefault(request.path_params["bucket"], {})
        return Response(b"")

    async def put_object(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "application/octet-stream")
        stored = Stored(await request.body(), self.now(), kind)
        self.bucket(request)[request.path_params["key"]] = stored
        return Response(b"", headers={"etag": _etag(stored)})

    async def get_object(self, request: Request) -> Response:
        stored = self.bucket(request).get(request.path_params["key"])
        if stored is None:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        headers = {
            "etag": _etag(stored),
            "last-modified": formatdate(stored.at, usegmt=True),
            "content-type": stored.kind,
        }
        return Response(stored.content, headers=headers)

    async def delete_object(self, request: Request) -> Response:
        self.bucket(request).pop(request.path_params["key"], None)
        return Response(b"", 204)

    async def list_objects(self, request: Request) -> Response:
        query, bucket = request.query_params, self.bucket(request)
        prefix, most = query.get("prefix", ""), int(query.get("max-keys", self.most_keys))
        most = min(most, self.most_keys)
        after = query.get("start-after", "")
        if token := query.get("continuation-token"):
            after = base64.b64decode(token).decode()
        keys = sorted(key for key in bucket if key.startswith(prefix) and key > after)
        shown = keys[:most]
        escaped = query.get("encoding-type") == "url"

        def told(key: str) -> str:
            return escape(quote(key, safe="/-_.~") if escaped else key)

        rows = [
            f"<Contents><Key>{told(key)}</Key><LastModified>{at_time(bucket[key].at)}</LastModified>"
            f"<ETag>{escape(_etag(bucket[key]))}</ETag><Size>{len(bucket[key].content)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key in shown
        ]
        more = ""
        if len(keys) > most and shown:
            token = base64.b64encode(shown[-1].encode()).decode()
            more = f"<NextContinuationToken>{token}</NextContinuationToken>"
        return Response(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{request.path_params['bucket']}</Name><Prefix>{told(prefix)}</Prefix>"
            f"<KeyCount>{len(shown)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            + ("<EncodingType>url</EncodingType>" if escaped else "")
            + f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{''.join(rows)}"
            "</ListBucketResult>",
            media_type="application/xml",
        )


def _metrics_csv(name: str, values: list[tuple[int, float]], steps: int, epochs: int) -> bytes:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["step_number", "epoch_number", name, "perplexity"])
    for step, value in values:
        rows.writerow([step - 1, (step - 1) * epochs // steps, value, round(2.718281828**value, 4)])
    return out.getvalue().encode()


def _etag(stored: Stored) -> str:
    return f'"{hashlib.md5(stored.content, usedforsecurity=False).hexdigest()}"'
