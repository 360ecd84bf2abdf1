"""Webhooks in: refused, stored, taken once; and a ledger that does not depend on them."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core import signatures
from app.core.database import Database
from app.core.settings import Settings
from app.simulators.runs import Plan
from tests.providers.conftest import Stage, staged

SECRET = "whsec_" + "c2VjcmV0IG9mIGEgd2ViaG9vayBlbmRwb2ludA=="
KINDS = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]


def signed(body: bytes, id: str = "wh_1", at: int | None = None, secret: str = SECRET) -> Any:
    at = int(time.time()) if at is None else at
    return {
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": signatures.sign(secret, id, at, body),
    }


def event(job: str, kind: str = KINDS[0]) -> bytes:
    return orjson.dumps({"id": "evt_1", "object": "event", "type": kind, "data": {"id": job}})


async def inbox(owner: "asyncpg.Connection[Any]", stage: Stage) -> list[tuple[str, str]]:
    rows = await owner.fetch(
        "SELECT webhook_id, outcome FROM webhook_inbox WHERE org_id = $1 ORDER BY webhook_id",
        stage.tenant.actor.org_id,
    )
    return [(row[0], row[1]) for row in rows]


async def test_what_is_not_signed_is_refused_counted_and_not_stored(
    stage: Stage, owner: "asyncpg.Connection[Any]"
) -> None:
    path = (await stage.connect(webhookSecret=SECRET))["webhookPath"]
    body = event("ftjob-x")
    now = int(time.time())
    hostile: list[dict[str, str]] = [
        {},
        signed(body, secret="whsec_" + "AAAA" * 8),
        signed(body, at=now - 301),
        signed(body, at=now + 301),
        signed(b"another body"),
        signed(body) | {"webhook-id": "wh_2"},
        signed(body) | {"webhook-timestamp": "soon"},
        signed(body) | {"webhook-signature": "v1,ü"},
        signed(body) | {"webhook-signature": ","},
        signed(body) | {"webhook-signature": signed(body)["webhook-signature"].replace("v1", "v2")},
        signed(b"no json"),
    ]
    for headers in hostile:
        content = b"no json" if headers is hostile[-1] else body
        raw = {name.encode(): value.encode() for name, value in headers.items()}
        answer = await stage.api.http.post(path, content=content, headers=raw)
        assert answer.status_code == 401, headers
        assert answer.json() == {"status": "refused"}
    assert await inbox(owner, stage) == []
    for _ in range(60):
        found = await stage.api.execute("{ providerCredentials { refusedWebhooks } }")
        if found["providerCredentials"][0]["refusedWebhooks"] == str(len(hostile)):
            break
        await asyncio.sleep(0.05)
    assert found["providerCredentials"][0]["refusedWebhooks"] == str(len(hostile))


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks/openai/cred_nobody",
        "/webhooks/nobody/cred_nobody",
        "/webhooks/openai/" + "cred_" + "x" * 500,
    ],
)
async def test_an_unknown_endpoint_says_nothing(stage: Stage, path: str) -> None:
    answer = await stage.api.http.post(path, content=b"{}", headers=signed(b"{}"))
    assert answer.status_code == 404


async def test_another_providers_path_is_none(stage: Stage) -> None:
    path = (await stage.connect(webhookSecret=SECRET))["webhookPath"]
    body = event("ftjob-x")
    wrong = path.replace("/openai/", "/azure/")
    assert (await stage.api.http.post(wrong, content=body, headers=signed(body))).status_code == 404


async def test_too_much_is_refused_before_it_is_read(stage: Stage) -> None:
    path = (await stage.connect(webhookSecret=SECRET))["webhookPath"]
    body = b"x" * 70_000
    assert (await stage.api.http.post(path, content=body, headers=signed(body))).status_code == 413


async def test_redelivery_is_harmless_and_ids_belong_to_an_endpoint(
    stage: Stage, owner: "asyncpg.Connection[Any]"
) -> None:
    path = (await stage.connect(webhookSecret=SECRET))["webhookPath"]
    body = event("ftjob-x")
    answers = await asyncio.gather(
        *(stage.api.http.post(path, content=body, headers=signed(body)) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert await inbox(owner, stage) == [("wh_1", "unknown_job")]


async def test_a_secret_can_be_changed_without_a_gap(stage: Stage) -> None:
    path = (await stage.connect(webhookSecret=SECRET))["webhookPath"]
    newer = "whsec_" + "bmV3ZXIgc2VjcmV0IG9mIHRoYXQgZW5kcG9pbnQ="
    await stage.connect(webhookSecret=newer)
    for number, secret in enumerate((SECRET, newer)):
        body = event("ftjob-x")
        headers = signed(body, f"wh_{number}", secret=secret)
        assert (await stage.api.http.post(path, content=body, headers=headers)).status_code == 202


async def test_a_webhook_makes_the_driver_look_at_once(
    settings: Settings, database: Database, database_url: str, owner: "asyncpg.Connection[Any]"
) -> None:
    plan = Plan(validating=0.05, queued=0.05, steps=12, step_seconds=0.1)
    async with staged("openai", settings, database, database_url, plan) as stage:
        patient = stage.settings.model_copy(update={"provider_poll_seconds": 30})
        stage.settings = patient
        await register(stage)
        job = await stage.submit()
        async with stage.driver():
            began = time.monotonic()
            found = await stage.until(job, "SUCCEEDED", 25)
        assert time.monotonic() - began < 12
        assert found["lastEvidence"]["source"] == "webhook"
        assert [outcome for _, outcome in await inbox(owner, stage)] == ["looked_at"]
        body = event(found["providerJobId"])
        path = (await stage.connect())["webhookPath"]
        headers = signed(body, "wh_late", secret=stage.simulator.secret)  # type: ignore[attr-defined]
        assert (await stage.api.http.post(path, content=body, headers=headers)).status_code == 202
        assert ("wh_late", "over") in await inbox(owner, stage)


async def test_a_clock_that_is_off_costs_only_the_webhooks(
    settings: Settings, database: Database, database_url: str
) -> None:
    plan = Plan(validating=0.05, queued=0.05, steps=12, step_seconds=0.03)
    async with staged("openai", settings, database, database_url, plan) as stage:
        await register(stage)
        stage.simulator.cheats.skew = 400.0
        job = await stage.submit()
        async with stage.driver():
            found = await stage.until(job, "SUCCEEDED")
            for _ in range(100):
                told = await stage.api.execute("{ providerCredentials { refusedWebhooks } }")
                if told["providerCredentials"][0]["refusedWebhooks"] != "0":
                    break
                await asyncio.sleep(0.05)
    assert found["lastEvidence"]["source"] == "poll"
    assert told["providerCredentials"][0]["refusedWebhooks"] != "0"


async def test_event_bridge_brings_news_of_bedrock(
    settings: Settings,
    database: Database,
    database_url: str,
    owner: "asyncpg.Connection[Any]",
) -> None:
    key = "what the API destination sends"
    async with staged("bedrock", settings, database, database_url) as stage:
        path = (await stage.connect(webhookSecret=key))["webhookPath"]
        stage.simulator.targets.append((stage.api.url + path, key))  # type: ignore[attr-defined]
        job = await stage.submit()
        async with stage.driver():
            await stage.until(job, "SUCCEEDED")
            for _ in range(100):
                if "looked_at" in {outcome for _, outcome in await inbox(owner, stage)}:
                    break
                await asyncio.sleep(0.05)
        assert {outcome for _, outcome in await inbox(owner, stage)} <= {"looked_at", "over"}
        assert await inbox(owner, stage)
        for headers in ({}, {"x-api-key": "another"}):
            refused = await stage.api.http.post(path, content=b'{"id": "1"}', headers=headers)
            assert refused.status_code == 401


async def register(stage: Stage) -> None:
    """Have the simulator send its webhooks to the project's endpoint."""
    path = (await stage.connect())["webhookPath"]
    async with httpx.AsyncClient(trust_env=False) as client:
        made = await client.post(
            f"{stage.url}/v1/webhook_endpoints",
            headers={"authorization": "Bearer sk-simulated-key-1234567890"},
            json={"name": "ours", "url": stage.api.url + path, "event_types": KINDS},
        )
    secret = made.json()["signing_secret"]
    stage.simulator.secret = secret  # type: ignore[attr-defined]
    await stage.connect(webhookSecret=secret)


async def ledger(stage: Stage, job: str) -> dict[str, Any]:
    """What the ledger holds of a job in the end, less ids and moments."""
    found = await stage.job(job)
    told = [e for e in await stage.events(job) if e["data"].get("source") == "provider"]
    return {
        "status": found["status"],
        "error": found["error"] and found["error"]["code"],
        "tokens": found["trainedTokens"],
        "cost": found["cost"],
        "metrics": found["metrics"],
        "checkpoints": [row["step"] for row in found["checkpoints"]["nodes"]],
        "results": [row["filename"] for row in found["resultFiles"]],
        "model": found["model"] is not None,
        "told": [(e["level"], e["message"].split(":")[0]) for e in told],
    }


async def some_jobs(stage: Stage) -> list[dict[str, Any]]:
    """One that succeeds, one with bad data, one that is cancelled; in the end."""
    bad = await stage.api.dataset_version(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    good = await stage.submit(seed=3)
    failing = await stage.submit(seed=3, trainingData=bad)
    for job in (good, failing):
        await stage.until(job, lambda now: now["providerJobId"] is not None)
    usual, stage.simulator.plan = stage.simulator.plan, Plan(steps=12, step_seconds=60)
    leaving = await stage.submit(seed=3)
    await stage.until(leaving, lambda now: now["providerJobId"] is not None)
    stage.simulator.plan = usual
    run = (await stage.job(leaving))["providerJobId"]
    stage.simulator.runs[run].cancel(stage.simulator.now())  # by somebody at the provider
    for job in (good, failing, leaving):
        await stage.until(job, lambda now: now["status"] in ("SUCCEEDED", "FAILED", "CANCELLED"))
    found = [await ledger(stage, job) for job in (good, failing, leaving)]
    assert [one["status"] for one in found] == ["SUCCEEDED", "FAILED", "CANCELLED"]
    found[2] = {"status": found[2]["status"]}  # how far it came is chance
    return found


@pytest.fixture(scope="module")
async def hooked(
    settings: Settings, database: Database, database_url: str
) -> AsyncIterator[tuple[Stage, list[dict[str, Any]]]]:
    """A stage with webhooks and a driver, and the ledger of some jobs when all goes well. The
    driver lives to the end, and knows no other stage's simulator: tests of others come before."""
    plan = Plan(validating=0.05, queued=0.05, steps=12, step_seconds=0.03)
    async with staged("openai", settings, database, database_url, plan) as stage:
        await register(stage)
        async with stage.driver():
            yield stage, await some_jobs(stage)


async def test_without_any_webhook_the_ledger_is_the_same(
    hooked: tuple[Stage, list[dict[str, Any]]],
) -> None:
    stage, right = hooked
    stage.simulator.cheats.drop_webhooks = 1.0
    sent = len(stage.simulator.sent)  # type: ignore[attr-defined]
    assert await some_jobs(stage) == right
    assert len(stage.simulator.sent) == sent  # type: ignore[attr-defined]


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    drop=st.sampled_from([0.0, 0.3]),
    repeat=st.sampled_from([0.0, 0.5, 1.0]),
    forge=st.sampled_from([0.0, 0.5, 1.0]),
    late=st.sampled_from([0.0, 0.3, 1.0]),
)
async def test_whatever_happens_to_webhooks_the_ledger_is_the_same(
    hooked: tuple[Stage, list[dict[str, Any]]],
    drop: float,
    repeat: float,
    forge: float,
    late: float,
) -> None:
    stage, right = hooked
    cheats = stage.simulator.cheats
    cheats.drop_webhooks, cheats.repeat_webhooks = drop, repeat
    cheats.forge_webhooks, cheats.late_webhooks = forge, late
    assert await some_jobs(stage) == right
