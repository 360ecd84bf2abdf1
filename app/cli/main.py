"""`luthier`: the processes, and (in the modules beside this one) the product's verbs."""

import asyncio
import io
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli.datasets import datasets_app
from app.cli.jobs import jobs_app
from app.cli.keys import keys_app
from app.cli.models import models_app
from app.cli.providers import providers_app
from app.core.errors import StartRefused
from app.core.logging import configure
from app.core.settings import Settings

# The processes import the whole service, which takes a second: the verbs need none of it.
# ruff: noqa: PLC0415

app = typer.Typer(
    name="luthier",
    help="Fine-tune language models anywhere, through one GraphQL API with live streams.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(jobs_app, name="jobs")
app.add_typer(datasets_app, name="datasets")
app.add_typer(models_app, name="models")
app.add_typer(providers_app, name="providers")
app.add_typer(keys_app, name="keys")


def _settings(processes: int | None = None) -> Settings:
    settings = Settings() if processes is None else Settings(processes=processes)
    configure(settings.log_level, settings.log_format)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return settings


_PROCESSES = typer.Option(
    min=1, max=64, help="API processes, which share the port.", show_default="LUTHIER_PROCESSES"
)


@app.command()
def up(processes: Annotated[int | None, _PROCESSES] = None) -> None:
    """Run everything here: database, API and worker. Ctrl-C stops it."""
    from app.cli import processes as parts

    settings = _settings(processes)
    keeper = parts.keep(settings, worker=True)
    with parts.database_url(settings) as url:
        first = asyncio.run(parts.prepare(settings, url))
        key = (settings.data_dir / "owner-key").read_text().strip()
        _welcome(settings, key, first)
        asyncio.run(keeper.run())


@app.command()
def serve(processes: Annotated[int | None, _PROCESSES] = None) -> None:
    """Run the API, in one process or several."""
    from app.cli import processes as parts
    from app.cli.keeper import follow_keeper, inherited_listener

    settings = _settings(processes)
    listener = inherited_listener()
    if listener is None and settings.processes > 1:
        keeper = parts.keep(settings, worker=False)
        with parts.database_url(settings) as url:
            asyncio.run(parts.prepare(settings, url))
            asyncio.run(keeper.run())
        return
    follow_keeper(parts.grace(settings))
    parts.check_broadcast(settings, several=False)
    listener = listener or parts.listen(settings)
    with parts.database_url(settings) as url:
        asyncio.run(parts.prepare(settings, url))
        parts.serve(settings, url, listener)


@app.command()
def work() -> None:
    """Run a worker: it trains, and serves deployed models."""
    from app.cli import processes as parts
    from app.cli.keeper import follow_keeper

    settings = _settings()
    follow_keeper(parts.grace(settings))
    parts.check_broadcast(settings, several=False)
    with parts.database_url(settings) as url:
        asyncio.run(parts.prepare(settings, url))
        parts.work(settings, url)


@app.command()
def demo() -> None:
    """Fine-tune a small model on real data while you watch, deploy it, and ask it."""
    from app.cli import processes
    from app.cli.demo import demo as show

    # Its own port, so that it runs beside a server; and its parts stay quiet beside its own words.
    os.environ["LUTHIER_PORT"] = str(_free_port())
    os.environ["LUTHIER_LOG_LEVEL"] = "error"
    settings = _settings()
    with processes.database_url(settings) as url:
        asyncio.run(processes.prepare(settings, url))
        status = asyncio.run(processes.beside(settings, show))
    sys.exit(status)


@app.command("demo-providers")
def demo_providers() -> None:
    """Tune one job at every provider there is, simulated, while things go wrong on purpose."""
    from app.cli import demo_providers_parts

    sys.exit(demo_providers_parts.run())


@app.command()
def simulate(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Providers, such as openai.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65_000, help="The first one's; the others follow. 0: any.")
    ] = 9001,
    everything: Annotated[bool, typer.Option("--all", help="Every provider there is.")] = False,
    steps: Annotated[int, typer.Option(min=1, max=100_000, help="Of each job.")] = 20,
    seconds_per_step: Annotated[float, typer.Option(min=0.001, help="What one takes.")] = 0.5,
    cheat: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="What goes wrong, such as throttle=20; may be repeated."
        ),
    ] = None,
) -> None:
    """Serve simulated providers on this machine. Ctrl-C stops it."""
    from app.cli import simulate as simulated
    from app.simulators.runs import Plan

    wanted, told = simulated.chosen(names or [], everything), simulated.cheats(cheat or [])
    plan = Plan(steps=steps, step_seconds=seconds_per_step)
    asyncio.run(simulated.serve(wanted, port, plan, told))


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    from app.cli import processes
    from app.core import migrations

    settings = _settings()
    with processes.database_url(settings) as url:
        asyncio.run(migrations.upgrade(url))
    typer.echo("The schema is up to date.")


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
) -> None:
    """Print the GraphQL schema."""
    from app.api.graphql.schema import build

    text = f"{build([])}\n"
    if output:
        output.write_text(text)
    else:
        typer.echo(text, nl=False)


def _welcome(settings: Settings, key: str, first: bool) -> None:
    base = f"http://{settings.host}:{settings.port}"
    if first:
        typer.echo(f"First start. Your owner key, also in {settings.data_dir}/owner-key:\n  {key}")
    typer.echo(f"Dashboard  {base}/#key={key}")
    typer.echo(f"GraphiQL   {base}/graphql#key={key}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in a pipe, too, lines come as they happen
    try:
        app()
    except StartRefused as refusal:
        typer.echo(f"luthier: {refusal}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
