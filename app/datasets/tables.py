"""Datasets and their immutable versions."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from app.core.columns import json_column, same_tenant


class Dataset(SQLModel, table=True):
    __tablename__ = "datasets"
    __table_args__ = (
        same_tenant("project_id", "projects"),
        Index("datasets_by_age", "org_id", "created_at", "id"),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    project_id: str
    name: str
    description: str | None = None
    created_at: datetime


class DatasetVersion(SQLModel, table=True):
    """Never updated: no role of the service may."""

    __tablename__ = "dataset_versions"
    __table_args__ = (
        same_tenant("dataset_id", "datasets"),
        same_tenant("file_id", "files"),
        Index("dataset_versions_by_number", "org_id", "dataset_id", "number", unique=True),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    dataset_id: str
    number: int
    description: str | None = None
    file_id: str
    sha256: str
    format: str
    case_count: int
    report: dict[str, Any] = json_column()
    created_at: datetime
