"""Checkpoints as models: their scores, which are kept, and who may use them.

Revision ID: checkpoints
Revises: runs
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "checkpoints"
down_revision = "runs"
branch_labels = None
depends_on = None

TENANT = "(SELECT nullif(current_setting('app.org_id', true), ''))"


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "retention", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
    )
    op.add_column("checkpoints", sa.Column("score", sa.Float(), nullable=True))
    op.add_column("models", sa.Column("checkpoint_id", AutoString(), nullable=True))
    op.create_index("models_by_checkpoint", "models", ["org_id", "checkpoint_id"])
    op.execute("GRANT INSERT ON models TO luthier_app")
    op.execute("GRANT UPDATE ON checkpoints TO luthier_app")  # to lock one
    op.create_table(
        "checkpoint_permissions",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("checkpoint_id", AutoString(), nullable=False),
        sa.Column("project_id", AutoString(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "checkpoint_id"], ["checkpoints.org_id", "checkpoints.id"]
        ),
        sa.ForeignKeyConstraint(["org_id", "project_id"], ["projects.org_id", "projects.id"]),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_index(
        "checkpoint_permissions_once",
        "checkpoint_permissions",
        ["org_id", "checkpoint_id", "project_id"],
        unique=True,
    )
    op.execute("ALTER TABLE checkpoint_permissions ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE checkpoint_permissions FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY tenant ON checkpoint_permissions TO luthier_app, luthier_worker"
        f" USING (org_id = {TENANT}) WITH CHECK (org_id = {TENANT})"
    )
    op.execute("GRANT SELECT, INSERT, DELETE ON checkpoint_permissions TO luthier_app")
    op.execute("GRANT SELECT ON checkpoint_permissions TO luthier_worker")


def downgrade() -> None:
    op.drop_table("checkpoint_permissions")
    op.execute("REVOKE UPDATE ON checkpoints FROM luthier_app")
    op.execute("REVOKE INSERT ON models FROM luthier_app")
    op.drop_index("models_by_checkpoint", table_name="models")
    op.drop_column("models", "checkpoint_id")
    op.drop_column("checkpoints", "score")
    op.drop_column("jobs", "retention")
