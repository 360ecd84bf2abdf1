"""The formats of training data, and telling them apart."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from app.datasets import chat, preference, reinforcement
from app.datasets.problem import Problem


class Format(StrEnum):
    CHAT = "chat"
    PREFERENCE = "preference"
    REINFORCEMENT = "reinforcement"


@dataclass(frozen=True)
class Checks:
    """What every format offers: problems of a case by line, its texts, and its form in words."""

    check_case: Callable[[int, Any], list[Problem]]
    texts: Callable[[dict[str, Any]], list[str]]
    signature: Callable[[dict[str, Any]], str]


CHECKS = {
    Format.CHAT: Checks(chat.check_case, chat.texts, chat.signature),
    Format.PREFERENCE: Checks(preference.check_case, preference.texts, preference.signature),
    Format.REINFORCEMENT: Checks(
        reinforcement.check_case, reinforcement.texts, reinforcement.signature
    ),
}


def detect(case: Any) -> Format:
    """The format that this case is probably meant in; chat when nothing speaks for another."""
    if not isinstance(case, dict):
        return Format.CHAT
    if case.keys() & {"input", *preference.OUTPUTS}:
        return Format.PREFERENCE
    if case.keys() - chat.FIELDS and not reinforcement.check_case(0, case):
        return Format.REINFORCEMENT
    return Format.CHAT


def fingerprint(case: dict[str, Any]) -> bytes:
    """Equal for equal cases, whatever the spacing or order of keys in the line."""
    canonical = orjson.dumps(case, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=16).digest()
