"""No secret of a provider is anywhere but sealed in its row."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest

from app.core.database import Database
from app.core.settings import Settings
from app.core.vault import CannotOpen, Sealed, Vault
from app.simulators.openai import OpenAISimulator
from tests.providers.conftest import SET, Stage, credential_fields, staged
from tests.providers.places import PLACES
from tests.support import Api, new_tenant

WEBHOOK = "whsec_Y2FuYXJ5IG9mIHRoZSB3ZWJob29rIHNlY3JldA=="


@contextmanager
def all_logs() -> Iterator[io.StringIO]:
    """Every log record of this process, at every level, with its traceback."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield out
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


async def dump(owner: "asyncpg.Connection[Any]") -> str:
    """Every row of every table, as text."""
    tables = await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = [
        str(row[0])
        for table in tables
        for row in await owner.fetch(f"SELECT t::text FROM {table[0]} t")
    ]
    return "\n".join(rows)


def parts_of(secret: str) -> list[str]:
    """Long pieces of it, so that one that is shown in part is found too."""
    if "PRIVATE KEY" in secret:
        lines = secret.replace("\\n", "\n").splitlines()
        return [line for line in lines if len(line) >= 40 and "KEY" not in line][:3]
    return [secret, secret[:-4], secret[4:]]


@pytest.mark.parametrize("name", sorted(PLACES))
async def test_no_secret_is_anywhere(
    name: str,
    settings: Settings,
    database: Database,
    database_url: str,
    owner: "asyncpg.Connection[Any]",
) -> None:
    said: list[str] = []
    with all_logs() as logs:
        async with staged(name, settings, database, database_url) as stage:
            credential = await stage.connect(webhookSecret=WEBHOOK)
            said.append(str(credential))
            job = await stage.submit()
            async with stage.driver():
                stage.simulator.cheats.errors = 1
                await stage.until(job, lambda now: now["providerJobId"] is not None)
                stage.simulator.cheats.throttle = 1
                said.append(str(await stage.until(job, "SUCCEEDED", 60)))
            said.append(str(await stage.events(job)))
            await wrong_ones(stage, said)
            said.append(str(await stage.api.execute("{ providerCredentials { settings hint } }")))
            audit = "{ auditLog(first: 100) { nodes { action before after } } }"
            said.append(str(await stage.api.execute(audit)))
    secrets = [*PLACES[name].account("").secrets.values(), WEBHOOK]
    everything = "\n".join([*said, logs.getvalue(), await dump(owner)])
    for secret in secrets:
        for part in parts_of(secret):
            assert part not in everything, part


async def wrong_ones(stage: Stage, said: list[str]) -> None:
    """Credentials that are refused, in every way: what is said of them quotes nothing."""
    fields = credential_fields(stage.place, stage.url)
    secret = stage.place.adapter.secrets[0]
    camel = "".join(part.capitalize() if n else part for n, part in enumerate(secret.split("_")))
    for given in (
        {**fields, camel: "xx-wrong-canary-0123456789"},
        {**fields, "baseUrl": "https://evil.example/wrong-canary-0123456789"},
    ):
        answer = await stage.api.execute(SET, i={"credential": {stage.name: given}})
        payload = answer["setProviderCredential"]
        assert payload["userErrors"], payload
        if given.get("baseUrl") == fields.get("baseUrl"):
            assert "wrong-canary" not in str(payload)


async def test_another_project_and_another_tenant_see_nothing_of_it(
    stage: Stage, database: Database, settings: Settings
) -> None:
    await stage.connect()
    stranger = await new_tenant(database, settings)
    async with Api(stage.api.url, stranger.key) as api:
        assert (await api.execute("{ providerCredentials { id } }"))["providerCredentials"] == []
        refused = await api.submit(baseModel=stage.place.base_model, provider="OPENAI")
        assert "no credential" in refused["userErrors"][0]["message"]


async def test_a_removed_credential_is_gone_for_good(
    stage: Stage, owner: "asyncpg.Connection[Any]"
) -> None:
    credential = await stage.connect(webhookSecret=WEBHOOK)
    job = await stage.submit()
    answer = await stage.api.execute(
        "mutation { removeProviderCredential(input: {provider: OPENAI}) { removedId"
        " userErrors { message } } }"
    )
    assert answer["removeProviderCredential"]["removedId"] == credential["id"]
    row = await owner.fetchrow(
        "SELECT secrets, webhook_secrets FROM provider_credentials WHERE id = $1", credential["id"]
    )
    assert row is not None
    assert (bytes(row[0]), row[1]) == (b"", None)
    async with stage.driver():
        found = await stage.until(job, lambda now: "no credential" in (now["queueReason"] or ""))
        assert found["status"] == "PENDING"
        await stage.connect()
        await stage.until(job, "SUCCEEDED")


async def test_a_key_that_the_provider_refuses_is_not_stored(stage: Stage) -> None:
    assert isinstance(stage.simulator, OpenAISimulator)
    fields = {"apiKey": "no key at all", "baseUrl": f"{stage.url}/v1"}
    answer = await stage.api.execute(SET, i={"credential": {"openai": fields}})
    assert answer["setProviderCredential"]["credential"] is None
    assert (await stage.api.execute("{ providerCredentials { id } }"))["providerCredentials"] == []


def test_the_vault_opens_only_what_belongs_there() -> None:
    old = Vault({"v1": b"one"})
    sealed = old.seal(b"a secret", "org|row|secrets")
    assert b"a secret" not in sealed.data
    newer = Vault({"v2": b"two", "v1": b"one"})
    assert newer.open(sealed, "org|row|secrets") == b"a secret"
    for vault, place in ((old, "other|row|secrets"), (Vault({"v1": b"two"}), "org|row|secrets")):
        with pytest.raises(CannotOpen):
            vault.open(sealed, place)
    with pytest.raises(CannotOpen, match="'v1'"):
        Vault({"v2": b"two"}).open(sealed, "org|row|secrets")
    with pytest.raises(CannotOpen):
        old.open(Sealed("v1", sealed.data[:-1] + b"\0"), "org|row|secrets")


async def test_a_new_master_key_seals_what_the_old_one_did(
    stage: Stage, owner: "asyncpg.Connection[Any]"
) -> None:
    """The driver does it, the next time it looks at the account."""
    old = stage.settings.model_copy(update={"master_keys": None})
    credential = await stage.connect(webhookSecret=WEBHOOK)
    assert credential
    key = (old.data_dir / "master-key").read_text().strip()
    both = f"v2:{'n' * 40},file:{key}"
    stage.settings = Settings(**{**old.model_dump(), "master_keys": both}, _env_file=None)
    async with stage.driver():
        for _ in range(100):
            row = await owner.fetchrow(
                "SELECT key_version FROM provider_credentials WHERE id = $1", credential["id"]
            )
            if row and row[0] == "v2":
                break
        job = await stage.submit()
        await stage.until(job, "SUCCEEDED")
    row = await owner.fetchrow(
        "SELECT key_version FROM provider_credentials WHERE id = $1", credential["id"]
    )
    assert row is not None
    assert row[0] == "v2"


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        (SET, {"i": {"credential": {"openai": {"apiKey": "canary-1234567890", "colour": 1}}}}),
        (SET, {"i": {"credential": {"nobody": {"apiKey": "canary-1234567890"}}}}),
        (SET, {"i": {"credential": {"openai": {"apiKey": ["canary-1234567890"]}}}}),
        (SET, {"i": {"credential": {"openai": {"apiKey": {"canary-1234567890": 1}}}}}),
        (SET, {"i": "canary-1234567890"}),
        (
            "mutation { setProviderCredential(input: {credential: {openai: {apiKey:"
            ' "canary-1234567890", colour: 1}}}) { userErrors { message } } }',
            {},
        ),
        (
            "mutation { setProviderCredential(input: {credential: {openai: {apiKey:"
            " canary1234567890}}}) { userErrors { message } } }",
            {},
        ),
    ],
)
async def test_input_that_does_not_fit_is_not_quoted(
    stage: Stage, query: str, variables: dict[str, Any]
) -> None:
    answer = await stage.api.http.post("/graphql", json={"query": query, "variables": variables})
    assert answer.json()["errors"]
    assert "canary" not in answer.text
