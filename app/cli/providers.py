"""`luthier providers …`: what each can do, access to them, their jobs, and what ends there."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from app.cli import connect, documents, provider_access, show
from app.cli.connect import AsJson, run
from app.cli.pages import collect
from app.client import ApiError, Client
from app.core import clock

providers_app = typer.Typer(help="Places where models are tuned.", no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A provider, as `luthier providers list` names it.")
]
_EVERYTHING = 10_000  # base models: their list is short


@providers_app.command("list")
def list_providers(as_json: AsJson = False) -> None:
    """List the providers: whether they can be used, and what each can do."""
    found = run(lambda client: client.execute(documents.PROVIDERS), as_json)
    access = {one["provider"]: one for one in found["providerCredentials"]}
    rows = [one | {"credential": access.get(one["provider"])} for one in found["providers"]]
    if as_json:
        show.as_json(rows)
        return
    console = show.console()
    console.print(_table(rows))
    for one in rows:
        if one["credentialTrouble"]:
            words = f"{one['provider'].lower()}: {show.clean(one['credentialTrouble'], True)}"
            console.print(words, style="yellow", soft_wrap=True)


def _table(rows: list[dict[str, Any]]) -> Table:
    made = show.table(
        "PROVIDER", "ACCESS", "KEY", "~TUNES BY", "PAUSE", "CHECKPOINTS", "WEBHOOKS", "CALLED"
    )
    for one in rows:
        pause = {(True, True): "yes", (False, True): "resume only"}
        show.add_row(
            made, one["provider"].lower(), _access(one),
            one["credential"]["hint"] if one["credential"] else "-", ", ".join(one["methods"]),
            pause.get((one["canPause"], one["canResume"]), "no"),
            "yes" if one["hasCheckpoints"] else "no", _webhooks(one),
            "once deployed" if one["needsDeployment"] else "at once",
        )  # fmt: skip
    return made


def _access(one: dict[str, Any]) -> Text:
    if one["provider"] == "LOCAL":
        return Text("worker", "green") if one["healthy"] else Text("no worker", "yellow")
    if not one["configured"]:
        return Text("-", "dim")
    word = one["credential"]["status"].lower() if one["credential"] else "ok"
    return Text(word, "green" if one["healthy"] else "yellow")


def _webhooks(one: dict[str, Any]) -> str:
    if not one["webhooks"]:
        return "-"
    known = one["credential"] and one["credential"]["webhooksConfigured"]
    return f"{one['webhooks']}, taken" if known else str(one["webhooks"])


@providers_app.command("connect")
def connect_provider(
    name: Name,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=@FILE",
            help="Such as api_key=@key.txt; name=- reads stdin; name=VALUE works too, but shells "
            "keep a history. May be repeated. Without any: from the variables that the vendor's "
            "SDK reads, such as OPENAI_API_KEY.",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Such as region=us-west-2; may be repeated."),
    ] = None,
    webhook_secret: Annotated[
        str | None,
        typer.Option(metavar="@FILE", help="What its webhooks are signed with; or - for stdin."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Try it at the provider first.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Give the key's project access to a provider, in the place of what it had."""
    provider = name.lower()
    access = provider_access.read(provider, secret or [], setting or [], webhook_secret)
    if access.typed:
        show.complain("A shell keeps what is typed: name=@FILE or name=- leaves no trace.")
    input = access.input(check)

    async def work(client: Client) -> tuple[dict[str, Any], dict[str, Any]]:
        listed = (await client.execute(documents.PROVIDERS))["providers"]
        about = next((one for one in listed if one["provider"] == name.upper()), None)
        if about is None or about["provider"] == "LOCAL":
            known = ", ".join(p["provider"].lower() for p in listed if p["provider"] != "LOCAL")
            raise ApiError(f"There is no provider {name!r}. There are {known}.", "BAD_REQUEST")
        try:
            payload = await client.mutate(documents.SET_PROVIDER_CREDENTIAL, input)
        except ApiError as refused:
            # What is said of a field that does not exist shows what was sent in it.
            raise access.without_secrets(refused) from None
        return dict(payload["credential"]), about

    credential, about = run(work, as_json)
    if as_json:
        show.as_json(credential)
        return
    console = show.console()
    tried = "and it works" if check else "not tried"
    console.print(f"{about['name']} is connected: key {credential['hint']}, {tried}.", style="bold")
    if access.variables:
        console.print(f"From the environment: {', '.join(access.variables)}.", style="dim")
    if about["webhooks"]:
        url = f"{connect.server()[0]}{credential['webhookPath']}"
        state = "taken" if credential["webhooksConfigured"] else "not taken yet: --webhook-secret"
        console.print(f"Its webhooks go to {url} ({state})", soft_wrap=True)


@providers_app.command("disconnect")
def disconnect_provider(name: Name, as_json: AsJson = False) -> None:
    """Forget the access to a provider. Jobs there go on, unseen."""
    input = {"provider": name.upper()}
    payload = run(
        lambda client: client.mutate(documents.REMOVE_PROVIDER_CREDENTIAL, input), as_json
    )
    if as_json:
        show.as_json({"removedId": payload["removedId"]})
    else:
        show.console().print(f"{name.lower()} is disconnected.")


@providers_app.command("import")
def import_jobs(
    name: Name,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]…", help="Jobs by their ids there; the newest without any."),
    ] = None,
    first: Annotated[
        int, typer.Option(min=1, max=200, help="Of the newest, so many at most.")
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """Take jobs that exist at a provider into the ledger. Safe to repeat."""
    input: dict[str, Any] = {"provider": name.upper(), "first": first}
    input |= {"providerJobIds": ids} if ids else {}
    payload = run(lambda client: client.mutate(documents.IMPORT_JOBS, input), as_json)
    found = {key: payload[key] for key in ("imported", "known")}
    if as_json:
        show.as_json(found)
        return
    made = show.table("ID", "~THERE", "STATUS", "~BASE MODEL", "NEW")
    for key, jobs in found.items():
        for job in jobs:
            show.add_row(
                made, job["id"], job["providerJobId"], show.status(job["status"]),
                job["baseModel"], "new" if key == "imported" else "known",
            )  # fmt: skip
    show.console().print(made if made.row_count else f"{name.lower()} shows no jobs.")


@providers_app.command("sunsets")
def sunsets(as_json: AsJson = False) -> None:
    """List base models that end, the soonest first, and those that are listed no more."""
    models = run(
        lambda client: collect(client, documents.BASE_MODELS, "baseModels", _EVERYTHING), as_json
    )
    ending = [one for one in models if one["shutsDownOn"] or one["missingSince"]]
    ending.sort(key=lambda one: (one["shutsDownOn"] or "0000", one["name"]))
    if as_json:
        show.as_json(ending)
        return
    made = show.table("ENDS", ">IN", "PROVIDER", "~MODEL", "LISTED")
    for one in ending:
        missing = one["missingSince"]
        show.add_row(
            made, one["shutsDownOn"] or "not known", _days(one["shutsDownOn"]),
            one["provider"].lower(), one["name"],
            Text(f"not since {missing[:10]}", "yellow") if missing else "yes",
        )  # fmt: skip
    show.console().print(made if made.row_count else "No end of any base model is known.")


def _days(ends: str | None) -> Text:
    if ends is None:
        return Text("-")
    left = (date.fromisoformat(ends) - clock.now().date()).days
    if left < 0:
        return Text("over", "bold red")
    return Text(f"{left} days", "yellow" if left <= 90 else "")


@providers_app.command("matrix")
def matrix(
    readme: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Renew the table in this file.")
    ] = None,
) -> None:
    """Print what this version can do at each provider, as a table in Markdown."""
    # The adapters take half a second to import, and no other verb needs them.
    from app.cli import provider_matrix  # noqa: PLC0415

    if readme is None:
        typer.echo(provider_matrix.matrix())
        return
    try:
        changed = provider_matrix.put_into(readme)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="--readme") from wrong
    typer.echo(f"{readme} {'is renewed' if changed else 'was up to date'}.")
