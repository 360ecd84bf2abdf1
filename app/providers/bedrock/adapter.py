"""Amazon Bedrock: models of Anthropic, Amazon and Meta, tuned and called in an AWS account.

Written after the service's model in botocore 1.44.5 (`bedrock` 2023-04-20, `bedrock-runtime`
2023-09-30) and the user guide's pages on custom models. There is no route for data: it goes
through a bucket of the account's own, and so do the metrics.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import date
from typing import Any
from urllib.parse import quote

from app.providers.base import (
    OVER,
    Capabilities,
    Data,
    Item,
    Listed,
    Offer,
    Order,
    Result,
    Sighting,
    Status,
)
from app.providers.bedrock.cases import in_form
from app.providers.bedrock.jobs import NUMBERS, points_of, sighting, told
from app.providers.bedrock.names import job_name, model_name, token
from app.providers.bedrock.service import MOST_ROWS
from app.providers.bedrock.serving import Serving
from app.providers.bedrock.storage import Storage
from app.providers.errors import ProviderExists, ProviderMissing, ProviderRefused, ProviderTrouble
from app.providers.values import moment

CLAUDE_3_HAIKU = "anthropic.claude-3-haiku-20240307-v1:0:200k"
_JOBS = "/model-customization-jobs"

# The guide leaves out the folder before the second name, so files are known by how they end.
_FILES = {
    "training": "training_artifacts/step_wise_training_metrics.csv",
    "validation": "validation_metrics.csv",
}


class Bedrock(Storage, Serving):
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
    required = ("access_key_id", "secret_access_key", "region", "role_arn", "bucket")

    async def check(self) -> None:
        await self.listing(1)
        await self._keys(self._place("data/"), most=1)

    # Jobs

    async def upload(self, data: Data) -> str:
        if data.method != "supervised":
            raise self.unsupported(f"train on data of the method {data.method}")
        # Another name for each family's form of the same cases: what is sent is what is hashed.
        content = await asyncio.to_thread(in_form, data.path, data.base_model, f"{data.role}_file")
        key = self._place(f"data/{hashlib.sha256(content).hexdigest()}.jsonl")
        headers = {"content-type": "application/jsonl"}
        await self._stored("PUT", self._object(key), content=content, headers=headers)
        return self._uri(key)

    async def create(self, order: Order) -> Sighting:
        body: dict[str, Any] = {
            "jobName": job_name(order.marker),
            "customModelName": model_name(order.marker, order.suffix),
            "clientRequestToken": token(order.marker),
            "roleArn": self.account.settings["role_arn"],
            "baseModelIdentifier": order.base_model,
            "customizationType": "FINE_TUNING",
            "trainingDataConfig": {"s3Uri": order.training},
            "outputDataConfig": {"s3Uri": self._uri(self._place("output/"))},
            "hyperParameters": told(order.hyperparameters),
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
        for row in await self._rows({"nameContains": job_name(marker)}, MOST_ROWS):
            if row.get("jobName") == job_name(marker):
                return await self.get(str(row["jobArn"]))
        return None

    async def listing(self, most: int) -> list[Sighting]:
        return [self._seen(row) for row in await self._rows({}, most)]

    async def get(self, id: str) -> Sighting:
        return self._seen(await self._control("GET", f"{_JOBS}/{quote(id, safe='')}"))

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
            for kind, end in _FILES.items():
                key = next((key for key in keys if key.endswith(end)), None)
                if key is not None:
                    answer = await self._stored("GET", self._object(key))
                    found[kind] = key.rpartition("/")[2], answer.content
        except ProviderMissing:  # the bucket or a file is gone, which says nothing about the job
            pass
        return found

    def _seen(self, job: Mapping[str, Any]) -> Sighting:
        return sighting(job, self.http.clean)

    async def _rows(self, query: Mapping[str, str], most: int) -> list[Mapping[str, Any]]:
        """The newest first."""
        asked = {"sortBy": "CreationTime", "sortOrder": "Descending", **query}
        asked["maxResults"] = str(min(most, MOST_ROWS))
        return await self._pages(_JOBS, "modelCustomizationJobSummaries", asked, most)

    # Models

    async def models(self) -> list[Listed]:
        """Those that can be tuned. The list is one page."""
        found = await self._control("GET", "/foundation-models?byCustomizationType=FINE_TUNING")
        listed = []
        for row in found.get("modelSummaries") or []:
            ends = moment((row.get("modelLifecycle") or {}).get("endOfLifeTime"))
            listed.append(Listed(str(row["modelId"]), ends.date() if ends else None))
        return listed
