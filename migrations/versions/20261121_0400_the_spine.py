"""The spine: tenants, streams, the queue, data, jobs, models, and row-level security on them all.

Revision ID: the_spine
Revises:
"""

import re

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "the_spine"
down_revision = None
branch_labels = None
depends_on = None


# What app/jobs/states.py allows, as of this migration.
TRANSITIONS = [
    ("pending", "validating", "evidence"),
    ("pending", "queued", "evidence"),
    ("pending", "running", "evidence"),
    ("pending", "paused", "evidence"),
    ("pending", "succeeded", "evidence"),
    ("pending", "failed", "evidence"),
    ("pending", "cancelled", "evidence"),
    ("validating", "queued", "evidence"),
    ("validating", "running", "evidence"),
    ("validating", "paused", "evidence"),
    ("validating", "succeeded", "evidence"),
    ("validating", "failed", "evidence"),
    ("validating", "cancelled", "evidence"),
    ("queued", "running", "evidence"),
    ("queued", "paused", "evidence"),
    ("queued", "succeeded", "evidence"),
    ("queued", "failed", "evidence"),
    ("queued", "cancelled", "evidence"),
    ("running", "paused", "evidence"),
    ("running", "succeeded", "evidence"),
    ("running", "failed", "evidence"),
    ("running", "cancelled", "evidence"),
    ("paused", "queued", "evidence"),
    ("paused", "failed", "evidence"),
    ("paused", "cancelled", "evidence"),
    ("succeeded", "failed", "correction"),
    ("succeeded", "cancelled", "correction"),
    ("failed", "queued", "restart"),
    ("failed", "succeeded", "correction"),
    ("failed", "cancelled", "correction"),
    ("cancelled", "queued", "restart"),
    ("cancelled", "succeeded", "correction"),
    ("cancelled", "failed", "correction"),
]


def upgrade() -> None:
    op.create_table(
        "attempts",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("subject_id", AutoString(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("labels", postgresql.ARRAY(AutoString()), nullable=False),
        sa.Column("due_at", UTCDateTime(), nullable=False),
        sa.Column("lease_until", UTCDateTime(), nullable=True),
        sa.Column("worker_id", AutoString(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=True),
        sa.Column("from_step", sa.Integer(), nullable=True),
        sa.Column("outcome", AutoString(), nullable=True),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("started_at", UTCDateTime(), nullable=True),
        sa.Column("finished_at", UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_index(
        "attempts_by_subject", "attempts", ["org_id", "subject_id", "number"], unique=True
    )
    op.create_index(
        "attempts_claimable",
        "attempts",
        ["due_at", "id"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index(
        "attempts_one_open",
        "attempts",
        ["org_id", "subject_id"],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "audit",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("project_id", AutoString(), nullable=False),
        sa.Column("member_id", AutoString(), nullable=False),
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("request_id", AutoString(), nullable=False),
        sa.Column("action", AutoString(), nullable=False),
        sa.Column("object_id", AutoString(), nullable=False),
        sa.Column(
            "before", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "after", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("reason", AutoString(), nullable=True),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_index("audit_by_object", "audit", ["org_id", "object_id"], unique=False)
    op.create_table(
        "events",
        sa.Column("stream_id", AutoString(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("type", AutoString(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", "seq"),
    )
    op.create_index(
        "events_by_step",
        "events",
        ["stream_id", "step"],
        unique=False,
        postgresql_where=sa.text("type = 'metrics'"),
    )
    op.create_table(
        "idempotency",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("project_id", AutoString(), nullable=False),
        sa.Column("key", AutoString(), nullable=False),
        sa.Column("verb", AutoString(), nullable=False),
        sa.Column("input_hash", AutoString(), nullable=False),
        sa.Column("object_id", AutoString(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "project_id", "key"),
    )
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "job_transitions",
        sa.Column("before", AutoString(), nullable=False),
        sa.Column("after", AutoString(), nullable=False),
        sa.Column("cause", AutoString(), nullable=False),
        sa.PrimaryKeyConstraint("before", "after", "cause"),
    )
    op.create_table(
        "organizations",
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("slug", AutoString(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("slug"),
    )
    op.create_table(
        "streams",
        sa.Column("stream_id", AutoString(), nullable=False),
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column(
            "latest", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.PrimaryKeyConstraint("stream_id"),
    )
    op.create_table(
        "workers",
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("host", AutoString(), nullable=False),
        sa.Column("labels", postgresql.ARRAY(AutoString()), nullable=False),
        sa.Column("hardware", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("started_at", UTCDateTime(), nullable=False),
        sa.Column("last_seen_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "blobs",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("sha256", AutoString(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("references", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id"],
            ["organizations.id"],
        ),
        sa.PrimaryKeyConstraint("org_id", "sha256"),
    )
    op.create_table(
        "members",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("role", AutoString(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.CheckConstraint("role IN ('member', 'admin', 'owner')", name="members_role"),
        sa.ForeignKeyConstraint(
            ["org_id"],
            ["organizations.id"],
        ),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_table(
        "projects",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id"],
            ["organizations.id"],
        ),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_table(
        "api_keys",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("project_id", AutoString(), nullable=False),
        sa.Column("member_id", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("prefix", AutoString(), nullable=False),
        sa.Column("hash", AutoString(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(AutoString()), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("expires_at", UTCDateTime(), nullable=True),
        sa.Column("revoked_at", UTCDateTime(), nullable=True),
        sa.Column("last_used_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["org_id", "member_id"],
            ["members.org_id", "members.id"],
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
        ),
        sa.PrimaryKeyConstraint("org_id", "id"),
        sa.UniqueConstraint("hash"),
    )
    op.create_table(
        "datasets",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("project_id", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("description", AutoString(), nullable=True),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
        ),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_index("datasets_by_age", "datasets", ["org_id", "created_at", "id"], unique=False)
    op.create_table(
        "files",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("project_id", AutoString(), nullable=False),
        sa.Column("filename", AutoString(), nullable=False),
        sa.Column("purpose", AutoString(), nullable=False),
        sa.Column("sha256", AutoString(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
        ),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_index("files_by_age", "files", ["org_id", "created_at", "id"], unique=False)
    op.create_table(
        "models",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("project_id", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("provider", AutoString(), nullable=False),
        sa.Column("base_model", AutoString(), nullable=False),
        sa.Column("job_id", AutoString(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("kind", AutoString(), nullable=False),
        sa.Column("path", AutoString(), nullable=False),
        sa.Column("manifest_sha256", AutoString(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("deleted_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
        ),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_index("models_by_age", "models", ["org_id", "created_at", "id"], unique=False)
    op.create_index("models_by_name", "models", ["org_id", "name"], unique=True)
    op.create_table(
        "dataset_versions",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("dataset_id", AutoString(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("description", AutoString(), nullable=True),
        sa.Column("file_id", AutoString(), nullable=False),
        sa.Column("sha256", AutoString(), nullable=False),
        sa.Column("format", AutoString(), nullable=False),
        sa.Column("case_count", sa.Integer(), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "dataset_id"],
            ["datasets.org_id", "datasets.id"],
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "file_id"],
            ["files.org_id", "files.id"],
        ),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_index(
        "dataset_versions_by_number",
        "dataset_versions",
        ["org_id", "dataset_id", "number"],
        unique=True,
    )
    op.create_table(
        "deployments",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("project_id", AutoString(), nullable=False),
        sa.Column("model_id", AutoString(), nullable=False),
        sa.Column("status", AutoString(), nullable=False),
        sa.Column("requested_action", AutoString(), nullable=True),
        sa.Column("hardware", AutoString(), nullable=True),
        sa.Column("endpoint", AutoString(), nullable=True),
        sa.Column(
            "error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("ready_at", UTCDateTime(), nullable=True),
        sa.Column("stopped_at", UTCDateTime(), nullable=True),
        sa.CheckConstraint(
            "requested_action IS NULL OR requested_action = 'undeploy'",
            name="deployments_requested_action",
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'starting', 'ready', 'stopped', 'failed')",
            name="deployments_status",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "model_id"],
            ["models.org_id", "models.id"],
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
        ),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_index(
        "deployments_by_age", "deployments", ["org_id", "created_at", "id"], unique=False
    )
    op.create_index(
        "deployments_one_live",
        "deployments",
        ["org_id", "model_id"],
        unique=True,
        postgresql_where=sa.text("status NOT IN ('stopped', 'failed')"),
    )
    op.create_table(
        "jobs",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("project_id", AutoString(), nullable=False),
        sa.Column("owner_id", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("description", AutoString(), nullable=True),
        sa.Column("status", AutoString(), nullable=False),
        sa.Column("requested_action", AutoString(), nullable=True),
        sa.Column("provider", AutoString(), nullable=False),
        sa.Column("provider_job_id", AutoString(), nullable=True),
        sa.Column("provider_status", AutoString(), nullable=True),
        sa.Column("evidence_source", AutoString(), nullable=True),
        sa.Column("evidence_at", UTCDateTime(), nullable=True),
        sa.Column("base_model", AutoString(), nullable=False),
        sa.Column("method", AutoString(), nullable=False),
        sa.Column("hyperparameters", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "resolved", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("training_version_id", AutoString(), nullable=False),
        sa.Column("validation_version_id", AutoString(), nullable=True),
        sa.Column("suffix", AutoString(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "integrations",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
        ),
        sa.Column("hardware", AutoString(), nullable=True),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=True),
        sa.Column("estimated_cost", sa.Float(), nullable=True),
        sa.Column("cost", sa.Float(), nullable=True),
        sa.Column(
            "error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("model_id", AutoString(), nullable=True),
        sa.Column("result_file_ids", postgresql.ARRAY(AutoString()), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("started_at", UTCDateTime(), nullable=True),
        sa.Column("finished_at", UTCDateTime(), nullable=True),
        sa.Column("updated_at", UTCDateTime(), nullable=False),
        sa.Column("deleted_at", UTCDateTime(), nullable=True),
        sa.CheckConstraint(
            "requested_action IS NULL OR requested_action IN ('pause', 'resume', 'cancel')",
            name="jobs_requested_action",
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'validating', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')",
            name="jobs_status",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "training_version_id"],
            ["dataset_versions.org_id", "dataset_versions.id"],
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "validation_version_id"],
            ["dataset_versions.org_id", "dataset_versions.id"],
        ),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_index("jobs_by_age", "jobs", ["org_id", "created_at", "id"], unique=False)
    op.create_index("jobs_by_metadata", "jobs", ["metadata"], unique=False, postgresql_using="gin")
    op.create_index("jobs_by_name", "jobs", ["org_id", "name", "id"], unique=False)
    op.create_index(
        "jobs_by_status", "jobs", ["org_id", "status", "created_at", "id"], unique=False
    )
    op.create_index("jobs_by_update", "jobs", ["org_id", "updated_at", "id"], unique=False)
    op.create_table(
        "checkpoints",
        sa.Column("org_id", AutoString(), nullable=False),
        sa.Column("id", AutoString(), nullable=False),
        sa.Column("job_id", AutoString(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("path", AutoString(), nullable=False),
        sa.Column("manifest_sha256", AutoString(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "job_id"],
            ["jobs.org_id", "jobs.id"],
        ),
        sa.PrimaryKeyConstraint("org_id", "id"),
    )
    op.create_index("checkpoints_by_step", "checkpoints", ["org_id", "job_id", "step"], unique=True)
    op.bulk_insert(
        sa.table("job_transitions", sa.column("before"), sa.column("after"), sa.column("cause")),
        [dict(zip(("before", "after", "cause"), row, strict=True)) for row in TRANSITIONS],
    )
    secure()
    open_doors()
    script(GUARDS)


# The tables that belong to a tenant, with what each role may do there. Nobody may change the log.
TENANT_TABLES = {
    # table: (luthier_app, luthier_worker)
    "projects": ("SELECT, INSERT, UPDATE", "SELECT"),
    "members": ("SELECT, INSERT, UPDATE, DELETE", "SELECT"),
    "api_keys": ("SELECT, INSERT, UPDATE", "SELECT"),
    "audit": ("SELECT, INSERT", "INSERT"),
    "idempotency": ("SELECT, INSERT, DELETE", "SELECT"),
    "streams": ("SELECT, INSERT, UPDATE", "SELECT, INSERT, UPDATE"),
    "events": ("SELECT, INSERT", "SELECT, INSERT"),
    "attempts": ("SELECT, INSERT, UPDATE", "SELECT, INSERT, UPDATE"),
    "blobs": ("SELECT, INSERT, UPDATE, DELETE", "SELECT, INSERT, UPDATE, DELETE"),
    "files": ("SELECT, INSERT, DELETE", "SELECT, INSERT, DELETE"),
    "datasets": ("SELECT, INSERT, UPDATE, DELETE", "SELECT"),
    "dataset_versions": ("SELECT, INSERT, DELETE", "SELECT"),
    "jobs": ("SELECT, INSERT, UPDATE", "SELECT, UPDATE"),
    "checkpoints": ("SELECT, DELETE", "SELECT, INSERT, UPDATE, DELETE"),
    "models": ("SELECT, UPDATE", "SELECT, INSERT, UPDATE"),
    "deployments": ("SELECT, INSERT, UPDATE", "SELECT, UPDATE"),
}

# The sub-select makes Postgres read the setting once per query, not once per row. After a
# transaction the setting is '', not NULL, hence nullif: unset means no rows.
TENANT = "(SELECT nullif(current_setting('app.org_id', true), ''))"


def secure() -> None:
    op.execute("GRANT USAGE ON SCHEMA public TO luthier_app, luthier_worker, luthier_doors")
    for table, (app, worker) in TENANT_TABLES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} TO luthier_app, luthier_worker"
            f" USING (org_id = {TENANT}) WITH CHECK (org_id = {TENANT})"
        )
        op.execute(f"GRANT {app} ON {table} TO luthier_app")
        op.execute(f"GRANT {worker} ON {table} TO luthier_worker")
    op.execute("ALTER TABLE organizations ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE organizations FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY tenant ON organizations TO luthier_app, luthier_worker"
        f" USING (id = {TENANT}) WITH CHECK (id = {TENANT})"
    )
    op.execute("GRANT SELECT, INSERT, UPDATE ON organizations TO luthier_app")
    op.execute("GRANT SELECT ON organizations TO luthier_worker")
    op.execute("GRANT SELECT ON workers, job_transitions TO luthier_app, luthier_worker")
    op.execute("GRANT INSERT, UPDATE, DELETE ON workers TO luthier_worker")
    op.execute("GRANT SELECT, INSERT ON installation TO luthier_app")


# The doors: the only statements that see more than one tenant. Their owner can log in nowhere, and
# its policies show it just the rows that the door in use has named.
DOOR_POLICIES = """
CREATE POLICY door ON api_keys FOR SELECT TO luthier_doors
    USING (hash = (SELECT current_setting('luthier.key_hash', true)));
CREATE POLICY door ON members FOR SELECT TO luthier_doors
    USING (id = (SELECT current_setting('luthier.member_id', true)));
CREATE POLICY door ON attempts FOR SELECT TO luthier_doors USING (finished_at IS NULL);
CREATE POLICY door_update ON attempts FOR UPDATE TO luthier_doors
    USING (finished_at IS NULL) WITH CHECK (outcome IS NULL OR outcome = 'lost');
CREATE POLICY door_insert ON attempts FOR INSERT TO luthier_doors
    WITH CHECK (finished_at IS NULL);
CREATE POLICY door_read_lost ON attempts FOR SELECT TO luthier_doors USING (outcome = 'lost');
CREATE POLICY door ON streams TO luthier_doors
    USING (stream_id = ANY (
        (SELECT string_to_array(current_setting('luthier.streams', true), ','))::text[]));
CREATE POLICY door ON events FOR SELECT TO luthier_doors
    USING (stream_id = ANY (
        (SELECT string_to_array(current_setting('luthier.streams', true), ','))::text[]));
GRANT SELECT ON api_keys, members, attempts, streams, events TO luthier_doors;
GRANT INSERT, UPDATE ON attempts TO luthier_doors;
GRANT UPDATE (epoch) ON streams TO luthier_doors;
"""

AUTHENTICATE = """
CREATE FUNCTION authenticate_key(p_hash text)
RETURNS TABLE (org_id text, project_id text, member_id text, key_id text, role text,
               scopes varchar[], expires_at timestamptz, revoked_at timestamptz,
               last_used_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE k api_keys%ROWTYPE; m_role text;
BEGIN
    PERFORM set_config('luthier.key_hash', p_hash, true);
    SELECT * INTO k FROM api_keys a WHERE a.hash = p_hash;
    IF NOT FOUND THEN RETURN; END IF;
    PERFORM set_config('luthier.member_id', k.member_id, true);
    SELECT m.role INTO m_role FROM members m WHERE m.org_id = k.org_id AND m.id = k.member_id;
    IF NOT FOUND THEN RETURN; END IF;
    RETURN QUERY SELECT k.org_id::text, k.project_id::text, k.member_id::text, k.id::text, m_role,
                        k.scopes, k.expires_at, k.revoked_at, k.last_used_at;
END $$
"""

CLAIM = """
CREATE FUNCTION claim_attempt(p_worker text, p_kind text, p_labels varchar[], p_lease interval,
                              p_now timestamptz, p_new_id text)
RETURNS TABLE (org_id text, id text, subject_id text, number int, epoch int, lost_number int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE a attempts%ROWTYPE; v_epoch int; v_lost int;
BEGIN
    SELECT * INTO a FROM attempts t
     WHERE t.finished_at IS NULL AND t.due_at <= p_now
       AND (t.lease_until IS NULL OR t.lease_until < clock_timestamp())
       AND t.labels <@ p_labels AND starts_with(t.subject_id, p_kind || '_')
     ORDER BY t.due_at, t.id FOR UPDATE SKIP LOCKED LIMIT 1;
    IF NOT FOUND THEN RETURN; END IF;
    IF a.worker_id IS NOT NULL THEN
        v_lost := a.number;
        UPDATE attempts t SET finished_at = clock_timestamp(), outcome = 'lost'
         WHERE t.org_id = a.org_id AND t.id = a.id;
        INSERT INTO attempts (org_id, id, subject_id, number, labels, due_at, created_at)
        VALUES (a.org_id, p_new_id, a.subject_id, a.number + 1, a.labels, a.due_at,
                clock_timestamp());
        a.id := p_new_id; a.number := a.number + 1;
    END IF;
    PERFORM set_config('luthier.streams', a.subject_id, true);
    UPDATE streams s SET epoch = s.epoch + 1 WHERE s.stream_id = a.subject_id
        RETURNING s.epoch INTO v_epoch;
    UPDATE attempts t
       SET worker_id = p_worker, lease_until = clock_timestamp() + p_lease, epoch = v_epoch,
           started_at = clock_timestamp()
     WHERE t.org_id = a.org_id AND t.id = a.id;
    RETURN QUERY SELECT a.org_id::text, a.id::text, a.subject_id::text, a.number, v_epoch, v_lost;
END $$
"""

READ_STREAMS = """
CREATE FUNCTION read_streams(p_streams text[], p_after bigint[], p_limit int)
RETURNS TABLE (stream_id text, seq bigint, attempt int, type text, step int, at timestamptz,
               data jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('luthier.streams', array_to_string(p_streams, ','), true);
    RETURN QUERY
    SELECT e.stream_id::text, e.seq, e.attempt, e.type::text, e.step, e.at, e.data
      FROM unnest(p_streams, p_after) AS wanted(id, after)
      JOIN streams s ON s.stream_id = wanted.id
     CROSS JOIN LATERAL (
        SELECT * FROM events v
         WHERE v.stream_id = s.stream_id AND v.org_id = s.org_id AND v.seq > wanted.after
         ORDER BY v.seq LIMIT p_limit) e
     ORDER BY e.stream_id, e.seq;
END $$
"""

DOORS = {
    "authenticate_key(text)": "luthier_app",
    "claim_attempt(text, text, varchar[], interval, timestamptz, text)": "luthier_worker",
    "read_streams(text[], bigint[], int)": "luthier_app",
}

GUARDS = """
CREATE FUNCTION guard_job_status() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE v_cause text := coalesce(nullif(current_setting('luthier.cause', true), ''), 'evidence');
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'pending' THEN
            RAISE EXCEPTION 'a job begins as pending, not as %', NEW.status
                USING ERRCODE = 'LT001';
        END IF;
    ELSIF NEW.status IS DISTINCT FROM OLD.status AND NOT EXISTS (
        SELECT 1 FROM job_transitions t
         WHERE t.before = OLD.status AND t.after = NEW.status AND t.cause = v_cause) THEN
        RAISE EXCEPTION 'a job cannot go from % to % (%)', OLD.status, NEW.status, v_cause
            USING ERRCODE = 'LT001';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_job_status BEFORE INSERT OR UPDATE ON jobs
    FOR EACH ROW EXECUTE FUNCTION guard_job_status();
CREATE FUNCTION guard_stream_head() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.last_seq < OLD.last_seq OR NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'a stream never goes back' USING ERRCODE = 'LT002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_stream_head BEFORE UPDATE ON streams
    FOR EACH ROW EXECUTE FUNCTION guard_stream_head();
"""


def script(sql: str) -> None:
    """Run statements one by one: the driver prepares each, and prepares only single ones."""
    for statement in re.split(r";\n(?=CREATE|GRANT)", sql.strip().rstrip(";") + ";"):
        op.execute(sa.text(statement.rstrip(";").replace(":", "\\:")))


def open_doors() -> None:
    script(DOOR_POLICIES)
    op.execute("GRANT CREATE ON SCHEMA public TO luthier_doors")
    for function in (AUTHENTICATE, CLAIM, READ_STREAMS):
        op.execute(sa.text(function.strip().replace(":", "\\:")))
    for signature, role in DOORS.items():
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {role}")
        op.execute(f"ALTER FUNCTION {signature} OWNER TO luthier_doors")
    op.execute("REVOKE CREATE ON SCHEMA public FROM luthier_doors")


def downgrade() -> None:
    for signature in DOORS:
        op.execute(f"DROP FUNCTION {signature}")
    op.drop_index("checkpoints_by_step", table_name="checkpoints")
    op.drop_table("checkpoints")
    op.drop_index("jobs_by_update", table_name="jobs")
    op.drop_index("jobs_by_status", table_name="jobs")
    op.drop_index("jobs_by_name", table_name="jobs")
    op.drop_index("jobs_by_metadata", table_name="jobs", postgresql_using="gin")
    op.drop_index("jobs_by_age", table_name="jobs")
    op.drop_table("jobs")
    op.drop_index(
        "deployments_one_live",
        table_name="deployments",
        postgresql_where=sa.text("status NOT IN ('stopped', 'failed')"),
    )
    op.drop_index("deployments_by_age", table_name="deployments")
    op.drop_table("deployments")
    op.drop_index("dataset_versions_by_number", table_name="dataset_versions")
    op.drop_table("dataset_versions")
    op.drop_index("models_by_name", table_name="models")
    op.drop_index("models_by_age", table_name="models")
    op.drop_table("models")
    op.drop_index("files_by_age", table_name="files")
    op.drop_table("files")
    op.drop_index("datasets_by_age", table_name="datasets")
    op.drop_table("datasets")
    op.drop_table("api_keys")
    op.drop_table("projects")
    op.drop_table("members")
    op.drop_table("blobs")
    op.drop_table("workers")
    op.drop_table("streams")
    op.drop_table("organizations")
    op.drop_table("job_transitions")
    op.drop_table("installation")
    op.drop_table("idempotency")
    op.drop_index(
        "events_by_step", table_name="events", postgresql_where=sa.text("type = 'metrics'")
    )
    op.drop_table("events")
    op.drop_index("audit_by_object", table_name="audit")
    op.drop_table("audit")
    op.drop_index(
        "attempts_one_open", table_name="attempts", postgresql_where=sa.text("finished_at IS NULL")
    )
    op.drop_index(
        "attempts_claimable", table_name="attempts", postgresql_where=sa.text("finished_at IS NULL")
    )
    op.drop_index("attempts_by_subject", table_name="attempts")
    op.drop_table("attempts")
    op.execute("DROP FUNCTION guard_job_status, guard_stream_head")
