"""The model whose weights a job starts with.

Revision ID: starts
Revises: methods
"""

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "starts"
down_revision = "methods"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("start_id", AutoString(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "start_id")
