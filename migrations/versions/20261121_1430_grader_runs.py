"""Grader runs: samples that wait to be judged.

Revision ID: grader_runs
Revises: cancel
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "grader_runs"
down_revision = "cancel"
branch_labels = None
depends_on = None

TENANT = "(SELECT nullif(current_setting('app.org_id', true), ''))"


def upgrade() -> None:
    op.create_table(
        "grader_runs",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("project_id", AutoString(), nullable=False),
        sa.Column("grader", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("given", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("status", AutoString(), nullable=False),
        sa.Column(
            "result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("finished_at", UTCDateTime(), nullable=True),
        sa.CheckConstraint("status IN ('queued', 'done', 'failed')", name="grader_runs_status"),
        sa.ForeignKeyConstraint(["org_id", "project_id"], ["projects.org_id", "projects.id"]),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.execute("ALTER TABLE grader_runs ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE grader_runs FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY tenant ON grader_runs TO luthier_app, luthier_worker"
        f" USING (org_id = {TENANT}) WITH CHECK (org_id = {TENANT})"
    )
    op.execute("GRANT SELECT, INSERT, DELETE ON grader_runs TO luthier_app")
    op.execute("GRANT SELECT, UPDATE ON grader_runs TO luthier_worker")


def downgrade() -> None:
    op.drop_table("grader_runs")
