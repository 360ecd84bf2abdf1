"""Providers: credentials, webhooks in, what is known of jobs there.

Revision ID: providers
Revises: scores
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "providers"
down_revision = "scores"
branch_labels = None
depends_on = None

TENANT = "(SELECT nullif(current_setting('app.org_id', true), ''))"
JSONB = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())

# The tables, with what each role may do there.
TABLES = {
    # table: (luthier_app, luthier_worker)
    "provider_credentials": ("SELECT, INSERT, UPDATE", "SELECT, UPDATE"),
    "webhook_inbox": ("SELECT, INSERT", "SELECT, DELETE"),
    "provider_items": ("SELECT", "SELECT, INSERT"),
    "provider_models": ("SELECT", "SELECT, INSERT, UPDATE, DELETE"),
}

FIND_ENDPOINT = """
CREATE FUNCTION find_webhook_endpoint(p_id text)
RETURNS TABLE (org_id text, provider text, webhook_secrets bytea, key_version text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('luthier.webhook_endpoint', p_id, true);
    RETURN QUERY SELECT c.org_id::text, c.provider::text, c.webhook_secrets, c.key_version::text
                   FROM provider_credentials c WHERE c.id = p_id AND c.removed_at IS NULL;
END $$
"""
_SIGNATURE = "find_webhook_endpoint(text)"


def upgrade() -> None:
    op.create_table(
        "provider_credentials",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("project_id", AutoString(), nullable=False),
        sa.Column("provider", AutoString(), nullable=False),
        sa.Column("settings", JSONB, nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("hint", AutoString(), nullable=False),
        sa.Column("webhook_secrets", sa.LargeBinary(), nullable=True),
        sa.Column("key_version", AutoString(), nullable=False),
        sa.Column("status", AutoString(), nullable=False),
        sa.Column("trouble", AutoString(), nullable=True),
        sa.Column("refused_webhooks", sa.BigInteger(), nullable=False),
        sa.Column("checked_at", UTCDateTime(), nullable=True),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("updated_at", UTCDateTime(), nullable=False),
        sa.Column("removed_at", UTCDateTime(), nullable=True),
        sa.CheckConstraint(
            "status IN ('unchecked', 'ok', 'denied', 'unreachable')",
            name="provider_credentials_status",
        ),
        sa.ForeignKeyConstraint(["org_id", "project_id"], ["projects.org_id", "projects.id"]),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_index(
        "provider_credentials_one",
        "provider_credentials",
        ["org_id", "project_id", "provider"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_index("provider_credentials_by_id", "provider_credentials", ["id"], unique=True)
    op.create_table(
        "webhook_inbox",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("credential_id", AutoString(), nullable=False),
        sa.Column("webhook_id", AutoString(), nullable=False),
        sa.Column("type", AutoString(), nullable=False),
        sa.Column("provider_job_id", AutoString(), nullable=True),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("outcome", AutoString(), nullable=False),
        sa.Column("received_at", UTCDateTime(), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('looked_at', 'over', 'unknown_job', 'no_job')",
            name="webhook_inbox_outcome",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "credential_id"], ["provider_credentials.org_id", "provider_credentials.id"]
        ),
        sa.PrimaryKeyConstraint("org_id", "credential_id", "webhook_id"),
    )
    op.create_table(
        "provider_items",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("job_id", AutoString(), nullable=False),
        sa.Column("key", AutoString(), nullable=False),
        sa.ForeignKeyConstraint(["org_id", "job_id"], ["jobs.org_id", "jobs.id"]),
        sa.PrimaryKeyConstraint("org_id", "job_id", "key"),
    )
    op.create_table(
        "provider_models",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("credential_id", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("ends", sa.Date(), nullable=True),
        sa.Column("told_days", sa.Integer(), nullable=True),
        sa.Column("seen_at", UTCDateTime(), nullable=False),
        sa.Column("gone_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["org_id", "credential_id"], ["provider_credentials.org_id", "provider_credentials.id"]
        ),
        sa.PrimaryKeyConstraint("org_id", "credential_id", "name"),
    )
    for table, (app, worker) in TABLES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} TO luthier_app, luthier_worker"
            f" USING (org_id = {TENANT}) WITH CHECK (org_id = {TENANT})"
        )
        op.execute(f"GRANT {app} ON {table} TO luthier_app")
        op.execute(f"GRANT {worker} ON {table} TO luthier_worker")
    op.execute(
        "CREATE POLICY door ON provider_credentials FOR SELECT TO luthier_doors"
        " USING (id = (SELECT current_setting('luthier.webhook_endpoint', true)))"
    )
    op.execute("GRANT SELECT ON provider_credentials TO luthier_doors")
    op.execute("GRANT CREATE ON SCHEMA public TO luthier_doors")
    op.execute(sa.text(FIND_ENDPOINT.strip().replace(":", "\\:")))
    op.execute(f"REVOKE ALL ON FUNCTION {_SIGNATURE} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {_SIGNATURE} TO luthier_app")
    op.execute(f"ALTER FUNCTION {_SIGNATURE} OWNER TO luthier_doors")
    op.execute("REVOKE CREATE ON SCHEMA public FROM luthier_doors")

    op.alter_column("jobs", "training_version_id", nullable=True)
    op.add_column("jobs", sa.Column("remote", JSONB, nullable=True))
    op.create_index("jobs_by_provider_id", "jobs", ["org_id", "provider_job_id"])
    op.add_column("checkpoints", sa.Column("provider_model", AutoString(), nullable=True))
    op.add_column("deployments", sa.Column("remote", JSONB, nullable=True))
    op.add_column("attempts", sa.Column("nudged", AutoString(), nullable=True))
    # Who works on what is told by labels alone: those of the work say whether it is local.
    op.execute(
        "UPDATE attempts SET labels = array_append(labels, 'local') WHERE finished_at IS NULL"
        " AND (subject_id LIKE 'ftjob\\_%' OR subject_id LIKE 'dep\\_%')"
    )


def downgrade() -> None:
    op.drop_column("attempts", "nudged")
    op.drop_column("deployments", "remote")
    op.drop_column("checkpoints", "provider_model")
    op.drop_index("jobs_by_provider_id", table_name="jobs")
    op.drop_column("jobs", "remote")
    op.execute(f"DROP FUNCTION {_SIGNATURE}")
    for table in reversed(TABLES):
        op.drop_table(table)
