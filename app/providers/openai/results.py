"""OpenAI's result files: the metrics of a finished job, as CSV."""

import base64
import math

from app.providers.base import Item
from app.providers.openai.jobs import VALUES, values_of
from app.providers.values import csv_rows, number


def decoded(content: bytes) -> bytes:
    """Result files are CSV; some come in base64, which no document says."""
    if content.lstrip()[:4] == b"step":
        return content
    try:
        plain = base64.b64decode(content, validate=True)
    except ValueError:
        return content
    return plain if plain.lstrip()[:4] == b"step" else content


def points_of(content: bytes) -> list[Item]:
    """The steps of a result file, by the names of its columns."""
    found = []
    for row in csv_rows(content):
        step = number(row.get("step"))
        if step is None or not math.isfinite(step):
            continue
        values = values_of({name: number(value) for name, value in row.items() if name in VALUES})
        if values:
            found.append(Item("metrics", f"csv:{int(step)}", step=int(step), values=values))
    return found
