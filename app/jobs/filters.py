"""Which jobs, and in which order."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import SQLModel, cast, or_

from app.jobs.states import JobStatus
from app.jobs.tables import Job

# The table, not the class: a query of columns alone is spared the machinery of objects.
JOBS = SQLModel.metadata.tables[str(Job.__tablename__)]


@dataclass(frozen=True)
class JobFilter:
    """Every condition given must hold; a list holds when one of its values does."""

    status: list[JobStatus] | None = None
    provider: list[str] | None = None
    base_model: str | None = None
    method: str | None = None
    search: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    dataset_version_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    owner_id: str | None = None

    def conditions(self) -> list[Any]:
        found: list[Any] = []
        if self.status is not None:
            found.append(JOBS.c.status.in_([status.value for status in self.status]))
        if self.provider is not None:
            found.append(JOBS.c.provider.in_(self.provider))
        if self.base_model is not None:
            found.append(JOBS.c.base_model == self.base_model)
        if self.method is not None:
            found.append(JOBS.c.method == self.method)
        if self.search:
            found.append(
                or_(
                    JOBS.c.name.icontains(self.search, autoescape=True),
                    JOBS.c.description.icontains(self.search, autoescape=True),
                )
            )
        if self.metadata:
            found.append(JOBS.c.metadata.op("@>")(cast(self.metadata, JSONB)))
        if self.dataset_version_id is not None:
            found.append(
                or_(
                    JOBS.c.training_version_id == self.dataset_version_id,
                    JOBS.c.validation_version_id == self.dataset_version_id,
                )
            )
        if self.created_after is not None:
            found.append(JOBS.c.created_at > self.created_after)
        if self.created_before is not None:
            found.append(JOBS.c.created_at < self.created_before)
        if self.owner_id is not None:
            found.append(JOBS.c.owner_id == self.owner_id)
        return found

    def accepts(self, job: Job) -> bool:
        """The same judgement on a row in hand."""
        version = self.dataset_version_id
        needle = (self.search or "").lower()
        return (
            (self.status is None or job.status in self.status)
            and (self.provider is None or job.provider in self.provider)
            and self.base_model in (None, job.base_model)
            and self.method in (None, job.method)
            and (needle in job.name.lower() or needle in (job.description or "").lower())
            and all(job.labels.get(key) == value for key, value in self.metadata.items())
            and version in (None, job.training_version_id, job.validation_version_id)
            and (self.created_after is None or job.created_at > self.created_after)
            and (self.created_before is None or job.created_at < self.created_before)
            and self.owner_id in (None, job.owner_id)
        )


class JobOrder(StrEnum):
    CREATED_AT_DESC = "created_at desc"
    CREATED_AT_ASC = "created_at asc"
    UPDATED_AT_DESC = "updated_at desc"
    UPDATED_AT_ASC = "updated_at asc"
    NAME_ASC = "name asc"
    NAME_DESC = "name desc"
