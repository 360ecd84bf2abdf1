"""Amazon's own SDK drives the simulator: what it can do there is done as it is at AWS."""

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from app.simulators.bedrock import (
    ACCESS_KEY_ID,
    ACCOUNT,
    BUCKET,
    REGION,
    SECRET_ACCESS_KEY,
    BedrockSimulator,
)
from app.simulators.runs import Plan

HAIKU = "anthropic.claude-3-haiku-20240307-v1:0:200k"
NOVA = "amazon.nova-micro-v1:0:128k"
QUICK = Plan(validating=0.05, queued=0.05, steps=8, step_seconds=0.02)


@dataclass
class Clients:
    control: Any
    runtime: Any
    s3: Any


def clients(url: str, secret: str = SECRET_ACCESS_KEY) -> Clients:
    made = [
        boto3.client(
            service,
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=secret,
            config=Config(retries={"max_attempts": 1}, proxies={}),
        )
        for service in ("bedrock", "bedrock-runtime", "s3")
    ]
    return Clients(*made)


@pytest.fixture
async def served() -> AsyncIterator[tuple[BedrockSimulator, str]]:
    simulator = BedrockSimulator(QUICK, seed=1)
    async with simulator.served() as url:
        yield simulator, url


async def driven(do: Callable[[Clients], Any], url: str, **more: str) -> Any:
    """The SDK waits where it is called, so it works in a thread beside the simulator."""
    return await asyncio.to_thread(lambda: do(clients(url, **more)))


def case(number: int, nova: bool) -> str:
    asked, said = f"Where does case {number} go?", f"To queue {number % 3}."
    if not nova:
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        return json.dumps({"system": "Sort.", "messages": turns})
    parts = [
        {"role": "user", "content": [{"text": asked}]},
        {"role": "assistant", "content": [{"text": said}]},
    ]
    version = "bedrock-conversation-2024"
    return json.dumps({"schemaVersion": version, "system": [{"text": "Sort."}], "messages": parts})


def upload(sdk: Clients, name: str, nova: bool) -> str:
    key = f"data/{name}.jsonl"
    lines = "\n".join(case(number, nova) for number in range(20))
    sdk.s3.put_object(Bucket=BUCKET, Key=key, Body=lines.encode())
    return f"s3://{BUCKET}/{key}"


def create(sdk: Clients, name: str, model: str = HAIKU, **more: Any) -> str:
    uri = upload(sdk, name, nova=model == NOVA)
    made = sdk.control.create_model_customization_job(
        **{
            "jobName": name,
            "customModelName": f"{name}-model",
            "roleArn": f"arn:aws:iam::{ACCOUNT}:role/tuning",
            "baseModelIdentifier": model,
            "trainingDataConfig": {"s3Uri": uri},
            "validationDataConfig": {"validators": [{"s3Uri": uri}]},
            "outputDataConfig": {"s3Uri": f"s3://{BUCKET}/output/"},
            "hyperParameters": {"epochCount": "3"},
            **more,
        }
    )
    return str(made["jobArn"])


def finished(sdk: Clients, arn: str) -> Any:
    for _ in range(200):
        job = sdk.control.get_model_customization_job(jobIdentifier=arn)
        if job["status"] not in ("InProgress", "Stopping"):
            return job
        time.sleep(0.05)
    raise TimeoutError(arn)


def active(look: Callable[[], Any]) -> Any:
    for _ in range(100):
        if (found := look())["status"] in ("Active", "InService"):
            return found
        time.sleep(0.05)
    raise TimeoutError


async def test_a_job_and_its_metrics(served: tuple[BedrockSimulator, str]) -> None:
    simulator, url = served

    def drive(sdk: Clients) -> None:
        arn = create(sdk, "first", clientRequestToken="token-1")
        assert create(sdk, "first", clientRequestToken="token-1") == arn
        with pytest.raises(sdk.control.exceptions.ConflictException):
            create(sdk, "first", clientRequestToken="token-2")
        with pytest.raises(sdk.control.exceptions.ConflictException):
            create(sdk, "second", clientRequestToken="token-1")
        early = sdk.control.get_model_customization_job(jobIdentifier="first")
        assert early["statusDetails"]["trainingDetails"]["status"] in ("NotStarted", "InProgress")
        job = finished(sdk, arn)
        assert job["status"] == "Completed"
        assert job["hyperParameters"]["epochCount"] == "3"
        assert job["creationTime"] <= job["endTime"]
        assert job["trainingMetrics"]["trainingLoss"] > 0
        rows = sdk.control.list_model_customization_jobs(
            nameContains="first", statusEquals="Completed", maxResults=5, sortBy="CreationTime"
        )["modelCustomizationJobSummaries"]
        assert [row["jobArn"] for row in rows] == [arn]
        assert rows[0]["customModelArn"] == job["outputModelArn"]
        model = sdk.control.get_custom_model(modelIdentifier=job["outputModelArn"])
        assert model["jobArn"] == arn
        keys = [
            row["Key"]
            for page in sdk.s3.get_paginator("list_objects_v2").paginate(
                Bucket=BUCKET,
                Prefix=f"output/model-customization-job-{arn.rpartition('/')[2]}/",
                PaginationConfig={"PageSize": 1},
            )
            for row in page["Contents"]
        ]
        assert len(keys) == 2
        ended = "step_wise_training_metrics.csv"
        key = next(key for key in keys if key.endswith(ended))
        content = sdk.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
        steps = list(csv.DictReader(io.StringIO(content)))
        assert [row["step_number"] for row in steps] == [str(n) for n in range(8)]
        assert float(steps[-1]["training_loss"]) < float(steps[0]["training_loss"])

    await driven(drive, url)
    assert len(simulator.runs) == 1


async def test_stopping_and_what_is_refused(served: tuple[BedrockSimulator, str]) -> None:
    simulator, url = served
    simulator.plan = Plan(queued=600)

    def drive(sdk: Clients) -> None:
        arn = create(sdk, "stopped")
        sdk.control.stop_model_customization_job(jobIdentifier=arn)
        assert finished(sdk, arn)["status"] == "Stopped"
        with pytest.raises(sdk.control.exceptions.ConflictException):
            sdk.control.stop_model_customization_job(jobIdentifier=arn)
        with pytest.raises(sdk.control.exceptions.ResourceNotFoundException):
            sdk.control.get_model_customization_job(jobIdentifier="nobody")
        for wrong in (
            {"hyperParameters": {"epochCount": "11"}},
            {"hyperParameters": {"beta": "1"}},
            {"jobName": "under_score"},
            {"baseModelIdentifier": "anthropic.claude-9-v1:0"},
            {"trainingDataConfig": {"s3Uri": f"s3://{BUCKET}/nothing.jsonl"}},
        ):
            with pytest.raises(sdk.control.exceptions.ValidationException):
                create(sdk, "wrong", **wrong)
        odd = "a folder/what's (this) + that ~ é.txt"
        sdk.s3.put_object(Bucket=BUCKET, Key=odd, Body=b"odd")
        assert sdk.s3.get_object(Bucket=BUCKET, Key=odd)["Body"].read() == b"odd"
        rows = sdk.s3.list_objects_v2(Bucket=BUCKET, Prefix="a folder/")["Contents"]
        assert [row["Key"] for row in rows] == [odd]
        with pytest.raises(sdk.s3.exceptions.NoSuchKey):
            sdk.s3.get_object(Bucket=BUCKET, Key="nothing")
        with pytest.raises(sdk.s3.exceptions.NoSuchBucket):
            sdk.s3.put_object(Bucket="another", Key="a", Body=b"")

    await driven(drive, url)


async def test_lines_of_another_family_fail_the_job(served: tuple[BedrockSimulator, str]) -> None:
    _, url = served

    def drive(sdk: Clients) -> Any:
        where = {"s3Uri": upload(sdk, "claude", nova=False)}
        arn = create(sdk, "mixed", NOVA, trainingDataConfig=where)
        return finished(sdk, arn)

    job = await driven(drive, url)
    assert job["status"] == "Failed"
    assert "Line 1" in job["failureMessage"]
    assert job["statusDetails"]["validationDetails"]["status"] == "Failed"


async def test_a_nova_model_is_called_on_demand(served: tuple[BedrockSimulator, str]) -> None:
    _, url = served

    def drive(sdk: Clients) -> None:
        model = finished(sdk, create(sdk, "nova", NOVA))["outputModelArn"]
        asked = {"modelDeploymentName": "nova-1", "modelArn": model, "clientRequestToken": "t1"}
        arn = sdk.control.create_custom_model_deployment(**asked)["customModelDeploymentArn"]
        again = sdk.control.create_custom_model_deployment(**asked)
        assert again["customModelDeploymentArn"] == arn
        rows = sdk.control.list_custom_model_deployments(nameContains="nova")
        assert [row["customModelDeploymentName"] for row in rows["modelDeploymentSummaries"]] == [
            "nova-1"
        ]
        active(lambda: sdk.control.get_custom_model_deployment(customModelDeploymentIdentifier=arn))
        said = sdk.runtime.converse(
            modelId=arn,
            system=[{"text": "Be short."}],
            messages=[{"role": "user", "content": [{"text": "Good day"}]}],
            inferenceConfig={"maxTokens": 20, "stopSequences": ["."]},
        )
        assert said["output"]["message"]["content"][0]["text"].endswith("Good day")
        assert said["stopReason"] == "end_turn"
        sdk.control.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
        with pytest.raises(sdk.control.exceptions.ResourceNotFoundException):
            sdk.control.get_custom_model_deployment(customModelDeploymentIdentifier=arn)

    await driven(drive, url)


async def test_claude_needs_provisioned_throughput(served: tuple[BedrockSimulator, str]) -> None:
    _, url = served

    def drive(sdk: Clients) -> None:
        model = finished(sdk, create(sdk, "claude"))["outputModelArn"]
        with pytest.raises(sdk.control.exceptions.ValidationException):
            sdk.control.create_custom_model_deployment(modelDeploymentName="c", modelArn=model)
        arn = sdk.control.create_provisioned_model_throughput(
            modelUnits=1, provisionedModelName="claude-1", modelId=model
        )["provisionedModelArn"]
        with pytest.raises(sdk.control.exceptions.ConflictException):
            sdk.control.delete_provisioned_model_throughput(provisionedModelId=arn)
        with pytest.raises(sdk.runtime.exceptions.ModelNotReadyException):
            sdk.runtime.converse(
                modelId=arn, messages=[{"role": "user", "content": [{"text": "Good day"}]}]
            )
        found = active(lambda: sdk.control.get_provisioned_model_throughput(provisionedModelId=arn))
        assert found["foundationModelArn"].endswith(HAIKU)
        rows = sdk.control.list_provisioned_model_throughputs()["provisionedModelSummaries"]
        assert [row["provisionedModelArn"] for row in rows] == [arn]
        sdk.control.delete_provisioned_model_throughput(provisionedModelId=arn)

    await driven(drive, url)


async def test_the_models_that_can_be_tuned(served: tuple[BedrockSimulator, str]) -> None:
    _, url = served
    found = await driven(
        lambda sdk: sdk.control.list_foundation_models(byCustomizationType="FINE_TUNING"), url
    )
    lives = {row["modelId"]: row["modelLifecycle"] for row in found["modelSummaries"]}
    assert lives[NOVA]["status"] == "ACTIVE"
    assert lives[HAIKU]["status"] == "LEGACY"
    assert f"{lives[HAIKU]['endOfLifeTime']:%Y-%m-%d}" == "2026-09-10"


async def test_a_wrong_secret_is_refused(served: tuple[BedrockSimulator, str]) -> None:
    _, url = served

    def drive(sdk: Clients) -> None:
        for code, ask in (
            ("InvalidSignatureException", sdk.control.list_model_customization_jobs),
            ("SignatureDoesNotMatch", lambda: sdk.s3.list_objects_v2(Bucket=BUCKET)),
        ):
            with pytest.raises(ClientError) as refused:
                ask()
            assert refused.value.response["Error"]["Code"] == code
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403

    await driven(drive, url, secret="another")


async def test_a_session_token_must_come_with_its_key(
    served: tuple[BedrockSimulator, str],
) -> None:
    simulator, url = served
    simulator.keys[ACCESS_KEY_ID] = (SECRET_ACCESS_KEY, "a-session")

    def drive(sdk: Clients) -> None:
        with pytest.raises(ClientError) as refused:
            sdk.control.list_model_customization_jobs()
        assert refused.value.response["Error"]["Code"] == "UnrecognizedClientException"

    await driven(drive, url)


async def test_events_are_told_to_targets(served: tuple[BedrockSimulator, str]) -> None:
    simulator, url = served
    heard: list[tuple[str | None, dict[str, Any]]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(lines["content-length"]))
        heard.append((lines.get("x-api-key"), json.loads(body)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    simulator.cheats.forge_webhooks = 1.0
    async with httpx.AsyncClient(trust_env=False) as client:
        target = {"url": f"http://127.0.0.1:{port}/", "secret": "ours"}
        assert (await client.put(f"{url}/_targets", json=[target])).status_code == 200
    await driven(lambda sdk: finished(sdk, create(sdk, "told")), url)
    for _ in range(100):
        words = [event["detail"]["jobStatus"] for key, event in heard if key == "ours"]
        if words == ["InProgress", "Completed"] and len(heard) == 4:
            break
        await asyncio.sleep(0.02)
    server.close()
    assert words == ["InProgress", "Completed"]
    assert sum(key == "forged" for key, _ in heard) == 2
    last = heard[-1][1]
    assert (last["source"], last["detail-type"]) == (
        "aws.bedrock",
        "Model Customization Job State Change",
    )
    assert last["detail"]["jobName"] == "told"
