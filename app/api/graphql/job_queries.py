"""Asking for jobs: one, or a filtered and ordered page."""

from datetime import datetime
from enum import Enum
from typing import Annotated

import strawberry

from app.api.graphql.catalog import Provider
from app.api.graphql.context import Info
from app.api.graphql.job_types import JobStatus
from app.api.graphql.jobs import Job, JobConnection, Reading
from app.api.graphql.pagination import (
    After,
    Before,
    First,
    Last,
    arg,
    connect,
)
from app.api.graphql.selection import beneath, selected
from app.core.paging import PageRequest
from app.events import cursors
from app.events.log import Head
from app.jobs import filters, queries
from app.jobs import states as job_states


@strawberry.enum(description="The order of a list of jobs.")
class JobOrder(Enum):
    CREATED_AT_DESC = strawberry.enum_value("created_at desc", description="Newest first.")
    CREATED_AT_ASC = strawberry.enum_value("created_at asc", description="Oldest first.")
    UPDATED_AT_DESC = strawberry.enum_value("updated_at desc", description="Last changed first.")
    UPDATED_AT_ASC = strawberry.enum_value("updated_at asc", description="Last changed last.")
    NAME_ASC = strawberry.enum_value("name asc", description="By name.")
    NAME_DESC = strawberry.enum_value("name desc", description="By name, backwards.")


@strawberry.input(description="A pair that a job's metadata must hold.")
class MetadataPair:
    key: str = strawberry.field(description="Its key.")
    value: str = strawberry.field(description="Its value.")


@strawberry.input(description="Which jobs; every condition given must hold.")
class JobFilter:
    status: list[JobStatus] | None = strawberry.field(description="One of these.", default=None)
    provider: list[Provider] | None = strawberry.field(description="One of these.", default=None)
    base_model: str | None = strawberry.field(description="Tuned from this one.", default=None)
    method: str | None = strawberry.field(description="By this method.", default=None)
    search: str | None = strawberry.field(
        description="Part of the name or description.", default=None
    )
    metadata: list[MetadataPair] | None = strawberry.field(
        description="All of these pairs.", default=None
    )
    dataset_version_id: strawberry.ID | None = strawberry.field(
        description="Trained or validated on this version.", default=None
    )
    created_after: datetime | None = strawberry.field(description="Made later.", default=None)
    created_before: datetime | None = strawberry.field(description="Made earlier.", default=None)
    owner_id: strawberry.ID | None = strawberry.field(
        description="Submitted by this member.", default=None
    )

    def plain(self) -> filters.JobFilter:
        status = self.status
        return filters.JobFilter(
            status=[job_states.JobStatus(str(s.value)) for s in status]
            if status is not None
            else None,
            provider=[str(p.value) for p in self.provider] if self.provider is not None else None,
            base_model=self.base_model,
            method=self.method,
            search=self.search,
            metadata={pair.key: pair.value for pair in self.metadata or []},
            dataset_version_id=self.dataset_version_id,
            created_after=self.created_after,
            created_before=self.created_before,
            owner_id=self.owner_id,
        )


Filter = Annotated[JobFilter | None, arg("Which jobs.")]


@strawberry.type
class JobQueries:
    @strawberry.field(description="One job; null when there is none.")
    async def job(
        self, info: Info, id: Annotated[strawberry.ID, arg("The job's id.")]
    ) -> Job | None:
        found = await info.context.jobs.load(id)
        return Job.now(found) if found else None

    @strawberry.field(description="The organization's jobs.")
    async def jobs(
        self,
        info: Info,
        filter: Filter = None,
        order_by: Annotated[JobOrder, arg("In which order.")] = JobOrder.CREATED_AT_DESC,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> JobConnection:
        request = PageRequest.of(first, after, last, before)
        who, asked = info.context.actor, selected(info)
        edges = beneath(info, asked.get("edges", []))
        nodes = [*asked.get("nodes", []), *edges.get("node", [])]
        reading = Reading.of(frozenset(beneath(info, nodes)))
        heads: dict[str, Head] = {}
        async with info.context.transaction(snapshot=True) as session:
            page = await queries.page(
                session,
                who,
                request,
                (filter or JobFilter()).plain(),
                filters.JobOrder(str(order_by.value)),
                reading.columns,
            )
            streams = [row.id for row in page.rows] if reading.stream else []
            if "cursor" in asked:
                streams.append(who.org_id)
            if streams:
                heads = await queries.heads(session, streams)
        connection: JobConnection = connect(
            page, lambda row: reading.job(row, heads.get(row.id)), JobConnection
        )
        if "cursor" in asked:
            connection.cursor = cursors.encode(heads[who.org_id].last_seq)
        return connection
