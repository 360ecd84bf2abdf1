"""What can be done with models: list, deploy, undeploy, delete, and find who answers for a name."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import audit, credentials, idempotency
from app.attempts import queue
from app.attempts.queue import Claim
from app.catalog import service as catalog
from app.catalog.offers import offers
from app.core import clock, ids
from app.core.actor import Actor, Role, Scope
from app.core.paging import Page, PageRequest
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.models import permissions
from app.models.errors import (
    DeploymentNotReady,
    DeploymentTransitionRefused,
    ModelInUse,
    ModelNotDeployed,
    ModelNotFound,
)
from app.models.repository import ModelRepository
from app.models.states import OVER, TRANSITIONS, DeploymentStatus
from app.models.tables import Deployment, Model
from app.providers.registry import capabilities


@dataclass(frozen=True)
class Answering:
    """Who answers for a model's name: our server at the base URL `endpoint`; or a provider, which
    calls it `endpoint`, with the credential of the project."""

    endpoint: str
    provider: str = queue.LOCAL
    project_id: str = ""


async def get(session: AsyncSession, actor: Actor, id: str) -> Model:
    actor.require(Scope.READ)
    return await ModelRepository(session, actor.org_id).get(id)


async def get_usable(session: AsyncSession, actor: Actor, id: str) -> Model:
    """A model that the actor's project may call and deploy."""
    model = await ModelRepository(session, actor.org_id).get(id)
    if not await permissions.may_use(session, actor, model):
        raise ModelNotFound(
            f"There is no model {id[:60]!r} that this key's project may use.", path=("modelId",)
        )
    return model


async def get_many(session: AsyncSession, actor: Actor, wanted: list[str]) -> list[Model]:
    actor.require(Scope.READ)
    return await ModelRepository(session, actor.org_id).by_id(wanted)


async def page(
    session: AsyncSession,
    actor: Actor,
    request: PageRequest,
    *,
    base_model: str | None = None,
    job_id: str | None = None,
    search: str | None = None,
    deployed: bool | None = None,
) -> Page[Model]:
    actor.require(Scope.READ)
    return await ModelRepository(session, actor.org_id).page(
        request, base_model=base_model, job_id=job_id, search=search, deployed=deployed
    )


async def get_deployment(session: AsyncSession, actor: Actor, id: str) -> Deployment:
    actor.require(Scope.READ)
    return await ModelRepository(session, actor.org_id).deployment(id)


async def deployments_of(
    session: AsyncSession, actor: Actor, model_ids: list[str]
) -> list[Deployment]:
    actor.require(Scope.READ)
    return await ModelRepository(session, actor.org_id).deployments_of(model_ids)


async def deployment_page(
    session: AsyncSession,
    actor: Actor,
    request: PageRequest,
    *,
    model_id: str | None = None,
    live: bool | None = None,
) -> Page[Deployment]:
    actor.require(Scope.READ)
    return await ModelRepository(session, actor.org_id).deployment_page(
        request, model_id=model_id, live=live
    )


async def in_use(session: AsyncSession, org_id: str, checkpoint_id: str) -> bool:
    """Whether a model is made of this checkpoint, or a project was given it."""
    found = ModelRepository(session, org_id)
    return bool(await found.of_checkpoint(checkpoint_id) or await found.permissions(checkpoint_id))


def callable_name(base_model: str, org_slug: str, suffix: str | None, id: str) -> str:
    """`ft:<base>:<organization>:<suffix>:<the end of the id>`"""
    return f"ft:{base_model.replace('/', '.')}:{org_slug}:{suffix or ''}:{id[-10:]}"


async def of_checkpoint(session: AsyncSession, actor: Actor, checkpoint_id: str) -> Model | None:
    """The model made of a checkpoint's weights, if one was."""
    actor.require(Scope.READ)
    return await ModelRepository(session, actor.org_id).of_checkpoint(checkpoint_id)


async def register(
    session: AsyncSession,
    *,
    org_id: str,
    org_slug: str,
    project_id: str,
    job_id: str,
    base_model: str,
    suffix: str | None,
    step: int,
    checkpoint_id: str | None = None,
    name: str | None = None,
    provider: str = queue.LOCAL,
    kind: str,
    path: str,
    manifest_sha256: str,
    size_bytes: int,
) -> Model:
    """Record what a job made, under its own name unless another is given."""
    id = ids.new(ids.MODEL)
    model = Model(
        org_id=org_id,
        id=id,
        project_id=project_id,
        name=name or callable_name(base_model, org_slug, suffix, id),
        provider=provider,
        base_model=base_model,
        job_id=job_id,
        step=step,
        checkpoint_id=checkpoint_id,
        kind=kind,
        path=path,
        manifest_sha256=manifest_sha256,
        size_bytes=size_bytes,
        created_at=clock.now(),
    )
    session.add(model)
    await session.flush()
    return model


async def deploy(
    session: AsyncSession,
    actor: Actor,
    model_id: str,
    *,
    hardware: str | None = None,
    idempotency_key: str | None = None,
) -> Deployment:
    """Record the wish to make a model callable; a worker carries it out.

    A model has at most one live deployment: asking again gives that one.
    """
    actor.require(Scope.WRITE, Role.ADMIN)
    models = ModelRepository(session, actor.org_id)
    model = await get_usable(session, actor, model_id)
    labels = [queue.PROVIDER]
    if model.provider == queue.LOCAL:
        labels = [queue.LOCAL, *await catalog.labels_for(session, actor, hardware)]
    id = ids.new(ids.DEPLOYMENT)
    asked = {"modelId": model_id, "hardware": hardware}
    made = await idempotency.remember(session, actor, idempotency_key, "deployModel", asked, id)
    if made is not None:
        return await models.deployment(made)
    if live := await models.live_deployment(model_id):
        return live
    deployment = Deployment(
        org_id=actor.org_id,
        id=id,
        project_id=actor.project_id,
        model_id=model_id,
        status=DeploymentStatus.PENDING.value,
        hardware=hardware,
        created_at=clock.now(),
    )
    session.add(deployment)
    await session.flush()
    await log.open_stream(session, actor.org_id, id)
    await queue.open_attempt(session, actor.org_id, id, labels)
    audit.record(session, actor, "model.deployed", model_id, after={"deployment": id})
    await _announce(session, deployment, None, None)
    return deployment


async def undeploy(session: AsyncSession, actor: Actor, id: str) -> Deployment:
    """Take a deployment down: at once when nobody runs it, else by the worker that does."""
    actor.require(Scope.WRITE, Role.ADMIN)
    deployment = await ModelRepository(session, actor.org_id).deployment(id, lock=True)
    if deployment.status in OVER:
        return deployment
    attempt = await queue.current(session, actor.org_id, id)
    audit.record(session, actor, "model.undeployed", deployment.model_id, before={"deployment": id})
    # What may be at a provider is taken down by who drives it there, even if nobody does now.
    idle = attempt is None or not await queue.held(session, attempt)
    if idle and deployment.remote is None:
        if attempt:
            queue.finish(attempt, "undeployed")
        await log.fence(session, id)
        await transition(session, deployment, DeploymentStatus.STOPPED)
    elif deployment.requested_action is None:
        deployment.requested_action = "undeploy"
        if deployment.remote is not None:
            await queue.nudge(session, actor.org_id, [id], "wish")
        await log.append(session, id, [NewEvent(EventType.MESSAGE, {"message": "undeploying"})])
    return deployment


async def delete(session: AsyncSession, actor: Actor, id: str) -> Model:
    """Hide a model for ever. Its deployments must be over."""
    actor.require(Scope.WRITE, Role.OWNER)
    models = ModelRepository(session, actor.org_id)
    model = await models.get(id)
    if live := await models.live_deployment(id):
        raise ModelInUse(f"The model is deployed as {live.id}. Undeploy it first.", path=("id",))
    model.deleted_at = clock.now()
    audit.record(session, actor, "model.deleted", id, before={"name": model.name})
    return model


async def answering(session: AsyncSession, actor: Actor, name: str) -> Answering:
    """Who answers for this name: a deployed model, or a base model that a deployment sits on."""
    actor.require(Scope.INFERENCE)
    models = ModelRepository(session, actor.org_id)
    model = await models.by_name(name)
    if model is None or not await permissions.may_use(session, actor, model):
        if provider := await _offered(session, actor, name):
            return Answering(name, provider, actor.project_id)
        base = await models.ready_on_base(name, actor.project_id)
        if base is None or base.endpoint is None:
            raise ModelNotFound(
                f"There is no model {name[:120]!r} that this key may call. A fine-tuned model is "
                "called by its `ft:…` name, a base model by its own while one of its fine-tunes "
                "is deployed.",
                path=("model",),
            )
        return Answering(base.endpoint)
    deployment = await models.live_deployment(model.id)
    if deployment is None and _automatic(model.provider):
        return Answering(model.name, model.provider, model.project_id)
    if deployment is None:
        raise ModelNotDeployed(
            f"The model {name[:120]!r} is not deployed. Call deployModel first.", path=("model",)
        )
    if deployment.status != DeploymentStatus.READY or deployment.endpoint is None:
        raise DeploymentNotReady(
            f"The deployment of this model is {deployment.status}. Try again in a moment.",
            path=("model",),
        )
    return Answering(deployment.endpoint, model.provider, model.project_id)


def _automatic(provider: str) -> bool:
    """Whether a finished model can be called without a deployment."""
    return provider != queue.LOCAL and capabilities(provider).deployment == "automatic"


async def _offered(session: AsyncSession, actor: Actor, name: str) -> str | None:
    """The provider that offers a base model of this name and answers for it, if the project has
    its credential."""
    for provider, offer in offers():
        if (
            offer.name == name
            and _automatic(provider)
            and await credentials.of_project(session, actor.org_id, actor.project_id, provider)
        ):
            return provider
    return None


async def require_callable(
    session: AsyncSession, actor: Actor, names: Iterable[str], path: tuple[str, ...]
) -> None:
    """That graders could ask these models. Raises ModelNotFound and ModelNotDeployed, about the
    input field `path`. One that is being deployed may well be ready when it is asked."""
    for name in sorted(names):
        try:
            await answering(session, actor, name)
        except DeploymentNotReady:
            pass
        except (ModelNotFound, ModelNotDeployed) as refused:
            refused.path = path
            raise


async def served(session: AsyncSession, claim: Claim) -> tuple[Deployment, Model]:
    """A claimed deployment, locked, and its model."""
    models = ModelRepository(session, claim.org_id)
    deployment = await models.deployment(claim.subject_id, lock=True)
    return deployment, await session.get_one(Model, (claim.org_id, deployment.model_id))


async def transition(
    session: AsyncSession,
    deployment: Deployment,
    status: DeploymentStatus,
    *,
    epoch: int | None = None,
    endpoint: str | None = None,
    error: dict[str, Any] | None = None,
) -> None:
    """The only way a deployment's status changes: with its event, under the fence."""
    before = DeploymentStatus(deployment.status)
    if status not in TRANSITIONS[before]:
        raise DeploymentTransitionRefused(
            f"A deployment cannot go from {before} to {status}.", before=before, after=status
        )
    deployment.status = status.value
    deployment.endpoint = endpoint
    deployment.error = error
    if status is DeploymentStatus.READY:
        deployment.ready_at = clock.now()
    if status in OVER:
        deployment.stopped_at = clock.now()
        deployment.requested_action = None
    session.add(deployment)
    await session.flush()
    await _announce(session, deployment, before, epoch)


async def _announce(
    session: AsyncSession,
    deployment: Deployment,
    before: DeploymentStatus | None,
    epoch: int | None,
) -> None:
    event = NewEvent(
        EventType.DEPLOYMENT_STATUS,
        {
            "deploymentId": deployment.id,
            "modelId": deployment.model_id,
            "before": before,
            "after": deployment.status,
            "error": deployment.error,
        },
    )
    await log.append(session, deployment.id, [event], epoch=epoch)
    await log.append(session, deployment.org_id, [event])
