"""Doing a job again, exactly: same bytes, same numbers, same seed, same arithmetic."""

from dataclasses import replace
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.actor import Actor, Role, Scope
from app.jobs.errors import JobInputInvalid, JobStillLive
from app.jobs.repository import JobRepository
from app.jobs.states import TERMINAL
from app.jobs.submission import Submission
from app.jobs.tables import Job


async def submission_of(
    session: AsyncSession, actor: Actor, id: str, name: str | None, idempotency_key: str | None
) -> Submission:
    """What to submit to repeat a finished job. What "auto" became then is written out, so that
    a newer version that would choose otherwise does not."""
    actor.require(Scope.WRITE, Role.ADMIN)
    job = await JobRepository(session, actor.org_id).get(id)
    if job.status not in TERMINAL:
        raise JobStillLive(
            f"The job is {job.status}; only a finished job can be run again. Wait for it, or "
            "cancel it.",
            path=("id",),
        )
    if job.training_version_id is None:
        raise JobInputInvalid("The job was imported: its data is not here.", path=("id",))
    again = Submission(
        base_model=job.start_id or job.base_model,
        provider=job.provider if job.start_id is None else None,
        training_version_id=job.training_version_id,
        validation_version_id=job.validation_version_id,
        method=job.method,
        hyperparameters=settled(job),
        grader=job.grader,
        evaluation=job.evaluation,
        evaluation_version_id=job.evaluation_version_id,
        name=name or f"{job.name} again",
        description=job.description,
        suffix=job.suffix,
        seed=job.seed,
        metadata={str(key): str(value) for key, value in job.labels.items()},
        hardware=job.hardware,
        retention=job.retention,
        integrations=job.integrations or [],
        idempotency_key=idempotency_key,
    )
    return replace(again, rerun_of=job.id)


def settled(job: Job) -> dict[str, Any]:
    """The hyperparameters as asked, with the numbers that "auto" became, where it came to that."""
    resolved = job.resolved or {}
    found = {
        name: resolved.get(name, value) if value == "auto" else value
        for name, value in job.hyperparameters.items()
    }
    if found.get("learning_rate") != "auto":  # one scales the other: both at once are refused
        found["learning_rate_multiplier"] = "auto"
    if found.get("adapter") == "full":
        found["lora_rank"] = "auto"
    return found
