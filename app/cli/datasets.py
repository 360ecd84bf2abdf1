"""`luthier datasets …`: training data, validated and kept."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from app.cli import documents, show
from app.cli.connect import AsJson, run
from app.cli.pages import collect
from app.cli.transfer import create_dataset
from app.client import Client, Refused

datasets_app = typer.Typer(help="Training data.", no_args_is_help=True)


@datasets_app.command("add")
def add_dataset(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A JSONL file.")],
    name: Annotated[str | None, typer.Option(help="The file's name when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file, validate it line by line, and keep it as a dataset."""

    async def work(client: Client) -> dict[str, Any]:
        try:
            return await create_dataset(client, file, name or file.stem)
        except Refused as refused:
            if not as_json:
                _show_problems(refused)
            raise

    payload = run(work, as_json)
    if as_json:
        show.as_json({"dataset": payload["dataset"], "version": payload["version"]})
    else:
        _show_dataset(payload["dataset"], payload["version"])


def _show_problems(refused: Refused) -> None:
    for error in refused.errors:
        problems = error.get("problems") or []
        if not problems:
            continue
        made = show.table(">LINE", "FIELD", "=REASON")
        for problem in problems:
            show.add_row(made, problem["line"], problem["field"] or "-", problem["reason"])
        console = show.console()
        console.print(made)
        more = error["problemCount"] - len(problems)
        if more > 0:
            console.print(f"… and {more:,} more.", style="dim")


def _show_dataset(dataset: dict[str, Any], version: dict[str, Any]) -> None:
    console, report = show.console(), version["report"]
    console.print(Text(show.clean(dataset["name"], True), "bold"))
    console.print(
        show.fields(
            [
                ("Dataset", dataset["id"]),
                ("Version", f"{version['id']} (v{version['number']})"),
                ("Cases", f"{report['caseCount']:,}, {report['format'].lower()}"),
                ("Tokens", f"{show.number(report['tokenCount'])} by {report['tokenizer']}"),
                ("Longest case", f"{report['longestCaseTokens']:,} tokens"),
                ("Duplicates", _duplicates(report)),
            ]
        )
    )
    for warning in report["warnings"]:
        console.print(f"! {show.clean(warning, True)}", style="yellow", soft_wrap=True)


def _duplicates(report: dict[str, Any]) -> str:
    count, lines = report["duplicateCount"], report["duplicateLines"]
    if not count:
        return "none"
    shown = ", ".join(str(line) for line in lines[:10])
    return f"{count:,} (lines {shown}{' …' if count > len(lines[:10]) else ''})"


@datasets_app.command("list")
def list_datasets(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List datasets, the newest first."""
    found = run(lambda client: collect(client, documents.DATASETS, "datasets", limit), as_json)
    if as_json:
        show.as_json(found)
        return
    made = show.table("NEWEST VERSION", "~NAME", ">CASES", ">TOKENS", ">CREATED")
    for dataset in found:
        version = dataset["latestVersion"]
        report = version["report"] if version else {"tokenCount": None}
        show.add_row(
            made, f"{version['id']} v{version['number']}" if version else "-", dataset["name"],
            show.number(version["caseCount"] if version else None),
            show.number(report["tokenCount"]), show.ago(dataset["createdAt"]),
        )  # fmt: skip
    show.console().print(made if found else "No datasets. Add one with `luthier datasets add`.")
