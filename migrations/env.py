"""Alembic's entry: runs on the connection that `app.core.migrations` hands over."""

from importlib import import_module

from alembic import context
from sqlmodel import SQLModel

FEATURES = (
    *("events", "accounts", "attempts", "files", "datasets", "catalog", "models", "jobs"),
    "graderruns",
)
for feature in FEATURES:
    import_module(f"app.{feature}.tables")

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    compare_type=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
