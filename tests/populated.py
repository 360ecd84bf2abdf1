"""Tenants with a row in every table, and what the database holds of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from app.accounts import credentials, radar
from app.accounts.credentials import NewCredential
from app.accounts.tables import ProviderCredential
from app.core import clock, ids
from app.core.database import Database
from app.core.settings import Settings
from app.core.vault import Vault
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.graderruns import service as grader_runs
from app.jobs import inbox
from app.jobs.inbox import Delivery
from app.jobs.tables import Checkpoint, ProviderItem
from app.models import service as models
from app.models.states import DeploymentStatus
from app.models.tables import Deployment
from app.providers.base import Account
from app.providers.openai import OpenAI
from tests.support import Api, Tenant, chat_lines, new_tenant

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"  # the superuser's: no policy binds it

_CREATE_KEY = """mutation ($i: CreateApiKeyInput!) {
  createApiKey(input: $i) { apiKey { id memberId projectId } } }"""


@dataclass(frozen=True)
class Populated:
    """A tenant, its API as its owner, and the ids of its things by kind."""

    tenant: Tenant
    api: Api
    ids: dict[str, str]

    @property
    def org_id(self) -> str:
        return self.tenant.actor.org_id

    def filled(self, value: Any) -> Any:
        """The value with each text `$kind` in it replaced by this tenant's id of that kind."""
        match value:
            case str():
                return self.ids[value[1:]] if value.startswith("$") else value
            case dict():
                return {name: self.filled(part) for name, part in value.items()}
            case list():
                return [self.filled(part) for part in value]
            case _:
                return value


@asynccontextmanager
async def populated(
    server: str, database: Database, worker_database: Database, settings: Settings
) -> AsyncIterator[Populated]:
    """A new tenant with one of everything: data, a job that measures, a model that is deployed."""
    tenant = await new_tenant(database, settings)
    async with Api(server, tenant.key) as api:
        found = await _things(api, tenant)
        found |= await _results(api, worker_database, tenant, found["job"], found["project"])
        async with database.transaction(tenant.actor.org_id) as session:
            await grader_runs.submit(session, tenant.actor, {}, {}, seconds=1.0)
        found |= await _at_a_provider(database, worker_database, tenant, found["job"])
        yield Populated(tenant, api, found)


async def _things(api: Api, tenant: Tenant) -> dict[str, str]:
    word = tenant.actor.org_id[-6:]
    version = await api.dataset_version(chat_lines(12, word))
    second = await api.dataset_version(chat_lines(5, f"second {word}"))
    data = await api.execute(
        "query ($v: ID!) { datasetVersion(id: $v) { dataset { id } } }", v=version
    )
    member = await api.execute(
        'mutation { setMember(input: {name: "colleague", role: MEMBER}) { member { id } } }'
    )
    project = await api.execute(
        'mutation { createProject(input: {name: "second"}) { project { id } } }'
    )
    member_id = member["setMember"]["member"]["id"]
    project_id = project["createProject"]["project"]["id"]
    key = await api.execute(
        _CREATE_KEY,
        i={"name": "spare", "scopes": [], "memberId": member_id, "projectId": project_id},
    )
    return {
        "org": tenant.actor.org_id,
        "owner": tenant.actor.member_id,
        "home": tenant.actor.project_id,
        "version": version,
        "second_version": second,
        "dataset": data["datasetVersion"]["dataset"]["id"],
        "file": await api.upload(chat_lines(7, f"file {word}")),
        "member": member_id,
        "project": project_id,
        "key": key["createApiKey"]["apiKey"]["id"],
        "job": await api.job_id(trainingData=version, idempotencyKey="the same"),
    }


async def _results(
    api: Api, worker_database: Database, tenant: Tenant, job_id: str, project: str
) -> dict[str, str]:
    """What a worker would have written: a measured step, a checkpoint, a model, its server."""
    org_id = tenant.actor.org_id
    point = NewEvent(EventType.METRICS, {"values": {"training_loss": 1.5}}, step=1, attempt=1)
    checkpoint = ids.new(ids.CHECKPOINT)
    async with worker_database.transaction(org_id) as session:
        await log.append(session, job_id, [point])
        session.add(
            Checkpoint(
                org_id=org_id,
                id=checkpoint,
                job_id=job_id,
                attempt=1,
                step=1,
                path="nowhere",
                manifest_sha256="0" * 64,
                size_bytes=1,
                metrics={},
                created_at=clock.now(),
            )
        )
        model = await models.register(
            session,
            org_id=org_id,
            org_slug="test",
            project_id=tenant.actor.project_id,
            job_id=job_id,
            base_model="smollm2-135m-instruct",
            suffix=None,
            step=1,
            checkpoint_id=checkpoint,
            kind="lora",
            path="nowhere",
            manifest_sha256="0" * 64,
            size_bytes=1,
        )
    deployed = await api.execute(
        "mutation ($m: ID!) { deployModel(input: {modelId: $m}) { deployment { id } } }", m=model.id
    )
    deployment_id = str(deployed["deployModel"]["deployment"]["id"])
    shared = await api.execute(
        "mutation ($i: GrantCheckpointPermissionInput!) { grantCheckpointPermission(input: $i)"
        " { permissions { id } } }",
        i={"checkpointId": checkpoint, "projectIds": [project]},
    )
    async with worker_database.transaction(org_id) as session:
        row = await session.get_one(Deployment, (org_id, deployment_id))
        await models.transition(session, row, DeploymentStatus.STARTING)
        await models.transition(session, row, DeploymentStatus.READY, endpoint="http://127.0.0.1:9")
    return {
        "checkpoint": checkpoint,
        "permission": shared["grantCheckpointPermission"]["permissions"][0]["id"],
        "model": model.id,
        "model_name": model.name,
        "deployment": deployment_id,
    }


async def _at_a_provider(
    database: Database, worker_database: Database, tenant: Tenant, job_id: str
) -> dict[str, str]:
    """A credential, a webhook that came by it, and what a driver noted."""
    actor, vault = tenant.actor, Vault({"test": b"a master key"})
    account = Account({"api_key": "sk-of-a-populated-tenant"}, {})
    async with database.transaction(actor.org_id) as session:
        row = await credentials.set_credential(
            session, actor, vault, NewCredential("openai", account, "whsec_of_a_populated_tenant")
        )
        delivery = Delivery(row.id, "wh_1", "fine_tuning.job.succeeded", "ftjob-x", {})
        await inbox.receive(session, actor.org_id, [delivery])
    async with worker_database.transaction(actor.org_id) as session:
        session.add(ProviderItem(org_id=actor.org_id, job_id=job_id, key="ftevent-1"))
        row = await session.get_one(ProviderCredential, (actor.org_id, row.id))
        await radar.take_in(session, row, [], OpenAI.offers, [])
    return {"credential": row.id}


async def tenant_tables(owner: Owner) -> list[str]:
    """Every table with the column org_id."""
    rows = await owner.fetch(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
        " AND a.attname = 'org_id' AND NOT a.attisdropped ORDER BY 1"
    )
    return [row["relname"] for row in rows]


async def rows_of(owner: Owner, org_id: str) -> dict[str, list[str]]:
    """Everything the database holds of a tenant; using a key (`last_used_at`) changes nothing."""
    found = {
        table: [
            row["content"]
            for row in await owner.fetch(
                f"SELECT (to_jsonb(t) - 'last_used_at')::text AS content FROM {table} t"
                " WHERE org_id = $1 ORDER BY 1",
                org_id,
            )
        ]
        for table in await tenant_tables(owner)
    }
    organization = "SELECT to_jsonb(t)::text AS content FROM organizations t WHERE id = $1"
    found["organizations"] = [row["content"] for row in await owner.fetch(organization, org_id)]
    return found
