"""Taking jobs that exist at a provider into the ledger."""

from typing import Annotated

import strawberry

from app.accounts import credentials
from app.api.graphql.catalog import Provider
from app.api.graphql.context import Info
from app.api.graphql.errors import UserError, refusing
from app.api.graphql.jobs import Job
from app.api.graphql.pagination import arg
from app.core.actor import Role, Scope
from app.core.errors import Invalid
from app.jobs import imports
from app.providers.base import Adapter, Sighting
from app.providers.errors import ProviderMissing


@strawberry.input(description="Which jobs to take in.")
class ImportJobsInput:
    provider: Provider = strawberry.field(description="Where they are.")
    provider_job_ids: list[str] | None = strawberry.field(
        description="Their ids there; the newest jobs of the account when left out.", default=None
    )
    first: int = strawberry.field(
        description="Of the newest, so many at most: 1 to 200.", default=50
    )


@strawberry.type(description="What came of importJobs.")
class ImportJobsPayload:
    imported: list[Job] | None = strawberry.field(
        description="Those that are new; their status, events and results follow in their streams.",
        default=None,
    )
    known: list[Job] | None = strawberry.field(
        description="Those that were in the ledger already.", default=None
    )
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.type
class ImportMutations:
    @strawberry.mutation(
        description="Take jobs that exist at a provider into the ledger. Safe to repeat."
    )
    async def import_jobs(
        self, info: Info, input: Annotated[ImportJobsInput, arg("Which jobs.")]
    ) -> ImportJobsPayload:
        with refusing() as refused:
            services, who = info.context.services, info.context.actor
            who.require(Scope.WRITE, Role.ADMIN)
            if not 1 <= input.first <= imports.MOST:
                raise Invalid(f"first lies between 1 and {imports.MOST}.", path=("first",))
            if len(input.provider_job_ids or []) > imports.MOST:
                raise Invalid(f"At most {imports.MOST} at once.", path=("providerJobIds",))
            provider = str(input.provider.value)
            async with info.context.transaction() as session:
                row = await credentials.of_project(session, who.org_id, who.project_id, provider)
            if row is None:
                raise Invalid(
                    "This project has no credential for that provider. Call setProviderCredential "
                    "first.",
                    path=("provider",),
                )
            account = credentials.opened(services.vault, row)
            adapter = services.providers.adapter(provider, account, row.id)
            found = await _found(adapter, input)
            async with info.context.transaction() as session:
                new, known = await imports.take_in(session, who, provider, found)
                return ImportJobsPayload(
                    imported=[await Job.within(session, job) for job in new],
                    known=[await Job.within(session, job) for job in known],
                )
        return ImportJobsPayload(user_errors=refused.user_errors)


async def _found(adapter: Adapter, input: ImportJobsInput) -> list[Sighting]:
    if input.provider_job_ids is None:
        return await adapter.listing(input.first)
    found = []
    for id in dict.fromkeys(input.provider_job_ids):
        try:
            found.append(await adapter.get(id))
        except ProviderMissing:
            name = adapter.capabilities.name
            raise Invalid(
                f"{name} has no job {id[:80]!r} for this credential.", path=("providerJobIds",)
            ) from None
    return found
