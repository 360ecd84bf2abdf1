"""What is Azure's own: markers in suffixes, slow files, its older surface, deployments."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import ids
from app.providers.azure import Azure
from app.providers.azure import adapter as module
from app.providers.base import OVER, Account, Order, Placing, Status
from app.providers.errors import (
    ProviderBusy,
    ProviderDenied,
    ProviderExists,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
    Unsupported,
    UrlNotAllowed,
)
from app.providers.urls import Allowed
from app.simulators.azure import AzureSimulator
from app.simulators.runs import Plan
from tests.providers.places import PLACES, QUICK
from tests.providers.test_adapters import data, until
from tests.support import chat_lines

PLACE = PLACES["azure"]
MODEL = PLACE.base_model
ENTRA = "POST /00000000-0000-0000-0000-000000000002/oauth2/v2.0/token"


@asynccontextmanager
async def served(
    plan: Plan = QUICK, **settings: str
) -> AsyncIterator[tuple[AzureSimulator, Azure]]:
    simulator = AzureSimulator(plan, seed=1)
    async with simulator.served() as url, httpx.AsyncClient(trust_env=False, timeout=5) as client:
        account = PLACE.account(url)
        account = replace(account, settings={**account.settings, **settings})
        yield simulator, Azure(account, client, Allowed([url]))


@asynccontextmanager
async def unserved(secrets: dict[str, str], **settings: str) -> AsyncIterator[Azure]:
    async with httpx.AsyncClient() as client:
        yield Azure(Account(secrets, {"resource": "mine", **settings}), client, Allowed())


async def order(adapter: Azure, folder: Path, **more: Any) -> Order:
    training = await adapter.upload(data(folder, chat_lines(20)))
    asked = Order("ftjob-AAAA1111", MODEL, "supervised", training)
    return replace(asked, **more)


# Markers


async def test_a_marker_survives_in_the_suffix() -> None:
    async with unserved({"api_key": "key"}) as adapter:

        @settings(deadline=None)
        @given(
            st.from_regex(r"ftjob[_-][0-9A-Za-z]{1,21}(\.[1-9][0-9]?)?", fullmatch=True),
            st.none() | st.text("abXY09-_. é", max_size=60),
        )
        def survives(marker: str, suffix: str | None) -> None:
            asked = Order(marker, MODEL, "supervised", "file-1", suffix=suffix)
            told = adapter.marked(asked)["suffix"]
            assert len(told) <= 40
            assert told.isascii()
            assert not set(told) - set("-_") - set(ids.ALPHABET)
            for job in ({"suffix": told}, {"user_provided_suffix": told}):
                assert adapter.marker_of(job) == marker
            assert adapter.marker_of({"fine_tuned_model": f"gpt-4o.ft-0123-{told}"}) == marker

        survives()


async def test_a_suffix_within_the_limit_is_not_cut() -> None:
    async with unserved({"api_key": "key"}) as adapter:
        suffix = "s" * adapter.capabilities.longest_suffix
        asked = Order(f"{ids.new('ftjob')}.99", MODEL, "supervised", "file-1", suffix=suffix)
        told = adapter.marked(asked)["suffix"]
        assert told.startswith(f"{suffix}-")
        seen = adapter.sighting({"id": "ftjob-1", "status": "running", "suffix": told})
        assert (seen.suffix, seen.marker) == (suffix, asked.marker)


@pytest.mark.parametrize("suffix", [None, "", "trial", "my-lt", "lt-trial", "lt_", "lt_u", "lt_xA"])
async def test_other_suffixes_carry_no_marker(suffix: str | None) -> None:
    async with unserved({"api_key": "key"}) as adapter:
        seen = adapter.sighting({"id": "ftjob-1", "status": "pending", "suffix": suffix})
        assert seen.marker is None
        assert seen.suffix == suffix


async def test_one_of_two_starts_of_a_job_is_found(tmp_path: Path) -> None:
    async with served() as (_, adapter):
        asked = await order(
            adapter, tmp_path, suffix="a trial of many words", marker=ids.new("ftjob")
        )
        again = replace(asked, marker=f"{asked.marker}.2")
        made = [await adapter.create(one) for one in (asked, again)]
        assert [one.marker for one in made] == [asked.marker, again.marker]
        for one, sighting in zip((asked, again), made, strict=True):
            found = await adapter.find(one.marker)
            assert found
            assert found.id == sighting.id


# Files


async def test_a_file_is_waited_for_and_has_its_mark(tmp_path: Path) -> None:
    async with served() as (simulator, adapter):
        id = await adapter.upload(data(tmp_path, chat_lines(20)))
        assert simulator.files[id].content.startswith(b'\xef\xbb\xbf{"messages"')
        assert len([one for one in simulator.requests if one.endswith(id)]) > 1


async def test_a_file_that_is_refused(tmp_path: Path) -> None:
    async with served() as (simulator, adapter):
        simulator.bad_files = True
        with pytest.raises(ProviderRefused, match="Line 1"):
            await adapter.upload(data(tmp_path, chat_lines(20)))


async def test_a_file_that_takes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FILE_WAIT", 0.0)
    async with served() as (simulator, adapter):
        simulator.processing = 600
        with pytest.raises(ProviderUnreachable, match="processed"):
            await adapter.upload(data(tmp_path, chat_lines(20)))


# The older surface


async def test_a_life_on_the_classic_surface(tmp_path: Path) -> None:
    slow = Plan(validating=60, queued=60, steps=12, step_seconds=10)
    settings = {"api_version": "2025-04-01-preview", "training_type": "developerTier"}
    async with served(slow, **settings) as (simulator, adapter):
        simulator.moving = simulator.provisioning = 60
        await adapter.check()
        made = await adapter.create(await order(adapter, tmp_path, suffix="trial", seed=3))
        assert (made.raw, made.status) == ("created", Status.PENDING)
        assert made.error is None
        assert "n_epochs" not in (made.resolved or {})  # -1: it decides
        assert simulator.jobs[made.id].asked["trainingType"] == "developerTier"
        simulator.move(61)
        assert (await adapter.get(made.id)).raw == "pending"
        simulator.move(75)
        assert (await adapter.get(made.id)).status is Status.RUNNING
        await adapter.pause(made.id)
        seen = await adapter.get(made.id)
        assert (seen.raw, seen.status) == ("pausing", Status.RUNNING)
        await adapter.pause(made.id)  # it is on its way
        simulator.move(61)
        assert (await adapter.get(made.id)).status is Status.PAUSED
        await adapter.resume(made.id)
        seen = await adapter.get(made.id)
        assert (seen.raw, seen.status) == ("resuming", Status.QUEUED)
        await adapter.resume(made.id)
        simulator.move(200)
        done = await adapter.get(made.id)
        assert done.status is Status.SUCCEEDED
        assert done.model
        news = await adapter.news(done, None)
        assert {item.kind for item in news} == {"message", "metrics", "checkpoint"}
        found = await adapter.find(made.marker or "")
        assert found
        assert found.id == made.id
        results = await adapter.results(done)
        assert results[0].content.startswith(b"step,train_loss,train_mean_token_accuracy")
        placed = await adapter.deploy(Placing("luthier-dep-1", done.model))
        question = {"model": "ours", "messages": [{"role": "user", "content": "Good day"}]}
        async with adapter.chat(placed.target, question) as reply:
            early = b"".join([chunk async for chunk in reply.chunks])
        assert reply.status == 404, early
        simulator.move(61)
        async with adapter.chat(placed.target, question) as reply:
            whole = b"".join([chunk async for chunk in reply.chunks])
        assert reply.status == 200, whole
        assert "Good day" in orjson.loads(whole)["choices"][0]["message"]["content"]
        assert MODEL in {one.name for one in await adapter.models()}
        assert any(one.ends for one in await adapter.models())
    ours = [one.split()[1] for one in simulator.requests if "/openai" in one]
    assert not [one for one in ours if one.startswith("/openai/v1")]


async def test_classic_takes_no_graders() -> None:
    async with unserved({"api_key": "key"}, api_version="2024-10-21") as adapter:
        with pytest.raises(Unsupported):
            await adapter.create(Order("ftjob-A", "o4-mini", "reinforcement", "file-1"))


async def test_trouble_of_the_classic_surface_is_typed() -> None:
    async with served(api_version="2024-10-21") as (_, adapter):
        with pytest.raises(ProviderMissing):
            await adapter.get("ftjob-none")
        with pytest.raises(ProviderRefused) as refused:
            await adapter.create(Order("ftjob-A", MODEL, "supervised", "file-none"))
        assert (refused.value.reason, refused.value.param) == ("invalidPayload", "training_file")


# Deployments


async def deployable(adapter: Azure, folder: Path) -> str:
    made = await adapter.create(await order(adapter, folder))
    return (await until(adapter, made.id, *OVER)).model or ""


async def test_a_deployment_has_its_size_and_its_end(tmp_path: Path) -> None:
    async with served() as (simulator, adapter):
        model = await deployable(adapter, tmp_path)
        simulator.provisioning = 60
        placed = await adapter.deploy(Placing("luthier-dep-1", model, hardware="DeveloperTier"))
        assert (placed.status, placed.target) == ("starting", "luthier-dep-1")
        made = simulator.deployments["luthier-dep-1"]
        assert made.sku == {"name": "DeveloperTier", "capacity": 2}
        with pytest.raises(ProviderBusy) as busy:  # one at a time
            await adapter.deploy(Placing("luthier-dep-2", model))
        assert busy.value.seconds
        made.failure = "Canceled"
        simulator.move(61)
        assert (await adapter.deployment("luthier-dep-1")).status == "failed"
        with pytest.raises(ProviderRefused, match="cannot be deployed"):
            await adapter.deploy(Placing("luthier-dep-3", "nothing"))
        await adapter.undeploy("luthier-dep-1")
        with pytest.raises(ProviderMissing):
            await adapter.deployment("luthier-dep-1")


async def test_a_token_is_kept_until_shortly_before_its_end() -> None:
    async with served() as (simulator, adapter):
        await asyncio.gather(*(adapter.check() for _ in range(5)))
        await adapter.check()
        assert simulator.requests.count(ENTRA) == 1
        simulator.tokens.clear()  # revoked
        await adapter.check()
        assert simulator.requests.count(ENTRA) == 2
        simulator.token_seconds = 0
        simulator.tokens.clear()
        with pytest.raises(ProviderDenied):
            await adapter.check()
        assert simulator.requests.count(ENTRA) == 3


async def test_a_wrong_client_secret_is_denied_and_not_quoted() -> None:
    async with served() as (_, adapter):
        secret = "wrong-secret-0000"
        account = replace(
            adapter.account, secrets={**adapter.account.secrets, "client_secret": secret}
        )
        other = Azure(account, adapter.http._client, adapter.allowed)
        with pytest.raises(ProviderDenied, match="AADSTS7000215") as denied:
            await other.check()
        assert secret not in str(denied.value)


async def test_what_deploying_lacks_is_named() -> None:
    async with unserved({"api_key": "key"}, subscription="s", tenant_id="t") as adapter:
        with pytest.raises(ProviderDenied) as denied:
            await adapter.deploy(Placing("luthier-dep-1", "gpt-4.1.ft-1"))
        for name in ("resource_group", "account", "client_id", "client_secret"):
            assert name in str(denied.value)
        assert "tenant_id" not in str(denied.value)


async def test_without_a_client_secret_only_the_data_plane_is_checked() -> None:
    async with served() as (simulator, adapter):
        account = replace(adapter.account, secrets={"api_key": adapter.account.secrets["api_key"]})
        await Azure(account, adapter.http._client, adapter.allowed).check()
        assert ENTRA not in simulator.requests


# Where requests go


@pytest.mark.parametrize("version", ["", "2024-10-21"])
@pytest.mark.parametrize("end", ["", "/", "/openai", "/openai/v1", "/openai/v1/"])
async def test_an_endpoint_may_be_written_with_its_path(version: str, end: str) -> None:
    url = f"https://mine.openai.azure.com{end}"
    async with unserved({"api_key": "key"}, base_url=url, api_version=version) as adapter:
        path = "/openai/files" if version else "/openai/v1/files"
        assert adapter.route("/files") == f"https://mine.openai.azure.com{path}"


@pytest.mark.parametrize(
    "resource", ["", "evil.example/", "evil.example#", "evil.example?", "a@b/"]
)
async def test_a_resource_is_a_name(resource: str) -> None:
    with pytest.raises(UrlNotAllowed):
        async with unserved({"api_key": "key"}, resource=resource):
            pass


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (
            {"error": {"code": "quotaExceeded", "message": "Too many.", "target": "jobs"}},
            ("quotaExceeded", "Too many.", "jobs"),
        ),
        (
            {"error": {"code": "X", "message": "No.", "details": [{"message": "Why."}, {}, 1]}},
            ("X", "No. Why.", None),
        ),
        (
            {
                "error": {
                    "message": "m",
                    "type": "invalid_request_error",
                    "param": "p",
                    "code": None,
                }
            },
            ("invalid_request_error", "m", "p"),
        ),
        ({"error": "invalid_client", "error_description": "d"}, ("invalid_client", "d", None)),
        ({"error": {"code": 404}}, ("404", None, None)),
        ({"error": {"code": "c", "message": "m", "details": None}}, ("c", "m", None)),
        ([], (None, None, None)),
        (None, (None, None, None)),
    ],
)
def test_errors_of_all_shapes(body: Any, read: tuple[str | None, ...]) -> None:
    assert Azure.read_error(400, body) == read


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "quotaExceeded", ProviderRefused),
        (429, "tooManyRequests", ProviderBusy),
        (403, "forbidden", ProviderDenied),
        (409, "conflict", ProviderExists),
    ],
)
async def test_codes_have_their_types(status: int, code: str, kind: type[Exception]) -> None:
    async with unserved({"api_key": "key"}) as adapter:
        body = {"error": {"code": code, "message": "So it is."}}
        response = httpx.Response(status, json=body)
        with pytest.raises(kind):
            adapter.http._judged(response)
