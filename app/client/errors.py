"""What can go wrong for a caller.

ApiError        the server refused: `code` is for programs, `errors` is all that it said
  Refused       a mutation's `userErrors`: the input or the state of things forbids it
  Unreachable   the server did not answer, for as long as one was willing to wait
"""

from collections.abc import Sequence
from typing import Any


class ApiError(Exception):
    """The server refused, or answered what is no answer."""

    def __init__(
        self, message: str, code: str = "UNKNOWN", errors: Sequence[dict[str, Any]] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.errors = list(errors)

    @staticmethod
    def of_graphql(errors: Sequence[dict[str, Any]]) -> "ApiError":
        """From a GraphQL `errors` list; the first one speaks for all."""
        first = errors[0] if errors else {}
        code = (first.get("extensions") or {}).get("code") or "UNKNOWN"
        return ApiError(str(first.get("message", "The server gave no reason.")), code, errors)


class Refused(ApiError):
    """A mutation was refused; `errors` are its `userErrors`."""

    @staticmethod
    def of_user_errors(errors: Sequence[dict[str, Any]]) -> "Refused":
        message = " ".join(str(error["message"]) for error in errors)
        return Refused(message, str(errors[0].get("code", "UNKNOWN")), errors)


class Unreachable(ApiError):
    """Nobody answered."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "UNREACHABLE")
