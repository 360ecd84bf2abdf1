"""`luthier`: the processes, and (in the modules beside this one) the product's verbs."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli import processes
from app.core import migrations
from app.core.logging import configure
from app.core.postgres import PostgresError
from app.core.settings import Settings

app = typer.Typer(
    name="luthier",
    help="Fine-tune language models anywhere, through one GraphQL API with live streams.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _settings() -> Settings:
    settings = Settings()
    configure(settings.log_level, settings.log_format)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return settings


@app.command()
def up() -> None:
    """Run everything here: database, API and worker. Ctrl-C stops it."""
    settings = _settings()
    with processes.database_url(settings) as url:
        first = asyncio.run(processes.prepare(settings, url))
        key = (settings.data_dir / "owner-key").read_text().strip()
        _welcome(settings, key, first)
        asyncio.run(processes.Keeper().run())


@app.command()
def serve() -> None:
    """Run the API."""
    settings = _settings()
    processes.follow_keeper()
    with processes.database_url(settings) as url:
        asyncio.run(processes.prepare(settings, url))
        processes.serve(settings, url)


@app.command()
def work() -> None:
    """Run a worker: it trains, and serves deployed models."""
    settings = _settings()
    processes.follow_keeper()
    with processes.database_url(settings) as url:
        asyncio.run(processes.prepare(settings, url))
        processes.work(settings, url)


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = _settings()
    with processes.database_url(settings) as url:
        asyncio.run(migrations.upgrade(url))
    typer.echo("The schema is up to date.")


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
) -> None:
    """Print the GraphQL schema."""
    from app.api.graphql.schema import build  # noqa: PLC0415 - half a second that others need not pay

    text = f"{build([])}\n"
    if output:
        output.write_text(text)
    else:
        typer.echo(text, nl=False)


def _welcome(settings: Settings, key: str, first: bool) -> None:
    base = f"http://{settings.host}:{settings.port}"
    if first:
        typer.echo(f"First start. Your owner key, also in {settings.data_dir}/owner-key:\n  {key}")
    typer.echo(f"GraphiQL:  {base}/graphql#key={key}")


def main() -> None:
    try:
        app()
    except (migrations.DatabaseUnusable, PostgresError) as refusal:
        typer.echo(f"luthier: {refusal}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
