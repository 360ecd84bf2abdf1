"""Jobs side by side in a terminal: what differs first, then the curves."""

from typing import Any

from rich.text import Text

from app.cli import show

_CURVE = 24


def print_comparison(found: dict[str, Any], everything: bool) -> None:
    console = show.console()
    names = [job["name"] for job in found["jobs"]]
    for title, compared in (("Settings", found["settings"]), ("Results", found["results"])):
        shown = [one for one in compared if everything or not one["same"]]
        console.print(Text(title, "bold"))
        if shown:
            table = show.table("", *(f"={name}" for name in names))
            for one in shown:
                show.add_row(table, one["name"], *(_value(value) for value in one["values"]))
            console.print(table)
        else:
            console.print("All the same.")
        console.print()
    console.print(Text("Curves", "bold"))
    table = show.table("", *(f"={name}" for name in names), ">DIFFER FROM STEP")
    for curve in found["curves"]:
        lines = [
            show.sparkline([point["value"] for point in series["points"]], _CURVE)
            for series in curve["series"]
        ]
        first = curve["firstDifferentStep"]
        show.add_row(table, curve["metric"], *lines, "never" if first is None else first)
    console.print(table)


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return show.number(value)
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text  # a hash tells enough by its beginning
