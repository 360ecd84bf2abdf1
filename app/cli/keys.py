"""`luthier keys …`: API keys."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli import documents, show
from app.cli.connect import AsJson, run
from app.client import Client
from app.core import clock

keys_app = typer.Typer(help="API keys.", no_args_is_help=True)


class ScopeName(StrEnum):
    """The scopes in short."""

    FINE_TUNING_READ = "read"
    FINE_TUNING_WRITE = "write"
    INFERENCE = "inference"
    ADMIN = "admin"


_USUAL = [ScopeName.FINE_TUNING_READ, ScopeName.FINE_TUNING_WRITE, ScopeName.INFERENCE]


@keys_app.command("list")
def list_keys(
    everything: Annotated[bool, typer.Option("--all", help="Revoked ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the organization's API keys, without their secrets."""

    async def work(client: Client) -> list[dict[str, Any]]:
        found = (await client.execute(documents.API_KEYS))["apiKeys"]
        return [key for key in found if everything or key["revokedAt"] is None]

    keys = run(work, as_json)
    if as_json:
        show.as_json(keys)
        return
    made = show.table("ID", "~NAME", "BEGINS", "SCOPES", ">USED")
    for key in keys:
        scopes = ",".join(_short(scope) for scope in key["scopes"])
        used = "revoked" if key["revokedAt"] else show.ago(key["lastUsedAt"])
        show.add_row(made, key["id"], key["name"], key["prefix"], scopes, used)
    show.console().print(made)


def _short(scope: str) -> str:
    return ScopeName[scope].value if scope in ScopeName.__members__ else scope.lower()


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="For people.")],
    scope: Annotated[
        list[ScopeName] | None,
        typer.Option(help="May be repeated; read, write and inference when left out."),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="It ends after so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is shown this once."""
    input: dict[str, Any] = {"name": name, "scopes": [one.name for one in scope or _USUAL]}
    if days is not None:
        input["expiresAt"] = (clock.now() + timedelta(days=days)).isoformat()
    payload = run(lambda client: client.mutate(documents.CREATE_API_KEY, input), as_json)
    if as_json:
        show.as_json({"apiKey": payload["apiKey"], "secret": payload["secret"]})
        return
    typer.echo(payload["secret"])
    typer.echo(f"Key {payload['apiKey']['id']}. Keep it now: it is not shown again.", err=True)


@keys_app.command("revoke")
def revoke_key(
    id: Annotated[str, typer.Argument(metavar="ID", help="The key's id.")],
    as_json: AsJson = False,
) -> None:
    """End an API key for ever."""
    payload = run(lambda client: client.mutate(documents.REVOKE_API_KEY, {"id": id}), as_json)
    if as_json:
        show.as_json(payload["apiKey"])
    else:
        show.console().print(f"Key {payload['apiKey']['id']} is revoked.")
