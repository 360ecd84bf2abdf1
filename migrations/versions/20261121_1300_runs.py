"""The record of each run, and which run a job repeats.

Revision ID: runs
Revises: the_spine
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlmodel.sql.sqltypes import AutoString

revision = "runs"
down_revision = "the_spine"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "manifest", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
    )
    op.add_column("jobs", sa.Column("rerun_of", AutoString(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "rerun_of")
    op.drop_column("jobs", "manifest")
