"""Workers, as they report themselves. No tenant's data: every organization sees the hardware."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from app.core.columns import json_column, text_array


class Worker(SQLModel, table=True):
    __tablename__ = "workers"

    id: str = Field(primary_key=True)
    host: str
    labels: list[str] = text_array()
    hardware: dict[str, Any] = json_column()
    started_at: datetime
    last_seen_at: datetime
