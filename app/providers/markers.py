"""Our markers where a provider allows other signs than theirs, written so that they can be read."""

import base64
import re
from collections.abc import Mapping


def in_base32(marker: str) -> str:
    """Of a-z and 2-7: 63 of them for 39 of the marker's own."""
    return base64.b32encode(marker.encode()).decode().rstrip("=").lower()


def from_base32(text: str) -> str | None:
    """None: nothing that `in_base32` has made."""
    try:
        return base64.b32decode(text.upper() + "=" * (-len(text) % 8)).decode()
    except ValueError:
        return None


class Escapes:
    """What stands for the signs that are not allowed: one that is, and a letter."""

    def __init__(self, written: Mapping[str, str]) -> None:
        self._written = written
        self._read = {escape: sign for sign, escape in written.items()}
        self._escape = re.compile("|".join(map(re.escape, self._read)))

    def write(self, marker: str) -> str:
        return "".join(self._written.get(sign, sign) for sign in marker)

    def read(self, text: str) -> str:
        return self._escape.sub(lambda found: self._read[found[0]], text)
