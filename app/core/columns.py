"""Column helpers the tables share."""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKeyConstraint
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field
from sqlmodel.sql.sqltypes import AutoString


def json_column(*, nullable: bool = False) -> Any:
    """A jsonb column. Assign a new value to change it: edits in place are not noticed."""
    if nullable:
        return Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True))
    return Field(default_factory=dict, sa_column=Column(JSONB, nullable=False))


def text_array() -> Any:
    return Field(default_factory=list, sa_column=Column(ARRAY(AutoString), nullable=False))


def big_integer(default: int | None = 0) -> Any:
    return Field(default=default, sa_type=BigInteger, nullable=default is None)


def one_of(column: str, values: Any, name: str) -> CheckConstraint:
    """Enums are text with a CHECK: adding a value is then an ordinary migration."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=name)


def same_tenant(column: str, table: str) -> ForeignKeyConstraint:
    """A foreign key that cannot point at another tenant's row: policies do not cover plain ones."""
    return ForeignKeyConstraint(["org_id", column], [f"{table}.org_id", f"{table}.id"])
