"""Tenants, their members and keys, the audit log, and answers kept for idempotency keys."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from app.core.actor import Role
from app.core.columns import big_integer, json_column, one_of, same_tenant, text_array


class Installation(SQLModel, table=True):
    """One row: whether this database has had its first start."""

    __tablename__ = "installation"

    id: int = Field(primary_key=True)
    created_at: datetime


class Organization(SQLModel, table=True):
    __tablename__ = "organizations"

    id: str = Field(primary_key=True)
    name: str
    slug: str = Field(unique=True)
    created_at: datetime


class Project(SQLModel, table=True):
    __tablename__ = "projects"

    org_id: str = Field(primary_key=True, foreign_key="organizations.id")
    id: str = Field(primary_key=True)
    name: str
    created_at: datetime


class Member(SQLModel, table=True):
    __tablename__ = "members"
    __table_args__ = (one_of("role", Role, "members_role"),)

    org_id: str = Field(primary_key=True, foreign_key="organizations.id")
    id: str = Field(primary_key=True)
    name: str
    role: str
    created_at: datetime


class ApiKey(SQLModel, table=True):
    """`hash` is HMAC-SHA256 of the key under the pepper; the key is shown once, never kept."""

    __tablename__ = "api_keys"
    __table_args__ = (
        same_tenant("project_id", "projects"),
        same_tenant("member_id", "members"),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    project_id: str
    member_id: str
    name: str
    prefix: str
    hash: str = Field(unique=True)
    scopes: list[str] = text_array()
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class AuditRow(SQLModel, table=True):
    __tablename__ = "audit"
    __table_args__ = (Index("audit_by_object", "org_id", "object_id"),)

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    at: datetime
    project_id: str
    member_id: str
    key_id: str
    request_id: str
    action: str
    object_id: str
    before: dict[str, Any] | None = json_column(nullable=True)
    after: dict[str, Any] | None = json_column(nullable=True)
    reason: str | None = None


class IdempotencyRow(SQLModel, table=True):
    __tablename__ = "idempotency"

    org_id: str = Field(primary_key=True)
    project_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    verb: str
    input_hash: str
    object_id: str
    created_at: datetime


class ProviderCredential(SQLModel, table=True):
    """A project's access to a provider. `secrets` and `webhook_secrets` are sealed by the vault;
    `id` is also the unguessable end of the URL that takes the provider's webhooks."""

    __tablename__ = "provider_credentials"
    __table_args__ = (
        same_tenant("project_id", "projects"),
        one_of(
            "status",
            ("unchecked", "ok", "denied", "unreachable"),
            "provider_credentials_status",
        ),
        Index(
            "provider_credentials_one",
            "org_id",
            "project_id",
            "provider",
            unique=True,
            postgresql_where=text("removed_at IS NULL"),
        ),
        Index("provider_credentials_by_id", "id", unique=True),
    )

    org_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    project_id: str
    provider: str
    settings: dict[str, Any] = json_column()
    secrets: bytes
    hint: str
    webhook_secrets: bytes | None = None
    key_version: str
    status: str
    trouble: str | None = None
    refused_webhooks: int = big_integer()
    checked_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    removed_at: datetime | None = None


class ProviderModel(SQLModel, table=True):
    """A model that a provider lists, as last seen. `told_days` is how near its end was when that
    was last announced."""

    __tablename__ = "provider_models"
    __table_args__ = (same_tenant("credential_id", "provider_credentials"),)

    org_id: str = Field(primary_key=True)
    credential_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    ends: date | None = None
    told_days: int | None = None
    seen_at: datetime
    gone_at: datetime | None = None
