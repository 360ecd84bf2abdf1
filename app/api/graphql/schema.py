"""The schema: the roots, composed of the features' parts."""

import re
from typing import Annotated, Any

import strawberry
from graphql import GraphQLError
from strawberry.extensions import SchemaExtension
from strawberry.extensions.runner import SchemaExtensionsRunner
from strawberry.schema import Schema
from strawberry.types import ExecutionContext
from strawberry.types.execution import PreExecutionError

from app.api.graphql.accounts import AccountMutations, AccountQueries
from app.api.graphql.caches import Documents
from app.api.graphql.catalog import BaseModel, CatalogQueries
from app.api.graphql.checkpoints import Checkpoint, CheckpointMutations
from app.api.graphql.context import Info
from app.api.graphql.credentials import CredentialMutations, CredentialQueries
from app.api.graphql.datasets import Dataset, DatasetMutations, DatasetQueries, DatasetVersion, File
from app.api.graphql.errors import ERROR_TYPES, present, refusing
from app.api.graphql.grader_runs import GraderRunMutations
from app.api.graphql.graders import GraderMutations
from app.api.graphql.imports import ImportMutations
from app.api.graphql.job_comparison import ComparisonQueries
from app.api.graphql.job_mutations import JobMutations
from app.api.graphql.job_queries import JobQueries
from app.api.graphql.jobs import Job
from app.api.graphql.live.executor import EventExecutor
from app.api.graphql.models import Deployment, Model, ModelMutations, ModelQueries
from app.api.graphql.node import Node
from app.api.graphql.pagination import arg
from app.api.graphql.scalars import CONFIG
from app.api.graphql.stats import StatsQueries
from app.api.graphql.subscriptions import Subscription
from app.core import ids
from app.core.errors import Limited
from app.datasets import service as datasets
from app.files import service as files
from app.jobs import queries as jobs
from app.models import service as models

_MOST_NODES = 100
# What of graphql-core's words names a place, and nothing that was given.
_PLACE = re.compile(
    r"Variable '\$\w+' has invalid value(?: at [.\w\[\]]+)?"
    r"|Field '[\w.]+' is not defined by type '\w+'"
    r"|Field '[\w.]+' of required type '[\w!\[\]]+' was not provided"
    r"|Cannot query field '\w+' on type '\w+'"
)
_SUGGESTION = re.compile(r" Did you mean .*?\?")  # graphql-core's words


@strawberry.type(description="What can be read.")
class Query(
    JobQueries,
    ComparisonQueries,
    StatsQueries,
    ModelQueries,
    CatalogQueries,
    DatasetQueries,
    AccountQueries,
    CredentialQueries,
):
    @strawberry.field(description="Anything with an id; null when there is nothing by it.")
    async def node(self, info: Info, id: Annotated[strawberry.ID, arg("The id.")]) -> Node | None:
        return await _find(info, id)

    @strawberry.field(description="Several at once, in the order asked; null where there is none.")
    async def nodes(
        self, info: Info, ids: Annotated[list[strawberry.ID], arg("At most 100 ids.")]
    ) -> list[Node | None]:
        if len(ids) > _MOST_NODES:
            raise Limited(
                f"Ask for at most {_MOST_NODES} nodes at once.", limit=_MOST_NODES, path=("ids",)
            )
        return [await _find(info, id) for id in ids]


@strawberry.type(description="What can be done.")
class Mutation(
    JobMutations,
    GraderMutations,
    GraderRunMutations,
    CheckpointMutations,
    ModelMutations,
    DatasetMutations,
    AccountMutations,
    CredentialMutations,
    ImportMutations,
):
    pass


class _Runner(SchemaExtensionsRunner):
    """Our extensions put what they add into the context: asking each costs something per event."""

    async def get_extensions_results(self, ctx: ExecutionContext) -> dict[str, Any]:
        return ctx.extensions_results


class LuthierSchema(Schema):
    suggestions = True
    documents: Documents | None = None

    async def _prepare_operation_async(
        self, context: ExecutionContext, extensions_runner: SchemaExtensionsRunner
    ) -> PreExecutionError | None:
        """Known documents are not parsed again, nor is one whose parsing has just failed."""
        if self.documents and context.query:
            try:
                context.graphql_document = self.documents.parse(context.query).document
            except GraphQLError as error:
                context.pre_execution_errors = [error]
                return PreExecutionError(data=None, errors=[error])
        return await super()._prepare_operation_async(context, extensions_runner)

    def create_extensions_runner(
        self, execution_context: ExecutionContext, extensions: list[SchemaExtension]
    ) -> SchemaExtensionsRunner:
        return _Runner(execution_context, extensions)

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Rewrite errors in place into what the client may see; `present` logs our own faults."""
        context = execution_context.context if execution_context else None
        request_id = getattr(context, "request_id", "")
        if execution_context and "setProviderCredential" in (execution_context.query or ""):
            errors[:] = [_unquoted(error) for error in errors]
        if not self.suggestions:
            for error in errors:
                error.message = _SUGGESTION.sub("", error.message)
        errors[:] = [present(error, request_id) for error in errors]


def _unquoted(error: GraphQLError) -> GraphQLError:
    """Of input that may hold secrets: which place is wrong and, in words of the schema alone, why.
    graphql-core quotes what was given."""
    if error.original_error is not None and not isinstance(error.original_error, GraphQLError):
        return error
    known = _PLACE.match(error.message)
    where = known.group(0) if known else "The input does not fit the schema"
    return GraphQLError(
        f"{where}. What was given is not repeated here, since it may hold secrets.",
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=error.extensions,
    )


def build(
    extensions: list[Any], documents: Documents | None = None, *, suggestions: bool = True
) -> LuthierSchema:
    """One per process: building changes the field objects it is made of. Without `suggestions` no
    error tells of a name that the client does not know."""
    schema = LuthierSchema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[*ERROR_TYPES, Job, Model, Deployment, Dataset, DatasetVersion, File, Checkpoint],
        extensions=extensions,
        config=CONFIG,
        execution_context_class=EventExecutor,
    )
    schema.suggestions, schema.documents = suggestions, documents
    return schema


async def _find(info: Info, id: str) -> Node | None:
    who = info.context.actor
    with refusing():
        match ids.prefix_of(id):
            case ids.JOB:
                job = await info.context.jobs.load(id)
                return Job.now(job) if job else None
            case ids.MODEL:
                async with info.context.transaction() as session:
                    return Model.of(await models.get(session, who, id))
            case ids.DEPLOYMENT:
                async with info.context.transaction() as session:
                    return Deployment.of(await models.get_deployment(session, who, id), info)
            case ids.DATASET:
                async with info.context.transaction() as session:
                    return Dataset.of(await datasets.get(session, who, id))
            case ids.DATASET_VERSION:
                version = await info.context.versions.load(id)
                return DatasetVersion.of(version) if version else None
            case ids.CHECKPOINT:
                async with info.context.transaction() as session:
                    return Checkpoint.of(await jobs.checkpoint(session, who, id))
            case ids.FILE:
                async with info.context.transaction() as session:
                    return File.of(await files.get(session, who, id))
            case "base":
                return BaseModel.by_id(info, id)
    return None
