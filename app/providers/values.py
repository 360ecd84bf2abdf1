"""Reading what providers send: numbers, moments, and the rows of their files of metrics."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any


def number(value: Any) -> float | None:
    """Of a number or of text that is one, which may be NaN or infinite."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def moment(word: Any) -> datetime | None:
    """Of RFC 3339. Python's reader knows six digits of a second, and some send nine."""
    if not isinstance(word, str):
        return None
    try:
        found = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", word))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def moment_of_seconds(seconds: Any) -> datetime | None:
    """Since 1970; 0 is none."""
    return datetime.fromtimestamp(float(seconds), UTC) if seconds else None


def day(word: Any) -> date | None:
    try:
        return date.fromisoformat(word[:10]) if isinstance(word, str) else None
    except ValueError:
        return None


def csv_rows(content: bytes) -> Iterator[Mapping[str, Any]]:
    yield from csv.DictReader(io.StringIO(_text(content)))


def json_rows(content: bytes) -> Iterator[Mapping[str, Any]]:
    """The objects of JSON lines. Whatever else there is, such as a line that is still being
    written, is passed over."""
    for line in _text(content).split("\n"):
        try:
            row = json.loads(line)  # unlike orjson it takes NaN, which trainers write
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _text(content: bytes) -> str:
    return content.decode("utf-8-sig", "replace")
