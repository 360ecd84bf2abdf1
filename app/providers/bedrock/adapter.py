"""Amazon Bedrock: models of Anthropic, Amazon and Meta, tuned and called in an AWS account.

Written after the service's model in botocore 1.44.5 (`bedrock` 2023-04-20, `bedrock-runtime`
2023-09-30) and the user guide's pages on custom models. There is no route for data: it goes
through a bucket of the account's own, and so do the metrics.
"""

import asyncio
import csv
import hashlib
import html
import io
import re
from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx
import orjson
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from app.core import clock
from app.core.egress import Reply
from app.providers.base import (
    OVER,
    Adapter,
    Capabilities,
    Data,
    Item,
    Listed,
    Method,
    Offer,
    Order,
    Placed,
    Placing,
    Result,
    Sighting,
    Status,
)
from app.providers.errors import (
    ProviderBusy,
    ProviderDenied,
    ProviderExists,
    ProviderMissing,
    ProviderRefused,
    ProviderTrouble,
    ProviderUnreachable,
)

PREFIX = "luthier-"
CLAUDE_3_HAIKU = "anthropic.claude-3-haiku-20240307-v1:0:200k"
_JOBS = "/model-customization-jobs"
_MOST_ROWS = 1000
_TOKEN_TROUBLE = frozenset({"ExpiredToken", "InvalidToken"})
_CLOCKS_DIFFER = timedelta(minutes=1)

STATUSES = {
    "InProgress": Status.RUNNING,
    "Stopping": Status.RUNNING,
    "Completed": Status.SUCCEEDED,
    "Failed": Status.FAILED,
    "Stopped": Status.CANCELLED,
}

# Theirs are all text. Claude and Llama take a multiplier, Nova the rate itself.
NUMBERS = {
    "n_epochs": "epochCount",
    "batch_size": "batchSize",
    "learning_rate_multiplier": "learningRateMultiplier",
    "learning_rate": "learningRate",
    "warmup_steps": "learningRateWarmupSteps",
}
STOPPING = {"patience": "earlyStoppingPatience", "min_delta": "earlyStoppingThreshold"}

# The guide leaves out the folder before the second name, so files are known by how they end.
TRAINING_CSV = "training_artifacts/step_wise_training_metrics.csv"
VALIDATION_CSV = "validation_metrics.csv"

FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


class Signed(httpx.Auth):
    """Signature version 4, by botocore.

    A signature holds for five minutes around the service's time. When ours is off, the refusal's
    own date says by how much, and the request is sent once more: it has done nothing.
    """

    requires_request_body = True

    def __init__(self, credentials: Credentials, region: str, storage: str) -> None:
        """`storage`: the URL below which requests go to S3, which is signed differently."""
        self._storage = str(httpx.URL(storage)).rstrip("/")
        # The runtime is another host, but the same service to those who check signatures.
        self._control = SigV4Auth(credentials, "bedrock", region)
        self._s3 = S3SigV4Auth(credentials, "s3", region)
        self._token = credentials.token
        self._ahead = timedelta()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        self._sign(request)
        response = yield request
        if response.status_code != 403 or not (dates := response.headers.get_list("date")):
            return
        try:
            ahead = parsedate_to_datetime(dates[-1]) - datetime.now(UTC)
        except (ValueError, TypeError):
            return
        if abs(ahead - self._ahead) > _CLOCKS_DIFFER:
            self._ahead = ahead
            self._sign(request)
            yield request

    def _sign(self, request: httpx.Request) -> None:
        stored = str(request.url).startswith(self._storage)
        signer = self._s3 if stored else self._control
        stamp = (datetime.now(UTC) + self._ahead).strftime("%Y%m%dT%H%M%SZ")
        headers = {"Host": request.headers["host"], "X-Amz-Date": stamp}
        if "content-type" in request.headers:
            headers["Content-Type"] = request.headers["content-type"]
        if self._token:
            headers["X-Amz-Security-Token"] = self._token
        if stored:
            headers["X-Amz-Content-SHA256"] = hashlib.sha256(request.content).hexdigest()
        # As it goes over the wire: an ARN in a path is escaped, and what is signed once more.
        url = f"{request.url.scheme}://{headers['Host']}{request.url.raw_path.decode()}"
        told = AWSRequest(request.method, url, headers=headers, data=request.content)
        told.context["timestamp"] = stamp
        signature = signer.signature(
            signer.string_to_sign(told, signer.canonical_request(told)), told
        )
        names = signer.signed_headers(signer.headers_to_sign(told))
        request.headers.update(headers)
        request.headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={signer.scope(told)}, SignedHeaders={names}, "
            f"Signature={signature}"
        )


@dataclass(frozen=True)
class _Way:
    """A way to make a model callable, and what its routes call things."""

    path: str
    list_path: str
    arn: str
    name: str
    rows: str
    row_name: str


_ON_DEMAND = _Way(
    "/model-customization/custom-model-deployments",
    "/model-customization/custom-model-deployments",
    "customModelDeploymentArn",
    "modelDeploymentName",
    "modelDeploymentSummaries",
    "customModelDeploymentName",
)
_PROVISIONED = _Way(
    "/provisioned-model-throughput",
    "/provisioned-model-throughputs",
    "provisionedModelArn",
    "provisionedModelName",
    "provisionedModelSummaries",
    "provisionedModelName",
)
_ON_DEMAND_FAMILIES = ("amazon.nova-",)
_PLACED = {"Creating": "starting", "Active": "ready", "InService": "ready", "Updating": "ready",
           "Failed": "failed"}  # fmt: skip


class Bedrock(Adapter):
    capabilities = Capabilities(
        provider="bedrock",
        name="Amazon Bedrock (Anthropic)",
        methods=("supervised",),
        hyperparameters={"supervised": frozenset({*NUMBERS, "early_stopping"})},
        pause=False,
        resume=False,
        messages="status changes",
        metrics="CSV files in the account's bucket",
        checkpoints=False,
        webhooks="EventBridge",
        deployment="dedicated",
        repeatable_create=True,
        longest_suffix=30,
    )
    offers = (
        Offer(
            CLAUDE_3_HAIKU,
            ("supervised",),
            "The only Claude that could ever be tuned; its end of life is over.",
            max_sequence_length=200_000,
            ends=date(2026, 9, 10),
        ),
        Offer("amazon.nova-2-lite-v1:0:256k", ("supervised",), "Amazon's, of the second round."),
        Offer("amazon.nova-pro-v1:0:300k", ("supervised",), "The large Nova."),
        Offer("amazon.nova-lite-v1:0:300k", ("supervised",), "The middle one."),
        Offer("amazon.nova-micro-v1:0:128k", ("supervised",), "The small one, for text only."),
        Offer("meta.llama3-1-70b-instruct-v1:0:128k", ("supervised",), "Meta's large one."),
        Offer("meta.llama3-1-8b-instruct-v1:0:128k", ("supervised",), "Meta's small one."),
    )
    secrets = ("access_key_id", "secret_access_key", "session_token")
    urls = {
        "base_url": "https://bedrock.{region}.amazonaws.com",
        "runtime_url": "https://bedrock-runtime.{region}.amazonaws.com",
        "storage_url": "https://{bucket}.s3.{region}.amazonaws.com",
    }
    hosts = ("*.amazonaws.com",)
    required = ("access_key_id", "secret_access_key", "region", "role_arn", "bucket")
    optional = ("prefix", "model_units")

    def auth(self, client: httpx.AsyncClient) -> httpx.Auth:
        secrets, settings = self.account.secrets, self.account.settings
        credentials = Credentials(
            secrets["access_key_id"],
            secrets["secret_access_key"],
            secrets.get("session_token") or None,
        )
        return Signed(credentials, settings.get("region", ""), self.url("storage_url"))

    def read_refusal(
        self, response: httpx.Response, body: Any
    ) -> tuple[str | None, str | None, str | None]:
        """The type is in a header, with a URL behind a colon at times; S3 answers in XML."""
        if body is None:
            words = response.text
            return _between(words, "Code"), _between(words, "Message"), None
        kind = response.headers.get("x-amzn-errortype", "").partition(":")[0]
        message = body.get("message") or body.get("Message") if isinstance(body, dict) else None
        return kind or None, message, None

    async def check(self) -> None:
        await self.listing(1)
        await self._keys(self._place("data/"), most=1)

    # Requests

    async def _control(self, method: str, path: str, **request: Any) -> Any:
        try:
            return await self.http.json(method, f"{self.url('base_url')}{path}", **request)
        except ProviderRefused as refused:
            if refused.reason == "ConflictException":
                raise ProviderExists(f"{self.capabilities.name} says: {refused}") from refused
            raise

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
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
        query["max-keys"] = str(min(most, 1000))
        while len(found) < most:
            answer = await self._stored("GET", f"{self.url('storage_url')}?{_query(query)}")
            found += [unquote(html.unescape(key)) for key in _KEY.findall(answer.text)]
            more = _between(answer.text, "NextContinuationToken")
            if not more:
                break
            query["continuation-token"] = more
        return found[:most]

    # Jobs

    async def upload(self, data: Data) -> str:
        if data.method != "supervised":
            raise self.unsupported(f"train on data of the method {data.method}")
        # Another name for each family's form of the same cases: what is sent is what is hashed.
        content = await asyncio.to_thread(
            converted, data.path, data.base_model, f"{data.role}_file"
        )
        key = self._place(f"data/{hashlib.sha256(content).hexdigest()}.jsonl")
        headers = {"content-type": "application/jsonl"}
        await self._stored("PUT", self._object(key), content=content, headers=headers)
        return self._uri(key)

    async def create(self, order: Order) -> Sighting:
        body: dict[str, Any] = {
            "jobName": job_name(order.marker),
            "customModelName": model_name(order.marker, order.suffix),
            "clientRequestToken": _token(order.marker),
            "roleArn": self.account.settings["role_arn"],
            "baseModelIdentifier": order.base_model,
            "customizationType": "FINE_TUNING",
            "trainingDataConfig": {"s3Uri": order.training},
            "outputDataConfig": {"s3Uri": self._uri(self._place("output/"))},
            "hyperParameters": _told(order.hyperparameters),
        }
        if order.validation:
            body["validationDataConfig"] = {"validators": [{"s3Uri": order.validation}]}
        arn = str((await self._control("POST", _JOBS, json=body, once=True))["jobArn"])
        try:
            return await self.get(arn)
        except (ProviderMissing, *ProviderTrouble):
            # It was made, and that must not be lost because a look at it failed.
            return Sighting(
                arn, "InProgress", Status.PENDING, order.base_model, marker=order.marker
            )

    async def find(self, marker: str) -> Sighting | None:
        for row in await self._rows({"nameContains": job_name(marker)}, _MOST_ROWS):
            if row.get("jobName") == job_name(marker):
                return await self.get(str(row["jobArn"]))
        return None

    async def listing(self, most: int) -> list[Sighting]:
        return [self.sighting(row) for row in await self._rows({}, most)]

    async def get(self, id: str) -> Sighting:
        return self.sighting(await self._control("GET", f"{_JOBS}/{quote(id, safe='')}"))

    async def cancel(self, id: str) -> None:
        """A refusal is none where the job is already where it should be."""
        try:
            await self._control("POST", f"{_JOBS}/{quote(id, safe='')}/stop")
        except (ProviderRefused, ProviderExists):
            now = await self.get(id)
            if now.status not in OVER and not now.ending:
                raise

    async def news(self, job: Sighting, newest: str | None) -> list[Item]:
        items = [
            item
            for kind, (_, content) in (await self._files(job)).items()
            for item in points_of(kind, content)
        ]
        # Whoever keeps one row of a step keeps the last, which every step has: the training's.
        return sorted(items, key=lambda item: (item.step or 0, item.key.startswith("training")))

    async def results(self, job: Sighting) -> list[Result]:
        return [Result(name, content) for name, content in (await self._files(job)).values()]

    async def _files(self, job: Sighting) -> dict[str, tuple[str, bytes]]:
        """What the job has written so far: its name and content by `training`, `validation`."""
        output = job.extra.get("output")
        if output is None:  # a row of a list
            output = (await self.get(job.id)).extra.get("output")
        bucket, _, folder = str(output or "").removeprefix("s3://").partition("/")
        if bucket != self.account.settings["bucket"]:
            return {}
        folder = f"{folder.rstrip('/')}/" if folder else ""
        found: dict[str, tuple[str, bytes]] = {}
        try:
            keys = await self._keys(f"{folder}model-customization-job-{job.id.rpartition('/')[2]}/")
            for kind, end in (("training", TRAINING_CSV), ("validation", VALIDATION_CSV)):
                key = next((key for key in keys if key.endswith(end)), None)
                if key is not None:
                    answer = await self._stored("GET", self._object(key))
                    found[kind] = key.rpartition("/")[2], answer.content
        except ProviderMissing:  # the bucket or a file is gone, which says nothing about the job
            pass
        return found

    async def _rows(self, query: Mapping[str, str], most: int) -> list[Mapping[str, Any]]:
        """The newest first."""
        asked = {"sortBy": "CreationTime", "sortOrder": "Descending", **query}
        asked["maxResults"] = str(min(most, _MOST_ROWS))
        return await self._pages(_JOBS, "modelCustomizationJobSummaries", asked, most)

    async def _pages(
        self, path: str, rows: str, asked: dict[str, str], most: int
    ) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        while len(found) < most:
            page = await self._control("GET", f"{path}?{_query(asked)}")
            found += page.get(rows) or []
            if not page.get("nextToken"):
                break
            asked["nextToken"] = str(page["nextToken"])
        return found[:most]

    def sighting(self, job: Mapping[str, Any]) -> Sighting:
        """Of a whole job, or of a row of a list, which lacks much."""
        raw = str(job.get("status", ""))
        name, made = str(job.get("jobName", "")), job.get("outputModelName") or ""
        marker = marker_of(name)
        told = str(job.get("failureMessage") or "")
        failed = raw == "Failed"
        kind: Method = "supervised"
        if job.get("customizationType") == "REINFORCEMENT_FINE_TUNING":
            kind = "reinforcement"
        validators = (job.get("validationDataConfig") or {}).get("validators") or [{}]
        output = (job.get("outputDataConfig") or {}).get("s3Uri")
        return Sighting(
            id=str(job["jobArn"]),
            raw=raw,
            status=_in_progress(job) if raw == "InProgress" else STATUSES.get(raw),
            base_model=str(job.get("baseModelArn", "")).rpartition("foundation-model/")[2],
            method=kind,
            marker=marker,
            ending=raw == "Stopping",
            model=(
                job.get("outputModelArn") or job.get("customModelArn")
                if raw == "Completed"
                else None
            ),
            error=(
                {"code": "failed", "message": self.http.clean(told), "param": None}
                if failed and told
                else None
            ),
            created_at=moment(job.get("creationTime")),
            finished_at=moment(job.get("endTime")),
            resolved=_settled(job.get("hyperParameters") or {}),
            suffix=_suffix_of(made, marker) if marker else None,
            training=(job.get("trainingDataConfig") or {}).get("s3Uri"),
            validation=validators[0].get("s3Uri"),
            name=name or None,
            extra={"output": output} if output else {},
        )

    # Models

    async def models(self) -> list[Listed]:
        """Those that can be tuned. The list is one page."""
        found = await self._control("GET", "/foundation-models?byCustomizationType=FINE_TUNING")
        listed = []
        for row in found.get("modelSummaries") or []:
            ends = moment((row.get("modelLifecycle") or {}).get("endOfLifeTime"))
            listed.append(Listed(str(row["modelId"]), ends.date() if ends else None))
        return listed

    async def deploy(self, placing: Placing) -> Placed:
        token = {"clientRequestToken": _token(placing.name)}
        way = _ON_DEMAND if await self._is_on_demand(placing) else _PROVISIONED
        body: dict[str, Any] = {way.name: placing.name, **token}
        if way is _ON_DEMAND:
            body["modelArn"] = placing.model
        else:
            body |= {"modelId": placing.model, "modelUnits": self._units() or 1}
        try:
            reference = (await self._control("POST", way.path, json=body))[way.arn]
        except ProviderExists:
            rows = await self._pages(
                way.list_path, way.rows, {"nameContains": placing.name}, _MOST_ROWS
            )
            named = [row[way.arn] for row in rows if row.get(way.row_name) == placing.name]
            if not named:
                raise
            reference = named[0]
        return Placed(str(reference), "starting", str(reference), "Creating")

    async def deployment(self, reference: str) -> Placed:
        found = await self._control("GET", self._deployed(reference))
        raw, told = str(found.get("status", "")), found.get("failureMessage")
        return Placed(
            reference,
            _PLACED.get(raw, "starting"),  # type: ignore[arg-type]
            reference,
            raw,
            self.http.clean(str(told)) if told else None,
        )

    async def undeploy(self, reference: str) -> None:
        try:
            await self._control("DELETE", self._deployed(reference))
        except ProviderMissing:
            pass
        except ProviderExists as conflict:  # it is being made, and cannot be deleted until it is
            raise ProviderBusy(str(conflict), 30) from conflict

    def _deployed(self, reference: str) -> str:
        way = _PROVISIONED if ":provisioned-model/" in reference else _ON_DEMAND
        return f"{way.path}/{quote(reference, safe='')}"

    def _units(self) -> int | None:
        """Reserved throughput, which is paid by the hour, if that is wanted."""
        given = self.account.settings.get("model_units") or ""
        if given and not (given.isdecimal() and int(given)):
            raise ProviderRefused("model_units must be a whole number.", param="model_units")
        return int(given) if given else None

    async def _is_on_demand(self, placing: Placing) -> bool:
        if self._units():
            return False
        base = placing.base_model
        if not base:
            found = await self._control("GET", f"/custom-models/{quote(placing.model, safe='')}")
            base = str(found.get("baseModelArn", ""))
        return any(family in base for family in _ON_DEMAND_FAMILIES)

    @asynccontextmanager
    async def chat(self, target: str, asked: dict[str, Any]) -> AsyncIterator[Reply]:
        url = f"{self.url('runtime_url')}/model/{quote(target, safe='')}/converse"
        async with self.http.stream(url, conversation(asked)) as reply:
            try:
                content = b"".join([chunk async for chunk in reply.chunks])
            except httpx.TransportError as trouble:
                raise ProviderUnreachable(f"{self.capabilities.name} broke off.") from trouble
            try:
                said = orjson.loads(content)
            except orjson.JSONDecodeError:
                said = {}
            if reply.status != 200:
                words = said.get("message") or said.get("Message") or "No reason was given."
                error = {"message": self.http.clean(str(words)), "type": "provider_error",
                         "param": None, "code": None}  # fmt: skip
                yield _whole(reply.status, {"error": error})
            elif not isinstance(said.get("output"), dict):
                raise ProviderUnreachable(f"{self.capabilities.name} answered with no message.")
            elif asked.get("stream"):
                usage = bool((asked.get("stream_options") or {}).get("include_usage"))
                chunks = _one_by_one(_streamed(said, target, usage))
                yield Reply(200, "text/event-stream", chunks)
            else:
                yield _whole(200, _completion(said, target))


# Names


def job_name(marker: str) -> str:
    """They allow '+', which markers never have, and not '_'."""
    return PREFIX + marker.replace("_", "+")


def marker_of(name: str) -> str | None:
    if not name.startswith(PREFIX):
        return None
    return name.removeprefix(PREFIX).replace("+", "_") or None


def model_name(marker: str, suffix: str | None) -> str:
    """Single '-' and '_' between letters and digits are all they allow, in 63."""
    ours = re.sub(r"[^0-9a-zA-Z_]+", "-", marker)
    wanted = re.sub(r"[^0-9a-zA-Z]+", "-", suffix or "").strip("-")[: 62 - len(ours)].strip("-")
    return f"{wanted}-{ours}" if wanted else ours


def _suffix_of(name: str, marker: str) -> str | None:
    ours = model_name(marker, None)
    return name.removesuffix(ours).strip("-") or None if name.endswith(ours) else None


def _token(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _query(asked: Mapping[str, str]) -> str:
    """Escaped as it is signed: httpx writes a space as '+'."""
    return "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in asked.items())


# What they say


_KEY = re.compile(r"<Key>([^<]*)</Key>")


def _between(words: str, tag: str) -> str | None:
    found = re.search(f"<{tag}>([^<]*)</{tag}>", words)
    return html.unescape(found[1]) if found else None


def moment(word: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(word) if isinstance(word, str) else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


def _in_progress(job: Mapping[str, Any]) -> Status:
    """The parts are promised for distillation only: without them it runs."""
    parts = job.get("statusDetails") or {}
    words = {
        name: (parts.get(f"{name}Details") or {}).get("status")
        for name in ("validation", "dataProcessing", "training")
    }
    if not any(words.values()) or words["training"] not in (None, "NotStarted"):
        return Status.RUNNING
    if words["validation"] in ("NotStarted", "InProgress"):
        return Status.VALIDATING
    return Status.QUEUED


def _told(hyperparameters: Mapping[str, Any]) -> dict[str, str]:
    stopping = hyperparameters.get("early_stopping") or {}
    told = {
        theirs: hyperparameters.get(ours) for ours, theirs in NUMBERS.items()
    } | {theirs: stopping.get(ours) for ours, theirs in STOPPING.items()}  # fmt: skip
    return {name: f"{value}" for name, value in told.items() if value is not None}


def _settled(theirs: Mapping[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] = {
        ours: number for ours, name in NUMBERS.items()
        if (number := _number(theirs.get(name))) is not None
    }  # fmt: skip
    stopping = {
        ours: number for ours, name in STOPPING.items()
        if (number := _number(theirs.get(name))) is not None
    }  # fmt: skip
    if stopping:
        found["early_stopping"] = stopping
    return found or None


def _number(word: Any) -> int | float | None:
    try:
        value = float(word)
    except (TypeError, ValueError):
        return None
    return int(value) if value.is_integer() and "." not in str(word) else value


def points_of(kind: str, content: bytes) -> list[Item]:
    """The steps of a metrics file, of the kind `training` or `validation`. Theirs begin with 0."""
    found = []
    for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig", "replace"))):
        step, loss = _number(row.get("step_number")), _number(row.get(f"{kind}_loss"))
        if step is None or loss is None:
            continue
        number, epoch = int(step) + 1, _number(row.get("epoch_number"))
        found.append(
            Item(
                "metrics",
                f"{kind}:{number}",
                step=number,
                epoch=None if epoch is None else float(epoch),
                values={f"{kind}_loss": float(loss)},
            )
        )
    return found


# Cases


class _Unfit(Exception):
    """Why a conversation cannot be put in their form."""


def converted(path: Path, base_model: str, param: str) -> bytes:
    """Our cases in the form of the model's family. Raises ProviderRefused."""
    claude = not base_model or "anthropic.claude" in base_model
    out = bytearray()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                out += orjson.dumps(_case(orjson.loads(line), claude)) + b"\n"
            except _Unfit as unfit:
                raise ProviderRefused(
                    f"Line {number}: {unfit}", reason="case_unfit", param=param
                ) from unfit
    return bytes(out)


def _case(case: dict[str, Any], claude: bool) -> dict[str, Any]:
    if case.get("tools") or case.get("functions"):
        raise _Unfit("tools cannot be trained there.")
    if any(message.get("weight") == 0 for message in case["messages"]):
        raise _Unfit("it learns from every answer, so that weight 0 cannot be kept.")
    system, turns = _turns(case["messages"])
    if turns[-1][0] != "assistant":
        raise _Unfit("the last turn must be the assistant's.")
    if claude:
        told: dict[str, Any] = {"system": system} if system else {}
        return {**told, "messages": [{"role": role, "content": text} for role, text in turns]}
    return {
        "schemaVersion": "bedrock-conversation-2024",
        **({"system": [{"text": system}]} if system else {}),
        "messages": [{"role": role, "content": [{"text": text}]} for role, text in turns],
    }


def _turns(messages: Iterable[Mapping[str, Any]]) -> tuple[str, list[tuple[str, str]]]:
    """What the system is told, and turns that alternate, the user's first: messages of one role in
    a row become one."""
    system: list[str] = []
    turns: list[tuple[str, str]] = []
    for message in messages:
        role = message.get("role")
        if message.get("tool_calls") or message.get("function_call"):
            raise _Unfit("calls of tools cannot be passed on.")
        text = _text(message.get("content"))
        if role in ("system", "developer"):
            if turns:
                raise _Unfit("a system message can only come first.")
            system.append(text)
        elif role not in ("user", "assistant"):
            raise _Unfit(f"messages of the role {role!r} cannot be passed on.")
        elif turns and turns[-1][0] == role:
            turns[-1] = role, f"{turns[-1][1]}\n\n{text}"
        else:
            turns.append((role, text))
    if not turns or turns[0][0] != "user":
        raise _Unfit("the first turn must be the user's.")
    return "\n\n".join(system), turns


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    if not parts or any(part.get("type") != "text" for part in parts):
        raise _Unfit("a message's content must be text.")
    return "".join(part["text"] for part in parts)


# Chat


def conversation(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A request of OpenAI's chat completions as one for Converse. Raises ProviderRefused."""
    if asked.get("tools") or asked.get("functions"):
        raise ProviderRefused("Tools cannot be passed on to Bedrock.", param="tools")
    try:
        system, turns = _turns(asked.get("messages") or [])
    except _Unfit as unfit:
        words = str(unfit)
        raise ProviderRefused(words[0].upper() + words[1:], param="messages") from unfit
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens")
    stop = asked.get("stop")
    wanted = {
        "maxTokens": limit,
        "temperature": asked.get("temperature"),
        "topP": asked.get("top_p"),
        "stopSequences": [stop] if isinstance(stop, str) else stop,
    }
    given = {name: value for name, value in wanted.items() if value not in (None, [])}
    return {
        "messages": [{"role": role, "content": [{"text": text}]} for role, text in turns],
        **({"system": [{"text": system}]} if system else {}),
        **({"inferenceConfig": given} if given else {}),
    }


def _answer(said: Mapping[str, Any]) -> tuple[str, str, dict[str, int]]:
    """The words, why they end, and the tokens."""
    content = (said["output"].get("message") or {}).get("content") or []
    words = "".join(part.get("text") or "" for part in content)
    counted = said.get("usage") or {}
    read, written = int(counted.get("inputTokens") or 0), int(counted.get("outputTokens") or 0)
    usage = {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": int(counted.get("totalTokens") or read + written),
    }
    return words, FINISHES.get(str(said.get("stopReason")), "stop"), usage


def _head(target: str, kind: str) -> dict[str, Any]:
    made = clock.now().timestamp()
    return {
        "id": f"chatcmpl-{hashlib.sha256(f'{target}{made}'.encode()).hexdigest()[:24]}",
        "object": kind,
        "created": int(made),
        "model": target,
    }


def _completion(said: Mapping[str, Any], target: str) -> dict[str, Any]:
    words, finish, usage = _answer(said)
    message = {"role": "assistant", "content": words, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    return {**_head(target, "chat.completion"), "choices": [choice], "usage": usage}


def _streamed(said: Mapping[str, Any], target: str, with_usage: bool) -> list[bytes]:
    """All of it at once, in the form of a stream: theirs is binary, and needs another route."""
    words, finish, usage = _answer(said)
    head = _head(target, "chat.completion.chunk")
    first = {"index": 0, "delta": {"role": "assistant", "content": words}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": finish}
    chunks: list[dict[str, Any]] = [{**head, "choices": [one]} for one in (first, last)]
    if with_usage:
        chunks.append({**head, "choices": [], "usage": usage})
    return [*(b"data: %b\n\n" % orjson.dumps(one) for one in chunks), b"data: [DONE]\n\n"]


def _whole(status: int, body: Mapping[str, Any]) -> Reply:
    return Reply(status, "application/json", _one_by_one([orjson.dumps(body)]))


async def _one_by_one(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
