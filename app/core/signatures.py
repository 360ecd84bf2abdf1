"""Standard Webhooks 1.0.0, symmetric: HMAC-SHA256 over `id.timestamp.body`, written `v1,<base64>`.

Our own lines over bytes: the packages for it raise untyped errors for some hostile headers.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Iterable

TOLERANCE = 300  # seconds, both ways
_TIMESTAMP = re.compile(rb"\d{1,12}")


class SignatureRefused(Exception):
    """Not signed by one of the secrets, or not now. The message is for logs, never for senders."""


def sign(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """The signature header's value. `secret` is `whsec_<base64>`, or any text."""
    digest = hmac.digest(_key(secret), b"%b.%d.%b" % (id.encode(), timestamp, body), "sha256")
    return "v1," + base64.b64encode(digest).decode()


def verify(
    secrets: Iterable[str], id: bytes, timestamp: bytes, signatures: bytes, body: bytes, now: float
) -> None:
    """Raises SignatureRefused unless one of the space-separated signatures is by one secret."""
    if not id or not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureRefused("a header is missing or malformed")
    if abs(now - int(timestamp)) > TOLERANCE:
        raise SignatureRefused(f"the timestamp is {now - int(timestamp):.0f} s off")
    given = [one[3:] for one in signatures.split(b" ") if one.startswith(b"v1,")]
    for key in filter(None, map(_key, secrets)):  # with an empty one anybody can sign
        digest = hmac.digest(key, b"%b.%b.%b" % (id, timestamp, body), "sha256")
        expected = base64.b64encode(digest)
        if any(hmac.compare_digest(expected, one) for one in given):
            return
    raise SignatureRefused("no signature fits")


def _key(secret: str) -> bytes:
    if secret.startswith("whsec_"):
        try:
            padding = "=" * (-len(secret[6:]) % 4)  # some leave it out
            return base64.b64decode(secret[6:] + padding, validate=True)
        except (binascii.Error, ValueError):
            pass
    return secret.encode()
