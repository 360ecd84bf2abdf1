"""Logging to stderr, as text or JSON lines, with everything that looks like a secret blanked."""

import logging
import re
import sys
from typing import Any

import orjson

from app.core import clock

_SECRETS = re.compile(
    r"lt_[A-Za-z0-9]{8,}|lg_[\w.]{8,}|sk-[A-Za-z0-9_-]{8,}|whsec_[A-Za-z0-9+/=]{8,}"
    r"|(?i:bearer )[A-Za-z0-9._~+/=-]{8,}|(?<=://)[^/\s:@]*:[^@\s/]+(?=@)"
)


def redact(text: str) -> str:
    return _SECRETS.sub("[secret]", text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": clock.rfc3339(clock.now()),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return orjson.dumps(line).decode()


def configure(level: str, style: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = _Text("%(asctime)s %(levelname)-7s %(name)s  %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(_Json() if style == "json" else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("alembic", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
