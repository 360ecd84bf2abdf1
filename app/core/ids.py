"""Opaque prefixed ids: time-ordered, so that indexes stay local, with 74 random bits."""

import secrets
import time

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

ORGANIZATION = "org"
PROJECT = "proj"
MEMBER = "member"
API_KEY = "key"
FILE = "file"
DATASET = "ds"
DATASET_VERSION = "dsv"
JOB = "ftjob"
ATTEMPT = "attempt"
CHECKPOINT = "ftckpt"
PERMISSION = "cp"
MODEL = "model"
DEPLOYMENT = "dep"
GRADER_RUN = "grun"
WORKER = "worker"
CREDENTIAL = "cred"

_LENGTH = 21  # 48 bits of milliseconds and 74 random bits in base 62


def base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def new(prefix: str) -> str:
    number = (time.time_ns() // 1_000_000) << 74 | secrets.randbits(74)
    return f"{prefix}_{base62(number, _LENGTH)}"


def prefix_of(id: str) -> str:
    return id.partition("_")[0]
