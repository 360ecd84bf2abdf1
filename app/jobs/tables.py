"""Jobs and their checkpoints."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Column, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from app.core.columns import big_integer, json_column, one_of, same_tenant, text_array
from app.jobs.states import JobStatus


class JobTransition(SQLModel, table=True):
    """The allowed transitions, as the trigger reads them. The same table as `states.table()`."""

    __tablename__ = "job_transitions"

    before: str = Field(primary_key=True)
    after: str = Field(primary_key=True)
    cause: str = Field(primary_key=True)


class Job(SQLModel, table=True):
    """`hyperparameters` is what was asked, `resolved` what "auto" became; `id` is its stream.

    It starts with the weights of the model `start_id`, else with the base model's own.
    `manifest` is the record of the newest attempt: see `app.worker.manifest`. A rerun repeats the
    arithmetic of the job it names in `rerun_of`. `remote` is what its driver remembers of a job at
    a provider: see `app.jobs.remote`. Only jobs that were imported have no training data here.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        same_tenant("project_id", "projects"),
        same_tenant("training_version_id", "dataset_versions"),
        same_tenant("validation_version_id", "dataset_versions"),
        same_tenant("evaluation_version_id", "dataset_versions"),
        one_of("status", JobStatus, "jobs_status"),
        CheckConstraint(
            "requested_action IS NULL OR requested_action IN ('pause', 'resume', 'cancel')",
            name="jobs_requested_action",
        ),
        Index("jobs_by_age", "org_id", "created_at", "id"),
        Index("jobs_by_update", "org_id", "updated_at", "id"),
        Index("jobs_by_name", "org_id", "name", "id"),
        Index("jobs_by_status", "org_id", "status", "created_at", "id"),
        Index("jobs_by_provider_id", "org_id", "provider_job_id"),
        Index("jobs_by_metadata", "metadata", postgresql_using="gin"),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    project_id: str
    owner_id: str
    name: str
    description: str | None = None
    status: str
    requested_action: str | None = None
    provider: str
    provider_job_id: str | None = None
    provider_status: str | None = None
    evidence_source: str | None = None
    evidence_at: datetime | None = None
    base_model: str
    start_id: str | None = None
    method: str
    hyperparameters: dict[str, Any] = json_column()
    resolved: dict[str, Any] | None = json_column(nullable=True)
    grader: dict[str, Any] | None = json_column(nullable=True)
    training_version_id: str | None = None
    validation_version_id: str | None = None
    evaluation: dict[str, Any] | None = json_column(nullable=True)
    evaluation_version_id: str | None = None
    suffix: str | None = None
    seed: int = big_integer()
    labels: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column("metadata", JSONB, nullable=False)
    )
    integrations: list[dict[str, Any]] | None = json_column(nullable=True)
    keep_checkpoints: bool = True
    retention: dict[str, Any] | None = json_column(nullable=True)
    manifest: dict[str, Any] | None = json_column(nullable=True)
    rerun_of: str | None = None
    hardware: str | None = None
    trained_tokens: int | None = big_integer(None)
    estimated_cost: float | None = None
    cost: float | None = None
    error: dict[str, Any] | None = json_column(nullable=True)
    remote: dict[str, Any] | None = json_column(nullable=True)
    model_id: str | None = None
    result_file_ids: list[str] = text_array()
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime
    deleted_at: datetime | None = None


class Checkpoint(SQLModel, table=True):
    """`path` is relative to the data folder, under the attempt's epoch, so that a stale worker's
    folder is never one that is listed here. `provider_model` calls weights that are at a provider;
    then there is nothing at `path`."""

    __tablename__ = "checkpoints"
    __table_args__ = (
        same_tenant("job_id", "jobs"),
        Index("checkpoints_by_step", "org_id", "job_id", "step", unique=True),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    job_id: str
    attempt: int
    step: int
    path: str
    manifest_sha256: str
    size_bytes: int = big_integer()
    metrics: dict[str, Any] = json_column()
    score: float | None = None
    provider_model: str | None = None
    created_at: datetime


class ProviderItem(SQLModel, table=True):
    """One thing that a provider told of a job and that is in its stream: never twice."""

    __tablename__ = "provider_items"
    __table_args__ = (same_tenant("job_id", "jobs"),)

    org_id: str = Field(primary_key=True)
    job_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)


class InboxRow(SQLModel, table=True):
    """A webhook that was received: each once, whatever its outcome."""

    __tablename__ = "webhook_inbox"
    __table_args__ = (
        same_tenant("credential_id", "provider_credentials"),
        one_of("outcome", ("looked_at", "over", "unknown_job", "no_job"), "webhook_inbox_outcome"),
    )

    org_id: str = Field(primary_key=True)
    credential_id: str = Field(primary_key=True)
    webhook_id: str = Field(primary_key=True)
    type: str
    provider_job_id: str | None = None
    body: dict[str, Any] = json_column()
    outcome: str
    received_at: datetime
