"""Who acts: a member through an API key. An action needs the key's scope and the member's role."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.core.errors import Forbidden


class Role(StrEnum):
    """Ordered: each role may do what the one before it may."""

    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"

    @property
    def rank(self) -> int:
        return list(Role).index(self)


class Scope(StrEnum):
    READ = "fine-tuning:read"
    WRITE = "fine-tuning:write"
    INFERENCE = "inference"
    ADMIN = "admin"


@dataclass(frozen=True)
class Actor:
    org_id: str
    project_id: str
    member_id: str
    key_id: str
    role: Role
    scopes: frozenset[Scope]
    expires_at: datetime | None = None
    request_id: str = ""

    def allows(self, scope: Scope, role: Role = Role.MEMBER) -> bool:
        return scope in self.scopes and self.role.rank >= role.rank

    def require(self, scope: Scope, role: Role = Role.MEMBER) -> None:
        """Raise Forbidden, naming what is missing."""
        if scope not in self.scopes:
            raise Forbidden(
                f"This key lacks the scope {scope.value!r}. Use a key that has it.",
                scope=scope.value,
            )
        if self.role.rank < role.rank:
            raise Forbidden(
                f"This needs the role {role.value!r} or higher; "
                f"the key's member has {self.role.value!r}.",
                role=role.value,
            )
