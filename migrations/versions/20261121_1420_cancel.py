"""Whether a cancelled job keeps its checkpoints.

Revision ID: cancel
Revises: starts
"""

import sqlalchemy as sa
from alembic import op

revision = "cancel"
down_revision = "starts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column("keep_checkpoints", sa.Boolean(), nullable=False, server_default=sa.true()),
    )
    op.alter_column("jobs", "keep_checkpoints", server_default=None)


def downgrade() -> None:
    op.drop_column("jobs", "keep_checkpoints")
