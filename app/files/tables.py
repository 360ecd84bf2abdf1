"""Files, and the bytes they share."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from app.core.columns import big_integer, same_tenant


class Blob(SQLModel, table=True):
    """One content of one organization. Removed with its last file."""

    __tablename__ = "blobs"

    org_id: str = Field(primary_key=True, foreign_key="organizations.id")
    sha256: str = Field(primary_key=True)
    size: int = big_integer()
    references: int = 0


class File(SQLModel, table=True):
    __tablename__ = "files"
    __table_args__ = (
        same_tenant("project_id", "projects"),
        Index("files_by_age", "org_id", "created_at", "id"),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    project_id: str
    filename: str
    purpose: str
    sha256: str
    size: int = big_integer()
    created_at: datetime
