"""Secrets at rest: AES-256-GCM with a key of their own, which the master key seals.

The associated data names what the secret belongs to, so that one moved to another row, or another
organization's, cannot be opened.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.core.errors import Unavailable

_NONCE, _KEY, _TAG = 12, 32, 16
_WRAPPED = _NONCE + _KEY + _TAG


class CannotOpen(Unavailable):
    """No master key that is here opens it. The message names versions, never a secret."""


@dataclass(frozen=True)
class Sealed:
    """`data` is the sealed key, then the sealed secret, each behind its nonce."""

    version: str
    data: bytes


class Vault:
    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """The newest first: that one seals, each opens what it sealed."""
        self._keys = {name: hmac.digest(key, b"vault", "sha256") for name, key in keys.items()}
        self.newest = next(iter(keys))

    def seal(self, plain: bytes, belongs_to: str) -> Sealed:
        about = f"{belongs_to}|{self.newest}".encode()
        key = secrets.token_bytes(_KEY)
        return Sealed(
            self.newest, _seal(self._keys[self.newest], key, about) + _seal(key, plain, about)
        )

    def open(self, sealed: Sealed, belongs_to: str) -> bytes:
        """Raises CannotOpen."""
        master = self._keys.get(sealed.version)
        if master is None:
            raise CannotOpen(
                f"It was sealed with the master key {sealed.version!r}, which is not in "
                "LUTHIER_MASTER_KEYS."
            )
        about = f"{belongs_to}|{sealed.version}".encode()
        try:
            key = _open(master, sealed.data[:_WRAPPED], about)
            return _open(key, sealed.data[_WRAPPED:], about)
        except InvalidTag:
            raise CannotOpen(
                "It belongs to something else, or the master key is another."
            ) from None


def _seal(key: bytes, plain: bytes, about: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, about)


def _open(key: bytes, sealed: bytes, about: bytes) -> bytes:
    return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], about)
