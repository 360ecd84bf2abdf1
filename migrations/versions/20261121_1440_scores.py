"""How a job's checkpoints are judged, and on which held-out cases.

Revision ID: scores
Revises: grader_runs
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlmodel.sql.sqltypes import AutoString

revision = "scores"
down_revision = "grader_runs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "evaluation", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
    )
    op.add_column("jobs", sa.Column("evaluation_version_id", AutoString(), nullable=True))
    op.create_foreign_key(
        "jobs_evaluation_version",
        "jobs",
        "dataset_versions",
        ["org_id", "evaluation_version_id"],
        ["org_id", "id"],
    )


def downgrade() -> None:
    op.drop_constraint("jobs_evaluation_version", "jobs", type_="foreignkey")
    op.drop_column("jobs", "evaluation_version_id")
    op.drop_column("jobs", "evaluation")
