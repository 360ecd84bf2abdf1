"""The small family of expected refusals. Each door translates them once; all else is a bug.

AppError
  Invalid           the input is wrong: `path` names the field
  NotFound          there is no such thing, or it is another tenant's (the two look the same)
  Conflict          the thing exists, but its state forbids this
  Unauthenticated   no key, or one that is unknown, expired or revoked
  Forbidden         the key's scope or the member's role does not allow this
  Limited           a limit was reached: `limit` is the number in force
  Unavailable       something outside does not answer now; trying again later is right
"""

from typing import Any


class StartRefused(Exception):
    """A process cannot start here; the message, for a terminal, says why and what to do."""


class AppError(Exception):
    """An expected refusal. The message is one sentence that is safe to show and says what to do."""

    code = "INTERNAL"

    def __init__(self, message: str, *, path: tuple[str, ...] = (), **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.detail = detail

    @property
    def extensions(self) -> dict[str, Any]:
        """What a GraphQL error carries beside its message."""
        return {"code": self.code} | ({"path": list(self.path)} if self.path else {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"


class Invalid(AppError):
    code = "INVALID_INPUT"


class NotFound(AppError):
    code = "NOT_FOUND"


class Conflict(AppError):
    code = "CONFLICT"


class Unauthenticated(AppError):
    code = "UNAUTHENTICATED"


class Forbidden(AppError):
    code = "FORBIDDEN"


class Limited(AppError):
    code = "LIMIT_EXCEEDED"

    def __init__(
        self, message: str, *, limit: int, path: tuple[str, ...] = (), **detail: Any
    ) -> None:
        super().__init__(message, path=path, **detail)
        self.limit = limit

    @property
    def extensions(self) -> dict[str, Any]:
        return super().extensions | {"limit": self.limit}


class Unavailable(AppError):
    code = "UNAVAILABLE"


class StorageFull(Unavailable):
    """There is no room for more bytes."""

    code = "STORAGE_FULL"


class IdempotencyMismatch(Conflict):
    """The key was used before with other input."""

    code = "IDEMPOTENCY_MISMATCH"
