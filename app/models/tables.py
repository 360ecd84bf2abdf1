"""Models and deployments."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field, SQLModel

from app.core.columns import big_integer, json_column, one_of, same_tenant
from app.models.states import DeploymentStatus


class Model(SQLModel, table=True):
    """`path` is relative to the data folder; `manifest_sha256` seals what lies there.

    `checkpoint_id` names the checkpoint of the same weights: who may use that one may use this.
    """

    __tablename__ = "models"
    __table_args__ = (
        same_tenant("project_id", "projects"),
        Index("models_by_name", "org_id", "name", unique=True),
        Index("models_by_age", "org_id", "created_at", "id"),
        Index("models_by_checkpoint", "org_id", "checkpoint_id"),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    project_id: str
    name: str
    provider: str
    base_model: str
    job_id: str
    step: int | None = None
    checkpoint_id: str | None = None
    kind: str
    path: str
    manifest_sha256: str
    size_bytes: int = big_integer()
    created_at: datetime
    deleted_at: datetime | None = None


class Deployment(SQLModel, table=True):
    """`endpoint` is its server's URL, or at a provider what its API calls; `remote` is what its
    driver remembers there."""

    __tablename__ = "deployments"
    __table_args__ = (
        same_tenant("project_id", "projects"),
        same_tenant("model_id", "models"),
        one_of("status", DeploymentStatus, "deployments_status"),
        CheckConstraint(
            "requested_action IS NULL OR requested_action = 'undeploy'",
            name="deployments_requested_action",
        ),
        Index("deployments_by_age", "org_id", "created_at", "id"),
        Index(
            "deployments_one_live",
            "org_id",
            "model_id",
            unique=True,
            postgresql_where=text("status NOT IN ('stopped', 'failed')"),
        ),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    project_id: str
    model_id: str
    status: str
    requested_action: str | None = None
    hardware: str | None = None
    endpoint: str | None = None
    remote: dict[str, Any] | None = json_column(nullable=True)
    error: dict[str, Any] | None = json_column(nullable=True)
    created_at: datetime
    ready_at: datetime | None = None
    stopped_at: datetime | None = None


class CheckpointPermission(SQLModel, table=True):
    """A project besides the job's own that may call and deploy a checkpoint's weights."""

    __tablename__ = "checkpoint_permissions"
    __table_args__ = (
        same_tenant("checkpoint_id", "checkpoints"),
        same_tenant("project_id", "projects"),
        Index("checkpoint_permissions_once", "org_id", "checkpoint_id", "project_id", unique=True),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    checkpoint_id: str
    project_id: str
    created_at: datetime
