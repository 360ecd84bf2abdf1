"""Files, datasets and their immutable versions."""

from datetime import datetime
from enum import Enum
from typing import Annotated

import strawberry

from app.api.graphql.context import Info
from app.api.graphql.errors import DatasetProblem, UserError, refusing
from app.api.graphql.node import Node
from app.api.graphql.pagination import After, Connection, First, arg, connect
from app.api.graphql.scalars import BigInt
from app.core.paging import PageRequest
from app.datasets import service
from app.datasets import tables as rows
from app.datasets.formats import Format
from app.files import service as files
from app.files import tables as file_rows


@strawberry.type(description="Bytes uploaded or produced; content at GET /v1/files/{id}/content.")
class File(Node):
    filename: str = strawberry.field(description="Its name, without folders.")
    purpose: str = strawberry.field(description="fine-tune or fine-tune-results.")
    size_bytes: BigInt = strawberry.field(description="Its size.")
    sha256: str = strawberry.field(description="The hash of its content.")
    created_at: datetime = strawberry.field(description="When it was made.")

    @staticmethod
    def of(row: file_rows.File) -> "File":
        return File(
            id=strawberry.ID(row.id),
            filename=row.filename,
            purpose=row.purpose,
            size_bytes=BigInt(row.size),
            sha256=row.sha256,
            created_at=row.created_at,
        )


@strawberry.enum(description="The form of training cases; each method takes one.")
class DatasetFormat(Enum):
    CHAT = strawberry.enum_value(
        "chat", description="Conversations whose assistant messages are learnt: supervised."
    )
    PREFERENCE = strawberry.enum_value(
        "preference", description="An input, a preferred and a non-preferred output: dpo."
    )
    REINFORCEMENT = strawberry.enum_value(
        "reinforcement", description="Questions with what graders need: reinforcement."
    )


def plain(format: DatasetFormat | None) -> Format | None:
    return Format(str(format.value)) if format else None


@strawberry.type(description="What a dataset version holds, found when it was made.")
class ValidationReport:
    format: DatasetFormat = strawberry.field(description="The form of the cases.")
    case_count: int = strawberry.field(description="Valid cases.")
    token_count: BigInt = strawberry.field(description="Tokens the model would read in one epoch.")
    tokenizer: str = strawberry.field(description="What counted them.")
    longest_case_tokens: int = strawberry.field(description="Tokens of the longest case.")
    duplicate_count: int = strawberry.field(description="Cases that appeared before in the file.")
    duplicate_lines: list[int] = strawberry.field(description="The first lines that repeat a case.")
    problems: list[DatasetProblem] = strawberry.field(
        description="Lines to mend; none in a version."
    )
    warnings: list[str] = strawberry.field(description="What is worth a look.")


@strawberry.type(description="An immutable snapshot of a dataset; jobs are pinned to one.")
class DatasetVersion(Node):
    number: int = strawberry.field(description="1, 2, 3 … within the dataset.")
    description: str | None = strawberry.field(description="What changed, for people.")
    sha256: str = strawberry.field(description="The hash of the exact bytes.")
    format: DatasetFormat = strawberry.field(description="The form of its cases.")
    case_count: int = strawberry.field(description="How many cases it holds.")
    created_at: datetime = strawberry.field(description="When it was made.")
    row: strawberry.Private[rows.DatasetVersion]

    @staticmethod
    def of(row: rows.DatasetVersion) -> "DatasetVersion":
        return DatasetVersion(
            id=strawberry.ID(row.id),
            number=row.number,
            description=row.description,
            sha256=row.sha256,
            format=DatasetFormat(row.format),
            case_count=row.case_count,
            created_at=row.created_at,
            row=row,
        )

    @strawberry.field(description="What validation found.")
    def report(self) -> ValidationReport:
        found = self.row.report
        return ValidationReport(
            format=DatasetFormat(found["format"]),
            case_count=found["case_count"],
            token_count=BigInt(found["token_count"]),
            tokenizer=found["tokenizer"],
            longest_case_tokens=found["longest_case_tokens"],
            duplicate_count=found["duplicate_count"],
            duplicate_lines=found["duplicate_lines"],
            problems=[DatasetProblem(**problem) for problem in found["problems"]],
            warnings=found["warnings"],
        )

    @strawberry.field(description="The dataset it is a snapshot of.")
    async def dataset(self, info: Info) -> "Dataset":
        async with info.context.transaction() as session:
            return Dataset.of(await service.get(session, info.context.actor, self.row.dataset_id))

    @strawberry.field(description="The file with its bytes.")
    async def file(self, info: Info) -> File:
        async with info.context.transaction() as session:
            return File.of(await files.get(session, info.context.actor, self.row.file_id))


@strawberry.type(description="A named collection of training cases.")
class Dataset(Node):
    name: str = strawberry.field(description="For people.")
    description: str | None = strawberry.field(description="For people.")
    created_at: datetime = strawberry.field(description="When it was made.")

    @staticmethod
    def of(row: rows.Dataset) -> "Dataset":
        return Dataset(
            id=strawberry.ID(row.id),
            name=row.name,
            description=row.description,
            created_at=row.created_at,
        )

    @strawberry.field(description="Its snapshots, newest first.")
    async def versions(self, info: Info) -> list[DatasetVersion]:
        async with info.context.transaction() as session:
            found = await service.versions(session, info.context.actor, str(self.id))
        return [DatasetVersion.of(row) for row in found]

    @strawberry.field(description="Its newest snapshot.")
    async def latest_version(self, info: Info) -> DatasetVersion | None:
        found = await self.versions(info)
        return found[0] if found else None


@strawberry.input(description="Where the cases come from: exactly one of these.", one_of=True)
class DatasetSource:
    file_id: strawberry.Maybe[strawberry.ID] = strawberry.field(
        description="A file uploaded to POST /v1/files."
    )
    jsonl: strawberry.Maybe[str] = strawberry.field(
        description="The lines themselves; for small sets."
    )
    path: strawberry.Maybe[str] = strawberry.field(
        description="A file on the server, inside the folders that LUTHIER_DATASET_ROOTS allows."
    )

    def plain(self) -> service.Source:
        return service.Source(
            file_id=str(self.file_id.value) if self.file_id else None,
            jsonl=self.jsonl.value if self.jsonl else None,
            path=self.path.value if self.path else None,
        )


@strawberry.input(description="A new dataset with its first version.")
class CreateDatasetInput:
    name: str = strawberry.field(description="1 to 200 characters.")
    source: DatasetSource = strawberry.field(description="Where the cases come from.")
    format: DatasetFormat | None = strawberry.field(
        description="What the cases must be; found out from the first line when left out.",
        default=None,
    )
    description: str | None = strawberry.field(description="For people.", default=None)
    idempotency_key: str | None = strawberry.field(
        description="The same key again gives the same dataset.", default=None
    )


@strawberry.type(description="What came of createDataset.")
class CreateDatasetPayload:
    dataset: Dataset | None = strawberry.field(description="The dataset made.", default=None)
    version: DatasetVersion | None = strawberry.field(
        description="Its first version.", default=None
    )
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.input(description="A new snapshot of a dataset.")
class AddDatasetVersionInput:
    dataset_id: strawberry.ID = strawberry.field(description="Of which dataset.")
    source: DatasetSource = strawberry.field(description="Where the cases come from.")
    format: DatasetFormat | None = strawberry.field(
        description="What the cases must be; found out from the first line when left out.",
        default=None,
    )
    description: str | None = strawberry.field(description="What changed.", default=None)


@strawberry.type(description="What came of addDatasetVersion.")
class AddDatasetVersionPayload:
    version: DatasetVersion | None = strawberry.field(
        description="The version made, or the one that already holds this content.", default=None
    )
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.input(description="Which dataset to delete.")
class DeleteDatasetInput:
    id: strawberry.ID = strawberry.field(description="The dataset's id.")


@strawberry.type(description="What came of deleteDataset.")
class DeleteDatasetPayload:
    deleted_id: strawberry.ID | None = strawberry.field(description="What is gone.", default=None)
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.type
class DatasetQueries:
    @strawberry.field(description="The organization's datasets, newest first.")
    async def datasets(
        self, info: Info, first: First = None, after: After = None
    ) -> Connection[Dataset]:
        async with info.context.transaction() as session:
            page = await service.page(session, info.context.actor, PageRequest.of(first, after))
        found: Connection[Dataset] = connect(page, Dataset.of)
        return found

    @strawberry.field(description="One dataset; null when there is none.")
    async def dataset(
        self, info: Info, id: Annotated[strawberry.ID, arg("The dataset's id.")]
    ) -> Dataset | None:
        with refusing():
            async with info.context.transaction() as session:
                return Dataset.of(await service.get(session, info.context.actor, id))
        return None

    @strawberry.field(description="One dataset version; null when there is none.")
    async def dataset_version(
        self, info: Info, id: Annotated[strawberry.ID, arg("The version's id.")]
    ) -> DatasetVersion | None:
        row = await info.context.versions.load(id)
        return DatasetVersion.of(row) if row else None

    @strawberry.field(description="The organization's files, newest first.")
    async def files(
        self,
        info: Info,
        purpose: Annotated[str | None, arg("Only of this purpose.")] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[File]:
        async with info.context.transaction() as session:
            page = await files.page(
                session, info.context.actor, PageRequest.of(first, after), purpose
            )
        found: Connection[File] = connect(page, File.of)
        return found


@strawberry.type
class DatasetMutations:
    @strawberry.mutation(description="Validate cases line by line and keep them as a dataset.")
    async def create_dataset(
        self, info: Info, input: Annotated[CreateDatasetInput, arg("The dataset.")]
    ) -> CreateDatasetPayload:
        with refusing() as refused:
            examined = await examine(info, input.source.plain(), plain(input.format))
            async with info.context.transaction() as session:
                dataset = await service.create(
                    session,
                    info.context.actor,
                    examined,
                    name=input.name,
                    description=input.description,
                    idempotency_key=input.idempotency_key,
                )
                versions = await service.versions(session, info.context.actor, dataset.id)
            return CreateDatasetPayload(
                dataset=Dataset.of(dataset), version=DatasetVersion.of(versions[-1])
            )
        return CreateDatasetPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Keep a new snapshot of a dataset.")
    async def add_dataset_version(
        self, info: Info, input: Annotated[AddDatasetVersionInput, arg("The snapshot.")]
    ) -> AddDatasetVersionPayload:
        with refusing() as refused:
            examined = await examine(info, input.source.plain(), plain(input.format))
            async with info.context.transaction() as session:
                version = await service.add_version(
                    session, info.context.actor, input.dataset_id, examined, input.description
                )
            return AddDatasetVersionPayload(version=DatasetVersion.of(version))
        return AddDatasetVersionPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Delete a dataset that no job is pinned to.")
    async def delete_dataset(
        self, info: Info, input: Annotated[DeleteDatasetInput, arg("Which dataset.")]
    ) -> DeleteDatasetPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                dataset = await service.delete(session, info.context.actor, input.id)
            return DeleteDatasetPayload(deleted_id=strawberry.ID(dataset.id))
        return DeleteDatasetPayload(user_errors=refused.user_errors)


async def examine(
    info: Info, source: service.Source, format: Format | None = None
) -> service.Examined:
    tools, who = info.context.services, info.context.actor
    return await service.examine(
        tools.database, tools.store, tools.tokenizers, tools.settings, who, source, format
    )
