"""This installation's secrets: master keys and the pepper of API keys. Never in a backup."""

import fcntl
import hmac
import os
import secrets
from pathlib import Path

from app.core.settings import Settings


def write_secret(path: Path, content: str) -> None:
    """Write a file only its owner can read. An existing one is left as it is; of processes that
    write at once the first one wins, and all of them find its content afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not file.read():
            file.write(content + "\n")


def api_key_pepper(settings: Settings) -> bytes:
    """What API keys are hashed with, made at the first start."""
    return _from_file(settings.data_dir / "api-key-pepper")


def master_key(settings: Settings) -> bytes:
    """The newest master key: from the settings (`v2:…,v1:…`), else a file made at first start."""
    if settings.master_keys is None:
        return _from_file(settings.data_dir / "master-key")
    newest = settings.master_keys.get_secret_value().split(",")[0]
    return newest.partition(":")[2].encode()


def master_keys(settings: Settings) -> dict[str, bytes]:
    """Every master key by its version, the newest first: what `Vault` takes. The file's is called
    `file`: who sets keys of their own keeps what it sealed by `v1:…,file:<the file's content>`."""
    if settings.master_keys is None:
        return {"file": _from_file(settings.data_dir / "master-key").hex().encode()}
    listed = settings.master_keys.get_secret_value().split(",")
    return {
        version.strip(): key.encode() for version, _, key in (one.partition(":") for one in listed)
    }


def serving_token(key: bytes, endpoint: str) -> str:
    """The bearer token of the server process at `endpoint`: known to who holds the master key."""
    return hmac.digest(key, f"serving {endpoint}".encode(), "sha256").hex()


def _from_file(path: Path) -> bytes:
    write_secret(path, secrets.token_hex(32))
    return bytes.fromhex(path.read_text().strip())
