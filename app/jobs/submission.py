"""Submitting a job: check everything, price it, record it, queue it."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import audit, idempotency
from app.attempts import queue
from app.catalog import service as catalog
from app.catalog.base_models import LOCAL, BaseModel, BaseModels
from app.catalog.offers import offer_of
from app.core import clock, ids
from app.core.actor import Actor, Role, Scope
from app.datasets import service as datasets
from app.datasets.tables import DatasetVersion
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.graders import spec
from app.jobs import elsewhere, evaluation, integrations, methods, remote, starts
from app.jobs.errors import JobInputInvalid, MetadataTooLarge
from app.jobs.estimates import Estimate, Size, estimate
from app.jobs.repository import JobRepository
from app.jobs.retention import Retention
from app.jobs.states import Cause, JobStatus
from app.jobs.tables import Job
from app.jobs.transition import announce
from app.models import service as models
from app.models.tables import Model
from app.providers.errors import Unsupported
from app.training.hyperparameters import Hyperparameters

METADATA_PAIRS, METADATA_KEY, METADATA_VALUE = 16, 64, 512
LONGEST_SUFFIX = 64
_LINES_SHOWN = 5
_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Submission:
    """What a customer asks for. `hyperparameters` are the method's, "auto" where left out."""

    base_model: str
    training_version_id: str
    validation_version_id: str | None = None
    method: str = "supervised"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    grader: Any = None
    evaluation: dict[str, Any] | None = None
    evaluation_version_id: str | None = None
    name: str | None = None
    description: str | None = None
    suffix: str | None = None
    seed: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    hardware: str | None = None
    rerun_of: str | None = None
    provider: str | None = None
    retention: dict[str, Any] | None = None
    integrations: list[dict[str, Any]] = field(default_factory=list)
    idempotency_key: str | None = None


@dataclass(frozen=True)
class Checked:
    """A submission that would be accepted, and what it is estimated to take."""

    submission: Submission
    base_model: BaseModel
    start: Model | None
    hyperparameters: Hyperparameters
    training: DatasetVersion
    validation: DatasetVersion | None
    evaluation: DatasetVersion | None
    estimate: Estimate
    warnings: list[str]


async def check(
    session: AsyncSession,
    actor: Actor,
    base_models: BaseModels,
    hourly_cost: float,
    asked: Submission,
    overlapping: Sequence[int] = (),
    noticed: Sequence[str] = (),
) -> Checked:
    """Everything `submit` would refuse, refused without creating anything. `overlapping` are lines
    of the validation data that are in the training data too, `noticed` further warnings."""
    actor.require(Scope.WRITE, Role.ADMIN)
    start = await starts.start_of(session, actor, asked.base_model)
    name = start.base_model if start else asked.base_model
    place = await elsewhere.place_of(session, actor, base_models, asked.provider, name, start)
    hyperparameters = methods.hyperparameters(asked.method, asked.hyperparameters)
    if place == LOCAL:
        base_model = base_models.get(name)
    else:
        base_model = elsewhere.as_base_model(place, name, offer_of(place, name))
        noticed = [*noticed, *await _check_elsewhere(session, actor, asked, place, name)]
    if start and place == LOCAL:
        await starts.check_fit(session, start, asked.method, hyperparameters)
    for path, grader in evaluation.graders(asked.method, asked.grader, asked.evaluation):
        if place == LOCAL:  # a provider has models of its own to judge with
            await models.require_callable(session, actor, spec.models(grader), path)
    _check_words(asked)
    integrations.check(asked.integrations)
    training = await datasets.get_version(session, actor, asked.training_version_id)
    validation = None
    if asked.validation_version_id is not None:
        validation = await datasets.get_version(session, actor, asked.validation_version_id)
    methods.check_formats(asked.method, training, validation)
    judged_on = None
    if asked.evaluation is not None and asked.evaluation_version_id is not None:
        judged_on = await datasets.get_version(session, actor, asked.evaluation_version_id)
        evaluation.check_format(judged_on)
    if place == LOCAL:
        await catalog.labels_for(session, actor, asked.hardware)
        cost = await estimate(
            session, base_model, hyperparameters, Size.of(training), hourly_cost, asked.hardware
        )
    else:
        cost = await elsewhere.estimate(session, place, name, hyperparameters, Size.of(training))
    warnings = list(training.report.get("warnings", []))
    if validation is None:
        if hyperparameters.early_stopping:
            raise JobInputInvalid(
                "Early stopping looks at the validation data: give some, or leave it out.",
                path=("validationData",),
            )
        warnings.append("No validation data: the job cannot show whether it overfits.")
    elif validation.sha256 == training.sha256:
        raise JobInputInvalid(
            "Training and validation data are the same. Hold some cases out.",
            path=("validationData",),
        )
    if overlapping:
        warnings.append(_overlap_warning(overlapping))
    warnings += noticed
    return Checked(
        asked,
        base_model,
        start,
        hyperparameters,
        training,
        validation,
        judged_on,
        cost,
        warnings,
    )


async def submit(session: AsyncSession, actor: Actor, checked: Checked) -> Job:
    """Record the job and queue its first attempt. The same idempotency key gives the same job."""
    asked, now = checked.submission, clock.now()
    id = ids.new(ids.JOB)
    digest = {key: value for key, value in vars(asked).items() if key not in ("idempotency_key",)}
    made = await idempotency.remember(
        session, actor, asked.idempotency_key, "submitJob", digest, id
    )
    if made is not None:
        return await JobRepository(session, actor.org_id).get(made)
    job = Job(
        org_id=actor.org_id,
        id=id,
        project_id=actor.project_id,
        owner_id=actor.member_id,
        name=(asked.name or "").strip() or f"{asked.suffix or checked.base_model.name} {id[-6:]}",
        description=asked.description,
        status=JobStatus.PENDING.value,
        provider=checked.base_model.provider,
        base_model=checked.base_model.name,
        start_id=checked.start.id if checked.start else None,
        method=asked.method,
        hyperparameters=elsewhere.told(checked.base_model.provider, checked.hyperparameters),
        grader=asked.grader,
        training_version_id=checked.training.id,
        validation_version_id=checked.validation.id if checked.validation else None,
        evaluation=asked.evaluation,
        evaluation_version_id=checked.evaluation.id if checked.evaluation else None,
        suffix=asked.suffix,
        seed=asked.seed if asked.seed is not None else secrets.randbelow(2**31),
        labels=asked.metadata,
        hardware=asked.hardware,
        rerun_of=asked.rerun_of,
        retention=asked.retention,
        integrations=integrations.check(asked.integrations) or None,
        estimated_cost=checked.estimate.cost,
        created_at=now,
        updated_at=now,
    )
    session.add(job)
    await session.flush()
    if checked.start is not None and remote.is_remote(job):
        remote.start_from(job, checked.start.name)
    await queue.open_attempt(session, actor.org_id, id, remote.labels_of(job))
    await log.open_stream(session, actor.org_id, id)
    audit.record(
        session,
        actor,
        "job.submitted",
        id,
        after={
            "name": job.name,
            "provider": job.provider,
            "baseModel": job.base_model,
            "startsFrom": job.start_id,
            "method": job.method,
            "hyperparameters": job.hyperparameters,
            "seed": job.seed,
            "rerunOf": job.rerun_of,
            "trainingVersion": checked.training.id,
            "evaluationVersion": checked.evaluation.id if checked.evaluation else None,
            "cases": checked.training.case_count,
            "sha256": checked.training.sha256,
            "snapshot": checked.training.description,
        },
    )
    warnings = [
        NewEvent(EventType.MESSAGE, {"level": "warn", "message": warning})
        for warning in checked.warnings
    ]
    if warnings:
        await log.append(session, id, warnings)
    await announce(session, job, None, Cause.EVIDENCE)
    return job


async def _check_elsewhere(
    session: AsyncSession, actor: Actor, asked: Submission, place: str, base_model: str
) -> list[str]:
    """What only our own workers do is refused; returns warnings."""
    ours = {
        "evaluation": asked.evaluation,
        "hardware": asked.hardware,
        "integrations": asked.integrations,
        "checkpointRetention": asked.retention,
    }
    for field_name, given in ours.items():
        if given:
            raise Unsupported(
                f"{field_name} is for jobs on our own workers; {place} does not know it.",
                path=(field_name,),
            )
    elsewhere.check_fit(
        place,
        base_model,
        asked.method,
        {name: value for name, value in asked.hyperparameters.items() if value != "auto"},
        asked.suffix,
        validation=asked.validation_version_id is not None,
    )
    return await elsewhere.check_account(session, actor, place, base_model)


def _overlap_warning(lines: Sequence[int]) -> str:
    cases, are = ("case", "is") if len(lines) == 1 else ("cases", "are")
    shown = ", ".join(map(str, lines[:_LINES_SHOWN]))
    more = ", …" if len(lines) > _LINES_SHOWN else ""
    return (
        f"{len(lines)} validation {cases} {are} in the training data too (of the validation data, "
        f"line {shown}{more}), so the validation loss looks better than it is."
    )


def _check_words(asked: Submission) -> None:
    if asked.name is not None and len(asked.name) > 200:
        raise JobInputInvalid("A job's name has at most 200 characters.", path=("name",))
    if asked.description is not None and len(asked.description) > 4_000:
        raise JobInputInvalid("A description has at most 4000 characters.", path=("description",))
    if asked.suffix is not None and (
        len(asked.suffix) > LONGEST_SUFFIX or not _SUFFIX.fullmatch(asked.suffix)
    ):
        raise JobInputInvalid(
            f"A suffix has 1 to {LONGEST_SUFFIX} letters, digits, '.', '_' or '-', and begins "
            "with a letter or digit.",
            path=("suffix",),
        )
    if asked.seed is not None and not 0 <= asked.seed < 2**32:
        raise JobInputInvalid("A seed lies between 0 and 4294967295.", path=("seed",))
    if asked.retention is not None:
        try:
            Retention.model_validate(asked.retention)
        except ValidationError as wrong:
            first = wrong.errors()[0]
            raise JobInputInvalid(
                f"{methods.camel(str(first['loc'][0]))}: {first['msg']}, got {first['input']!r}.",
                path=("checkpointRetention", methods.camel(str(first["loc"][0]))),
            ) from wrong
    if len(asked.metadata) > METADATA_PAIRS:
        raise MetadataTooLarge(
            f"Metadata holds at most {METADATA_PAIRS} pairs.",
            limit=METADATA_PAIRS,
            path=("metadata",),
        )
    for key, value in asked.metadata.items():
        if not 1 <= len(key) <= METADATA_KEY or len(value) > METADATA_VALUE:
            raise MetadataTooLarge(
                f"The metadata pair {key[:20]!r} is too long: keys have 1 to {METADATA_KEY} "
                f"characters, values at most {METADATA_VALUE}.",
                limit=METADATA_VALUE,
                path=("metadata", key[:METADATA_KEY]),
            )
