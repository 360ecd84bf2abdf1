"""What can be done with a checkpoint: use it as a model, share it, fetch its weights, delete it."""

import asyncio
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import audit
from app.accounts.tables import Organization
from app.core import ids
from app.core.actor import Actor, Role, Scope
from app.jobs import remote, retention
from app.jobs.errors import CheckpointInUse
from app.jobs.repository import JobRepository
from app.jobs.states import TERMINAL, JobStatus
from app.jobs.tables import Checkpoint, Job
from app.models import permissions
from app.models import service as models
from app.models.tables import CheckpointPermission, Model
from app.providers.errors import Unsupported


@dataclass(frozen=True)
class Weights:
    """Where the weights of a model or checkpoint lie, relative to the data folder."""

    path: str
    filename: str


async def get(session: AsyncSession, actor: Actor, id: str) -> Checkpoint:
    actor.require(Scope.READ)
    return await JobRepository(session, actor.org_id).checkpoint(id)


async def best_of(session: AsyncSession, actor: Actor, job_id: str) -> Checkpoint | None:
    """By score where there are scores, else by validation loss, else the furthest."""
    actor.require(Scope.READ)
    return retention.best(await JobRepository(session, actor.org_id).checkpoints(job_id))


async def model_name(session: AsyncSession, checkpoint: Checkpoint) -> str:
    """The name it can be called by, once it is deployed."""
    job = await session.get_one(Job, (checkpoint.org_id, checkpoint.job_id))
    return await _name(session, job, checkpoint)


async def as_model(session: AsyncSession, actor: Actor, id: str) -> Model:
    """The model made of a checkpoint's weights; made now if there is none yet."""
    actor.require(Scope.WRITE, Role.ADMIN)
    repository = JobRepository(session, actor.org_id)
    checkpoint = await repository.checkpoint(id, lock=True)
    if known := await models.of_checkpoint(session, actor, id):
        return known
    job = await repository.get(checkpoint.job_id)
    if remote.is_remote(job) and checkpoint.provider_model is None:
        raise Unsupported(
            f"{job.provider} does not let this checkpoint be used as a model.", path=("id",)
        )
    return await models.register(
        session,
        org_id=job.org_id,
        org_slug="",
        project_id=job.project_id,
        job_id=job.id,
        base_model=job.base_model,
        suffix=job.suffix,
        step=checkpoint.step,
        checkpoint_id=checkpoint.id,
        name=await _name(session, job, checkpoint),
        provider=job.provider,
        kind=(
            "provider"
            if remote.is_remote(job)
            else str((job.resolved or {}).get("adapter", "lora"))
        ),
        path=checkpoint.path,
        manifest_sha256=checkpoint.manifest_sha256,
        size_bytes=checkpoint.size_bytes,
    )


async def share(
    session: AsyncSession, actor: Actor, id: str, project_ids: Sequence[str]
) -> list[CheckpointPermission]:
    """Let other projects call and deploy it."""
    await JobRepository(session, actor.org_id).checkpoint(id, lock=True)
    return await permissions.grant(session, actor, id, project_ids)


async def delete(session: AsyncSession, actor: Actor, id: str) -> Checkpoint:
    """Forget a finished job's checkpoint. Call `remove` once that is committed."""
    actor.require(Scope.WRITE, Role.OWNER)
    repository = JobRepository(session, actor.org_id)
    checkpoint = await repository.checkpoint(id, lock=True)
    job = await repository.get(checkpoint.job_id)
    if job.status not in TERMINAL:
        raise CheckpointInUse(
            f"The job is {job.status} and may go on from this checkpoint. Cancel it first.",
            path=("id",),
        )
    model = await models.of_checkpoint(session, actor, id)
    if model is not None and model.path == checkpoint.path:
        raise CheckpointInUse(
            f"The model {model.name} is made of it. Delete that first.", path=("id",)
        )
    if await permissions.of(session, actor, id):
        raise CheckpointInUse("Projects share it. Revoke their permissions first.", path=("id",))
    if model is not None:  # the job's own result: the same weights in another folder
        model.checkpoint_id = None
        session.add(model)
    await session.delete(checkpoint)
    audit.record(session, actor, "checkpoint.deleted", id, before={"step": checkpoint.step})
    return checkpoint


async def discard(session: AsyncSession, job: Job) -> list[str]:
    """Forget the checkpoints of a job that was cancelled without keeping them, but for those that a
    model or another project uses. Returns the folders to remove after the commit."""
    if job.status != JobStatus.CANCELLED or job.keep_checkpoints:
        return []
    gone = []
    for checkpoint in await JobRepository(session, job.org_id).checkpoints(job.id):
        if not await models.in_use(session, job.org_id, checkpoint.id):
            await session.delete(checkpoint)
            gone.append(checkpoint.path)
    return gone


async def remove(data_dir: Path, folders: Iterable[str]) -> None:
    """Free the disk, once the rows are gone for good."""
    for path in folders:
        await asyncio.to_thread(shutil.rmtree, data_dir / path, ignore_errors=True)


async def weights(session: AsyncSession, actor: Actor, id: str) -> Weights:
    """Of a model or a checkpoint, by its id. Only for a project that may use it."""
    actor.require(Scope.READ)
    if ids.prefix_of(id) == ids.CHECKPOINT:
        repository = JobRepository(session, actor.org_id)
        checkpoint = await repository.checkpoint(id)
        job = await repository.get(checkpoint.job_id)
        if not await permissions.may_use_checkpoint(session, actor, job.project_id, id):
            raise repository.no_checkpoint(id)
        return Weights(checkpoint.path, f"{job.id}-step-{checkpoint.step}.tar")
    model = await models.get_usable(session, actor, id)
    return Weights(model.path, f"{model.name.replace(':', '_')}.tar")


async def _name(session: AsyncSession, job: Job, checkpoint: Checkpoint) -> str:
    if checkpoint.provider_model is not None:
        return checkpoint.provider_model
    organization = await session.get_one(Organization, job.org_id)
    name = models.callable_name(job.base_model, organization.slug, job.suffix, checkpoint.id)
    return f"{name}:ckpt-step-{checkpoint.step}"
