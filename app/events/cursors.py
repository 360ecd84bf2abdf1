"""Positions in a stream, as clients see them: opaque text."""

from app.core.errors import Invalid


def encode(seq: int) -> str:
    return f"s{seq}" if seq else "0"


def decode(cursor: str) -> int:
    """`0` is the beginning. Raises Invalid for anything that is no cursor of ours."""
    digits = cursor.removeprefix("s")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise Invalid(
            f'{cursor[:40]!r} is not a cursor. Pass one that an event carried, or "0" for the '
            "beginning.",
            path=("after",),
        )
    return int(digits)
