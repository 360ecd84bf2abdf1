"""API keys: random with a checksum that scanners and we can verify; only an HMAC is stored.

Shape: `lt_` + 30 base-62 characters (179 bits) + 6 of their CRC-32. So much randomness needs no
slow hash, which would be a denial of service on every request.
"""

import hmac
import secrets
import zlib

from app.core.ids import ALPHABET, base62

PREFIX = "lt_"
_RANDOM = 30
SHOWN = 10  # how much of a key lists may show


def generate() -> str:
    body = "".join(secrets.choice(ALPHABET) for _ in range(_RANDOM))
    return f"{PREFIX}{body}{_checksum(body)}"


def plausible(key: str) -> bool:
    """Whether it can be a key of ours at all; spares the database the rest."""
    body = key.removeprefix(PREFIX)
    if len(key) != len(PREFIX) + _RANDOM + 6 or len(body) != _RANDOM + 6 or not key.isascii():
        return False
    return body[_RANDOM:] == _checksum(body[:_RANDOM])


def hashed(key: str, pepper: bytes) -> str:
    return hmac.digest(pepper, key.encode(), "sha256").hex()


def _checksum(body: str) -> str:
    return base62(zlib.crc32(body.encode()), 6)
