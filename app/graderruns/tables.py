"""Grader runs."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import Field, SQLModel

from app.core.columns import json_column, one_of, same_tenant


class RunStatus(StrEnum):
    QUEUED = "queued"
    DONE = "done"
    FAILED = "failed"


class GraderRun(SQLModel, table=True):
    """`given` is the case: an item and a sample. `seconds` is what grading may take.

    The row is deleted with its answer: what customers tried is nobody's to keep.
    """

    __tablename__ = "grader_runs"
    __table_args__ = (
        same_tenant("project_id", "projects"),
        one_of("status", RunStatus, "grader_runs_status"),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    project_id: str
    grader: dict[str, Any] = json_column()
    given: dict[str, Any] = json_column()
    seconds: float
    status: str
    result: dict[str, Any] | None = json_column(nullable=True)
    created_at: datetime
    finished_at: datetime | None = None
