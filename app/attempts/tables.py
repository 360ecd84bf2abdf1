"""The queue's one table."""

from datetime import datetime

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from app.core.columns import text_array


class Attempt(SQLModel, table=True):
    """One start of a job's or a deployment's work. `subject_id` is also the stream it writes to.

    Claimable when `due_at` has come, it is not finished and no lease lives, whatever the subject's
    status. At most one attempt of a subject is unfinished. `labels` are what its worker must carry:
    `local` among them for work on our machines, `provider` for work at a provider. `nudged` says
    what came in the meantime that makes it due at once.
    """

    __tablename__ = "attempts"
    __table_args__ = (
        Index("attempts_claimable", "due_at", "id", postgresql_where=text("finished_at IS NULL")),
        Index(
            "attempts_one_open",
            "org_id",
            "subject_id",
            unique=True,
            postgresql_where=text("finished_at IS NULL"),
        ),
        Index("attempts_by_subject", "org_id", "subject_id", "number", unique=True),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    subject_id: str
    number: int
    labels: list[str] = text_array()
    due_at: datetime
    lease_until: datetime | None = None
    worker_id: str | None = None
    epoch: int | None = None
    from_step: int | None = None
    outcome: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    nudged: str | None = None
