"""Checkpoints: weights saved on the way, and who may use them."""

from datetime import datetime
from typing import Annotated

import strawberry

from app.api.graphql.context import Info
from app.api.graphql.errors import UserError, refusing
from app.api.graphql.metrics import MetricPoint
from app.api.graphql.models import Model
from app.api.graphql.node import Node
from app.api.graphql.pagination import arg
from app.api.graphql.scalars import BigInt
from app.jobs import checkpoints
from app.jobs import tables as rows
from app.jobs.metrics import Point
from app.models import permissions
from app.models import service as models
from app.models.tables import CheckpointPermission as Permission


@strawberry.type(description="A project, besides the job's own, that may use a checkpoint.")
class CheckpointPermission:
    id: strawberry.ID = strawberry.field(description="Opaque id.")
    project_id: strawberry.ID = strawberry.field(description="The project.")
    created_at: datetime = strawberry.field(description="When it was given.")

    @staticmethod
    def of(row: Permission) -> "CheckpointPermission":
        return CheckpointPermission(
            id=strawberry.ID(row.id),
            project_id=strawberry.ID(row.project_id),
            created_at=row.created_at,
        )


@strawberry.type(description="Weights saved at a step, usable as a model.")
class Checkpoint(Node):
    job_id: strawberry.ID = strawberry.field(description="The job.")
    step: int = strawberry.field(description="The step.")
    attempt: int = strawberry.field(description="The attempt that saved it.")
    size_bytes: BigInt = strawberry.field(description="On disk.")
    metrics: MetricPoint = strawberry.field(description="The values at that step.")
    score: float | None = strawberry.field(
        description="Mean reward on the held-out cases, when the job names graders."
    )
    created_at: datetime = strawberry.field(description="When it was saved.")
    row: strawberry.Private[rows.Checkpoint]

    @staticmethod
    def of(row: rows.Checkpoint) -> "Checkpoint":
        point = Point(row.job_id, row.attempt, row.step, row.created_at, None, row.metrics)
        return Checkpoint(
            id=strawberry.ID(row.id),
            job_id=strawberry.ID(row.job_id),
            step=row.step,
            attempt=row.attempt,
            size_bytes=BigInt(row.size_bytes),
            metrics=MetricPoint.of(point),
            score=row.score,
            created_at=row.created_at,
            row=row,
        )

    @strawberry.field(description="The name it can be called by, once it is deployed.")
    async def model_name(self, info: Info) -> str:
        async with info.context.transaction() as session:
            return await checkpoints.model_name(session, self.row)

    @strawberry.field(description="The model of these weights, if it was made into one.")
    async def model(self, info: Info) -> Model | None:
        async with info.context.transaction() as session:
            found = await models.of_checkpoint(session, info.context.actor, str(self.id))
        return Model.of(found) if found else None

    @strawberry.field(description="Projects it is shared with, the oldest permission first.")
    async def permissions(self, info: Info) -> list[CheckpointPermission]:
        async with info.context.transaction() as session:
            found = await permissions.of(session, info.context.actor, str(self.id))
        return [CheckpointPermission.of(row) for row in found]

    @strawberry.field(description="Where its weights can be fetched with a GET, as a tar file.")
    def download_path(self) -> str:
        return f"/v1/models/{self.id}/content"


@strawberry.type(description="So many of each are kept; one that a rule keeps is kept.")
class CheckpointRetention:
    last: int = strawberry.field(description="The furthest.", default=3)
    best_by_loss: int = strawberry.field(description="Of the lowest validation loss.", default=1)
    best_by_score: int = strawberry.field(description="Of the highest score.", default=1)


@strawberry.input(description="So many of each are kept; one that a rule keeps is kept.")
class CheckpointRetentionInput:
    last: int = strawberry.field(description="The furthest, 1 to 100.", default=3)
    best_by_loss: int = strawberry.field(
        description="Of the lowest validation loss, 0 to 100.", default=1
    )
    best_by_score: int = strawberry.field(description="Of the highest score, 0 to 100.", default=1)


@strawberry.input(description="Which checkpoint to delete.")
class DeleteCheckpointInput:
    id: strawberry.ID = strawberry.field(description="The checkpoint's id.")


@strawberry.type(description="What came of deleteCheckpoint.")
class DeleteCheckpointPayload:
    deleted_id: strawberry.ID | None = strawberry.field(description="What is gone.", default=None)
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.input(description="Whom to share a checkpoint with.")
class GrantCheckpointPermissionInput:
    checkpoint_id: strawberry.ID = strawberry.field(description="The checkpoint's id.")
    project_ids: list[strawberry.ID] = strawberry.field(description="The projects' ids.")


@strawberry.type(description="What came of grantCheckpointPermission.")
class GrantCheckpointPermissionPayload:
    permissions: list[CheckpointPermission] | None = strawberry.field(
        description="In the order asked for.", default=None
    )
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.input(description="Which permission to take back.")
class RevokeCheckpointPermissionInput:
    id: strawberry.ID = strawberry.field(description="The permission's id.")


@strawberry.type(description="What came of revokeCheckpointPermission.")
class RevokeCheckpointPermissionPayload:
    revoked_id: strawberry.ID | None = strawberry.field(description="What is gone.", default=None)
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.type
class CheckpointMutations:
    @strawberry.mutation(description="Delete a finished job's checkpoint, and its weights.")
    async def delete_checkpoint(
        self, info: Info, input: Annotated[DeleteCheckpointInput, arg("Which checkpoint.")]
    ) -> DeleteCheckpointPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                gone = await checkpoints.delete(session, info.context.actor, str(input.id))
            await checkpoints.remove(info.context.services.settings.data_dir, [gone.path])
            return DeleteCheckpointPayload(deleted_id=strawberry.ID(gone.id))
        return DeleteCheckpointPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Let other projects call and deploy a checkpoint's weights.")
    async def grant_checkpoint_permission(
        self,
        info: Info,
        input: Annotated[GrantCheckpointPermissionInput, arg("What, and to whom.")],
    ) -> GrantCheckpointPermissionPayload:
        with refusing() as refused:
            wanted = [str(id) for id in input.project_ids]
            async with info.context.transaction() as session:
                given = await checkpoints.share(
                    session, info.context.actor, str(input.checkpoint_id), wanted
                )
            return GrantCheckpointPermissionPayload(
                permissions=[CheckpointPermission.of(row) for row in given]
            )
        return GrantCheckpointPermissionPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Take a permission back. From the next call on it is refused.")
    async def revoke_checkpoint_permission(
        self, info: Info, input: Annotated[RevokeCheckpointPermissionInput, arg("Which one.")]
    ) -> RevokeCheckpointPermissionPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                gone = await permissions.revoke(session, info.context.actor, str(input.id))
            return RevokeCheckpointPermissionPayload(revoked_id=strawberry.ID(gone.id))
        return RevokeCheckpointPermissionPayload(user_errors=refused.user_errors)
