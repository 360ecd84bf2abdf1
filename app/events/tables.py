"""Streams and their events."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Index, text
from sqlmodel import Field, SQLModel

from app.core.columns import big_integer, json_column


class Stream(SQLModel, table=True):
    """One stream's head. Append, fence and numbering are one UPDATE of this row.

    `epoch` is the fencing token, raised by each claim; `latest` is the newest progress and metric
    values, kept here because every append writes this row anyway.
    """

    __tablename__ = "streams"

    stream_id: str = Field(primary_key=True)
    org_id: str
    last_seq: int = big_integer()
    epoch: int = 0
    latest: dict[str, Any] | None = json_column(nullable=True)


class Event(SQLModel, table=True):
    """One row of a stream. A metric point is one row per step with all its values."""

    __tablename__ = "events"
    __table_args__ = (
        Index("events_by_step", "stream_id", "step", postgresql_where=text("type = 'metrics'")),
    )

    stream_id: str = Field(primary_key=True)
    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    org_id: str
    attempt: int | None = None
    type: str
    step: int | None = None
    at: datetime
    data: dict[str, Any] = json_column()
