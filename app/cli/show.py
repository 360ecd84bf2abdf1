"""How things look in a terminal: at 80 columns, and without control characters in a pipe."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.core import clock

_PIPED_WIDTH = 200  # a pipe has no edge to fit: nothing is cut off
_BARS = "▁▂▃▄▅▆▇█"
_STATUS_STYLES = {
    "SUCCEEDED": "green",
    "READY": "green",
    "RUNNING": "cyan",
    "STARTING": "cyan",
    "FAILED": "bold red",
    "CANCELLED": "yellow",
    "PAUSED": "yellow",
}
_LEVEL_STYLES = {"WARN": "yellow", "ERROR": "bold red", "DEBUG": "dim"}


def console() -> Console:
    """For this command's output. Nothing from a server is taken for markup."""
    width = None if sys.stdout.isatty() else _PIPED_WIDTH
    return Console(markup=False, emoji=False, highlight=False, width=width)


def as_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def json_line(value: Any) -> None:
    """One record of a stream, at once."""
    typer.echo(json.dumps(value, ensure_ascii=False))
    sys.stdout.flush()


def complain(message: str) -> None:
    typer.echo(f"luthier: {clean(message, one_line=True)}", err=True)


def clean(text: object, one_line: bool = False) -> str:
    """Text of others, without what could drive a terminal."""
    kept = "\t" if one_line else "\n\t"
    found = "".join(c if c.isprintable() or c in kept else " " for c in str(text))
    return found.strip() if one_line else found


def table(*columns: str) -> Table:
    """A column called `~NAME` gives way where the terminal is narrow, `>NAME` aligns right, and
    `=NAME` is broken into lines."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(
            name.lstrip("~>="),
            justify="right" if name.startswith(">") else "left",
            no_wrap=not name.startswith(("~", "=")),
            overflow="ellipsis" if name.startswith("~") else "fold",
        )
    return made


def add_row(to: Table, *cells: object) -> None:
    """Cells that are Text keep their style; everything else is cleaned."""
    made = [cell if isinstance(cell, Text) else Text(clean(cell, True)) for cell in cells]
    for cell, column in zip(made, to.columns, strict=True):
        if column.overflow == "ellipsis":
            cell.no_wrap, cell.overflow = True, "ellipsis"
    to.add_row(*made)


def fields(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names and values below each other; those without a value are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None and value != "":
            grid.add_row(name, value if isinstance(value, Text) else Text(clean(value)))
    return grid


def status(word: str | None) -> Text:
    return Text((word or "-").lower(), style=_STATUS_STYLES.get(word or "", ""))


def event_line(event: dict[str, Any]) -> Text:
    """One event of a job as one line of a log."""
    at = moment(event["at"]).astimezone().strftime("%H:%M:%S")
    style = _LEVEL_STYLES.get(event["level"], "")
    return Text.assemble((f"{at}  ", "dim"), (clean(event["message"], True), style))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def ago(text: str | None) -> str:
    if text is None:
        return "-"
    seconds = (clock.now() - moment(text)).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit} ago"
    return f"{max(0, int(seconds))}s ago"


def when(text: str | None) -> str | None:
    return text and moment(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: int | str | None) -> str:
    if count is None:
        return "-"
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def number(value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{int(value):,}"


def loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as bars from the lowest to the highest; neighbours share a bar when many."""
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    groups = [
        values[n * len(values) // count : (n + 1) * len(values) // count] for n in range(count)
    ]
    means = [sum(group) / len(group) for group in groups]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_BARS[round((mean - low) / span * (len(_BARS) - 1))] for mean in means)
