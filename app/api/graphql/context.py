"""What a resolver is given: the services' tools, who asks, and loaders that batch look-ups."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import strawberry
from sqlmodel.ext.asyncio.session import AsyncSession
from strawberry.dataloader import DataLoader

from app.api.graphql.live.channel import Channel
from app.api.key_cache import KeyCache
from app.api.limits import Limits
from app.catalog import service as catalog
from app.catalog.base_models import BaseModels
from app.catalog.tokens import Tokenizers
from app.core.actor import Actor
from app.core.database import Database
from app.core.settings import Settings
from app.core.vault import Vault
from app.datasets import service as datasets
from app.datasets.tables import DatasetVersion
from app.events.log import Head
from app.events.stream import Streams
from app.files.store import FileStore
from app.jobs import queries as jobs
from app.jobs.errors import JobNotFound
from app.jobs.queries import JobNow, Standing
from app.models import service as models
from app.models.tables import Deployment, Model
from app.providers.registry import Providers


@dataclass(frozen=True)
class Services:
    """Everything the doors of one process share."""

    settings: Settings
    database: Database
    streams: Streams
    store: FileStore
    base_models: BaseModels
    tokenizers: Tokenizers
    pepper: bytes
    master_key: bytes
    vault: Vault
    providers: Providers
    limits: Limits
    keys: KeyCache = field(default_factory=KeyCache)
    _standings: WeakValueDictionary[str, "DataLoader[str, Standing]"] = field(
        default_factory=WeakValueDictionary
    )

    def standings(self, org_id: str) -> "DataLoader[str, Standing]":
        """One query for all of an organization's viewers who come together."""
        loader = self._standings.get(org_id)
        if loader is None:

            async def load(wanted: list[str]) -> list[Standing | JobNotFound]:
                async with self.database.transaction(org_id) as session:
                    return await jobs.standings(session, org_id, wanted)

            loader = self._standings[org_id] = DataLoader(load, cache=False)
        return loader


@dataclass(frozen=True)
class Waiting:
    """A job that may be waiting for a worker with a label."""

    id: str
    label: str | None
    status: str


@dataclass
class Context:
    """One per operation. Loaders batch, but never cache: in a subscription that lives for hours a
    cached row would be a stale one."""

    services: Services
    request_id: str
    signed_in: Actor | None = None
    live: Channel = field(default_factory=Channel)
    jobs: "DataLoader[str, JobNow | None]" = field(init=False)
    heads: "DataLoader[str, Head]" = field(init=False)
    versions: "DataLoader[str, DatasetVersion | None]" = field(init=False)
    models: "DataLoader[str, Model | None]" = field(init=False)
    deployments: "DataLoader[str, list[Deployment]]" = field(init=False)
    waiting: "DataLoader[Waiting, str | None]" = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = self._by_id(jobs.now, snapshot=True)
        self.versions = self._by_id(datasets.get_versions)
        self.models = self._by_id(models.get_many)
        self.heads = DataLoader(self._load_heads, cache=False)
        self.deployments = DataLoader(self._load_deployments, cache=False)
        self.waiting = DataLoader(self._load_waiting, cache=False)

    @property
    def actor(self) -> Actor:
        assert self.signed_in is not None  # the view lets nobody in without a key  # noqa: S101
        return self.signed_in

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[AsyncSession]:
        org_id = self.actor.org_id
        async with self.services.database.transaction(org_id, snapshot=snapshot) as session:
            yield session

    def _by_id(
        self,
        find: Callable[[AsyncSession, Actor, list[str]], Awaitable[list[Any]]],
        *,
        snapshot: bool = False,
    ) -> "DataLoader[str, Any]":
        async def load(wanted: list[str]) -> list[Any]:
            async with self.transaction(snapshot=snapshot) as session:
                found = {row.id: row for row in await find(session, self.actor, wanted)}
            return [found.get(id) for id in wanted]

        return DataLoader(load, cache=False)

    async def _load_heads(self, wanted: list[str]) -> list[Head]:
        async with self.transaction() as session:
            found = await jobs.heads(session, wanted)
        return [found.get(id, Head()) for id in wanted]

    async def _load_deployments(self, wanted: list[str]) -> list[list[Deployment]]:
        async with self.transaction() as session:
            found = await models.deployments_of(session, self.actor, wanted)
        return [[row for row in found if row.model_id == id] for id in wanted]

    async def _load_waiting(self, wanted: "list[Waiting]") -> list[str | None]:
        queued = {job.id for job in wanted if job.status in ("pending", "queued")}
        # Of those that run, the worker may have left.
        running = [job.id for job in wanted if job.status == "running"]
        async with self.transaction() as session:
            if running:
                queued |= await jobs.without_worker(session, self.actor, running)
            workers = await catalog.live_workers(session) if queued else []
        return [
            catalog.why_waiting(workers, job.label) if job.id in queued else None for job in wanted
        ]


Info = strawberry.Info[Context, None]
