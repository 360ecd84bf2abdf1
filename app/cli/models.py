"""`luthier models …`: fine-tuned models, deployed and talked to."""

import sys
from contextlib import aclosing
from typing import Annotated, Any

import typer
from rich.text import Text

from app.cli import deploying, documents, show
from app.cli.connect import AsJson, run
from app.cli.pages import collect
from app.client import ApiError, Client

models_app = typer.Typer(help="Fine-tuned models.", no_args_is_help=True)

ModelRef = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's name or id, or the id of its job.")
]


@models_app.command("list")
def list_models(
    base_model: Annotated[str | None, typer.Option(help="Only tuned from this one.")] = None,
    search: Annotated[str | None, typer.Option(help="Part of the name.")] = None,
    deployed: Annotated[
        bool | None, typer.Option("--deployed/--not-deployed", help="Only these.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List fine-tuned models, the newest first."""
    wanted = {"baseModel": base_model, "search": search, "deployed": deployed}
    chosen = {key: value for key, value in wanted.items() if value is not None}
    found = run(lambda client: collect(client, documents.MODELS, "models", limit, chosen), as_json)
    if as_json:
        show.as_json(found)
        return
    console = show.console()
    for model in found:
        live = deploying.live_deployment(model)
        console.print(show.clean(model["name"], True), style="bold", soft_wrap=True)
        facts = [model["id"], model["kind"], show.size(model["sizeBytes"])]
        facts.append(show.ago(model["createdAt"]))
        line = Text(f"  {'  '.join(facts)}  ", "dim")
        console.print(line + (show.status(live["status"]) if live else Text("not deployed")))
    if not found:
        console.print("No models. A job that succeeds makes one.")


@models_app.command("deploy")
def deploy_model(
    model: ModelRef,
    hardware: Annotated[str | None, typer.Option(help="A worker label.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it answers.")] = True,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds to wait; without end when left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a model callable, and wait until it really answers."""
    console = show.console()

    async def work(client: Client) -> tuple[dict[str, Any], dict[str, Any]]:
        found = await deploying.resolve(client, model)
        if as_json or not console.is_terminal:
            made = await deploying.deploy(
                client, found["id"], hardware=hardware, wait=wait, timeout=timeout
            )
            return found, made
        with console.status("deploying") as spinner:
            made = await deploying.deploy(
                client, found["id"], hardware=hardware, wait=wait, timeout=timeout,
                on_status=lambda word: spinner.update(f"deployment {word.lower()}"),
            )  # fmt: skip
        return found, made

    found, deployment = run(work, as_json)
    if as_json:
        show.as_json(deployment)
        return
    name = show.clean(found["name"], True)
    console.print(f"{deployment['id']} is {deployment['status'].lower()}.")
    if deployment["status"] == "READY":
        console.print(f"Talk to it: luthier models chat {name}", soft_wrap=True)


@models_app.command("undeploy")
def undeploy_model(
    target: Annotated[
        str, typer.Argument(metavar="ID", help="A dep_… id, or a model's name or id.")
    ],
    as_json: AsJson = False,
) -> None:
    """Take a deployment down."""

    async def work(client: Client) -> dict[str, Any]:
        id = target
        if not target.startswith("dep_"):
            live = deploying.live_deployment(await deploying.resolve(client, target))
            if live is None:
                raise ApiError(f"{target} is not deployed.", "CONFLICT")
            id = live["id"]
        payload = await client.mutate(documents.UNDEPLOY_MODEL, {"deploymentId": id})
        return dict(payload["deployment"])

    deployment = run(work, as_json)
    if as_json:
        show.as_json(deployment)
        return
    asked = ", undeploy requested" if deployment["requestedAction"] else ""
    show.console().print(f"{deployment['id']} is {deployment['status'].lower()}{asked}.")


@models_app.command("chat")
def chat(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="A deployed model's name or id.")],
    message: Annotated[
        str | None, typer.Argument(help="Without one: a conversation, or stdin when piped.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: the likeliest words.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    as_json: AsJson = False,
) -> None:
    """Talk to a deployed model; the answer is streamed."""
    chosen = {"temperature": temperature, "max_tokens": max_tokens}
    options = {key: value for key, value in chosen.items() if value is not None}
    history = [{"role": "system", "content": system}] if system else []
    if message is None and (as_json or not sys.stdin.isatty()):
        message = sys.stdin.read()

    if message is None:
        _converse(name, history, options)
        return
    asked = [*history, {"role": "user", "content": message}]

    async def work(client: Client) -> None:
        called = await _callable_name(client, name)
        if as_json:
            answer = await client.chat(called, asked, **options)
            show.as_json({"model": called, "answer": answer})
        else:
            await _answer(client, called, asked, options)

    run(work, as_json)


async def _callable_name(client: Client, wanted: str) -> str:
    if wanted.startswith(("model_", "ftjob_")):
        return str((await deploying.resolve(client, wanted))["name"])
    return wanted


async def _answer(
    client: Client, name: str, messages: list[dict[str, Any]], options: dict[str, Any]
) -> str:
    said = ""
    async with aclosing(client.chat_stream(name, messages, **options)) as pieces:
        async for piece in pieces:
            said += piece
            typer.echo(show.clean(piece), nl=False)
            sys.stdout.flush()
    typer.echo()
    return said


def _converse(name: str, history: list[dict[str, Any]], options: dict[str, Any]) -> None:
    """Turn by turn, until an empty line, Ctrl-D or Ctrl-C. Lines are read outside of the event
    loop, which would hold a Ctrl-C back."""
    called = run(lambda client: _callable_name(client, name))
    typer.echo(f"Talking to {show.clean(called, True)}. An empty line or Ctrl-D ends it.", err=True)
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt):
            typer.echo(err=True)
            return
        if not line.strip():
            return
        history.append({"role": "user", "content": line})
        answer = run(lambda client: _answer(client, called, history, options))
        history.append({"role": "assistant", "content": answer})
