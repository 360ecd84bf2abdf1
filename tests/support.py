"""What tests share: tenants, a client of the real API, small datasets, rows made directly."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import websockets
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.accounts import service as accounts
from app.core.actor import Actor, Role, Scope
from app.core.database import Database
from app.core.secrets import api_key_pepper
from app.core.settings import Settings
from app.training.environment import environment

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Tenant:
    key: str
    actor: Actor


async def new_tenant(database: Database, settings: Settings) -> Tenant:
    pepper = api_key_pepper(settings)
    made = await accounts.create_organization(database, pepper, "Test")
    return Tenant(made.secret, await accounts.authenticate(database, pepper, made.secret, "test"))


async def key_with(
    database: Database, settings: Settings, tenant: Tenant, role: Role, *scopes: Scope
) -> str:
    """Another key of the tenant, of a new member with this role, with these scopes."""
    async with database.transaction(tenant.actor.org_id) as session:
        member = await accounts.set_member(
            session, tenant.actor, id=None, name=f"a {role}", role=role
        )
        await session.flush()
        made = await accounts.create_key(
            session,
            tenant.actor,
            api_key_pepper(settings),
            name="test",
            scopes=scopes,
            member_id=member.id,
            project_id=None,
            expires_at=None,
        )
    return made.secret


class Refusal(Exception):
    """A top-level GraphQL error."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(json.dumps(errors))
        self.errors = errors
        self.code = errors[0].get("extensions", {}).get("code")


class Api:
    """A client of the real server, over real sockets."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url, self.key = url, key
        headers = {"x-api-key": key} if key else {}
        # Nothing is encrypted here, and to read the certificates of the world takes 40 ms.
        self.http = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=30, trust_env=False, verify=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.aclose()

    async def execute(self, query: str, **variables: Any) -> dict[str, Any]:
        """The answer's data; raises Refusal when there are top-level errors."""
        response = await self.http.post("/graphql", json={"query": query, "variables": variables})
        answer = response.json()
        if "errors" in answer:
            raise Refusal(answer["errors"])
        data: dict[str, Any] = answer["data"]
        return data

    async def upload(self, content: str | bytes, filename: str = "data.jsonl") -> str:
        """The id of a file made of these bytes."""
        response = await self.http.post(
            "/v1/files", files={"file": (filename, content)}, data={"purpose": "fine-tune"}
        )
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    async def dataset_version(self, content: str) -> str:
        """The id of a dataset version made of these lines."""
        made = await self.execute(
            "mutation ($i: CreateDatasetInput!) { createDataset(input: $i)"
            " { version { id } userErrors { message } } }",
            i={"name": "cases", "source": {"jsonl": content}},
        )
        assert made["createDataset"]["userErrors"] == []
        return str(made["createDataset"]["version"]["id"])

    async def submit(self, **fields: Any) -> dict[str, Any]:
        """submitJob's payload. Without data named, a small set is made."""
        if not {"trainingData", "trainingFile"} & fields.keys():
            fields["trainingData"] = await self.dataset_version(chat_lines(12))
        fields.setdefault("baseModel", "smollm2-135m-instruct")
        answer = await self.execute(
            "mutation ($i: SubmitJobInput!) { submitJob(input: $i) { job { id status seed name }"
            " estimate { tokens steps } warnings"
            " userErrors { __typename message code path } } }",
            i=fields,
        )
        payload: dict[str, Any] = answer["submitJob"]
        return payload

    async def job_id(self, **fields: Any) -> str:
        """The id of a job just submitted."""
        payload = await self.submit(**fields)
        assert payload["userErrors"] == [], payload
        return str(payload["job"]["id"])

    async def act(self, verb: str, id: str, **more: Any) -> dict[str, Any]:
        """cancelJob, pauseJob, resumeJob or restartJob: the payload."""
        kind = verb[0].upper() + verb[1:]
        answer = await self.execute(
            f"mutation ($i: {kind}Input!) {{ {verb}(input: $i) {{ job {{ id status"
            " requestedAction } userErrors { __typename message code path } } }",
            i={"id": id, **more},
        )
        payload: dict[str, Any] = answer[verb]
        return payload

    @asynccontextmanager
    async def socket(self, **params: Any) -> AsyncIterator["Socket"]:
        """A graphql-transport-ws connection, acknowledged."""
        url = self.url.replace("http", "ws", 1) + "/graphql"
        async with websockets.connect(
            url,
            subprotocols=["graphql-transport-ws"],  # type: ignore[list-item]
            max_queue=None,  # a full one would keep this side from closing in time
        ) as raw:
            found = Socket(raw)
            await found.send(type="connection_init", payload=params or {"apiKey": self.key})
            assert (await found.receive())["type"] == "connection_ack"
            yield found

    @asynccontextmanager
    async def subscribe(
        self, query: str, **variables: Any
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The data of each `next` until `complete`; raises Refusal on an error."""
        async with self.socket() as socket:
            await socket.send(
                id="1", type="subscribe", payload={"query": query, "variables": variables}
            )
            yield socket.results()


class Socket:
    """graphql-transport-ws, message by message."""

    def __init__(self, raw: websockets.ClientConnection) -> None:
        self.raw = raw

    async def send(self, **message: Any) -> None:
        await self.raw.send(json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.raw.recv())
        return message

    async def results(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            message = await self.receive()
            if message["type"] == "complete":
                return
            if message["type"] == "error":
                raise Refusal(message["payload"])
            if message["payload"].get("errors"):
                raise Refusal(message["payload"]["errors"])
            yield message["payload"]["data"]


def chat_line(question: str, answer: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages})


def chat_lines(count: int, word: str = "case") -> str:
    """Small, different, valid cases."""
    return "\n".join(
        chat_line(f"Where does {word} {n} go?", f"To queue {n % 3}.") for n in range(count)
    )


def pair_lines(count: int, word: str = "case") -> str:
    """Small, different, valid pairs of answers."""
    return "\n".join(
        json.dumps(
            {
                "input": {"messages": [{"role": "user", "content": f"Where does {word} {n} go?"}]},
                "preferred_output": [{"role": "assistant", "content": f"To queue {n % 3}."}],
                "non_preferred_output": [{"role": "assistant", "content": "No idea, sorry."}],
            }
        )
        for n in range(count)
    )


def item_lines(count: int, word: str = "case") -> str:
    """Small, different, valid questions with what a grader may ask for."""
    return "\n".join(
        json.dumps(
            {
                "messages": [{"role": "user", "content": f"Where does {word} {n} go?"}],
                "word": word,
                "wanted": 20,
            }
        )
        for n in range(count)
    )


async def count_rows(database_url: str, table: str, org_id: str) -> int:
    """Rows of one tenant in a table, counted as the owner, whom no policy binds."""

    engine = create_async_engine(database_url.replace("postgresql:", "postgresql+asyncpg:", 1))
    try:
        async with engine.connect() as connection:
            query = text(f"SELECT count(*) FROM {table} WHERE org_id = :org")
            return int(await connection.scalar(query, {"org": org_id}) or 0)
    finally:
        await engine.dispose()


TENANT_TABLES = [
    *("projects", "members", "api_keys", "audit", "idempotency", "streams", "events", "attempts"),
    *("blobs", "files", "datasets", "dataset_versions", "jobs", "checkpoints", "models"),
    "deployments",
]


async def as_owner(database_url: str, query: str, **values: Any) -> list[dict[str, Any]]:
    """What a statement gives to the database's owner, whom no policy binds; committed."""
    engine = create_async_engine(database_url.replace("postgresql:", "postgresql+asyncpg:", 1))
    try:
        async with engine.begin() as connection:
            found = await connection.execute(text(query), values)
            return [dict(row) for row in found.mappings()] if found.returns_rows else []
    finally:
        await engine.dispose()


async def all_rows(database_url: str, org_id: str) -> dict[str, int]:
    """How many rows one tenant has in every table, counted as the owner."""
    counts = ", ".join(
        f"(SELECT count(*) FROM {table} WHERE org_id = :org) AS {table}" for table in TENANT_TABLES
    )
    [row] = await as_owner(database_url, f"SELECT {counts}", org=org_id)
    return row


def run_module(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A program of the training stack, to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment(1)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
