"""Going on from an earlier job: which weights a new one starts with."""

from sqlmodel.ext.asyncio.session import AsyncSession

from app.core import ids
from app.core.actor import Actor
from app.core.errors import NotFound
from app.jobs import checkpoints
from app.jobs.errors import HyperparameterInvalid
from app.jobs.tables import Job
from app.models import service as models
from app.models.tables import Model
from app.training.hyperparameters import Hyperparameters


async def start_of(session: AsyncSession, actor: Actor, base_model: str) -> Model | None:
    """The model that a `baseModel` names by its id, or by that of a checkpoint, which becomes a
    model: so it is kept. None when it is the name of a base model."""
    kind = ids.prefix_of(base_model)
    try:
        if kind == ids.CHECKPOINT:
            base_model = (await checkpoints.as_model(session, actor, base_model)).id
        if kind in (ids.CHECKPOINT, ids.MODEL):
            return await models.get_usable(session, actor, base_model)
    except NotFound as missing:
        missing.path = ("baseModel",)
        raise
    return None


async def check_fit(
    session: AsyncSession, start: Model, method: str, asked: Hyperparameters
) -> None:
    """Raises HyperparameterInvalid for an adapter that does not fit the weights to start with."""

    def refuse(name: str, why: str) -> HyperparameterInvalid:
        return HyperparameterInvalid(why, path=("method", method, "hyperparameters", name))

    if start.kind == "full" and asked.adapter == "lora":
        raise refuse(
            "adapter",
            f"All weights of {start.name} were trained, so that an adapter would not fit the base "
            "model any more. Ask for the adapter FULL.",
        )
    made_by = await session.get(Job, (start.org_id, start.job_id))
    rank = ((made_by.resolved if made_by else None) or {}).get("lora_rank")
    if start.kind == "lora" and asked.adapter == "lora" and asked.lora_rank not in ("auto", rank):
        raise refuse(
            "loraRank",
            f"The adapter of {start.name} has the rank {rank}, which cannot be changed. Leave "
            "loraRank out.",
        )
