"""What `jobs submit` makes of its options."""

import json
from pathlib import Path
from typing import Any

import typer

from app.cli import documents, show
from app.cli.transfer import upload_with_bar
from app.client import ApiError, Client

_ID_FIELDS = {"dsv": "Data", "file": "File"}


def pairs(given: list[str], option: str) -> dict[str, str]:
    """`key=value` options. Raises a usage error for anything else."""
    found = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is not key=value.", param_hint=option)
        found[key.strip()] = value
    return found


def hyperparameters(named: dict[str, str | None], others: list[str]) -> dict[str, Any]:
    """Named options and `--set`, in the API's spelling, as numbers where they are numbers."""
    given: dict[str, str | None] = {**named, **pairs(others, "--set")}
    found = {_camel(key): _value(text) for key, text in given.items() if text is not None}
    for name in ("adapter", "reasoningEffort"):
        if isinstance(found.get(name), str):
            found[name] = found[name].upper()
    return found


def _camel(name: str) -> str:
    first, *rest = name.replace("-", "_").split("_")
    return first + "".join(word.capitalize() for word in rest)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def method_input(
    method: str, hyperparameters: dict[str, Any], grader: Path | None
) -> dict[str, Any]:
    """The `method` of submitJob. Raises a usage error for a grader that is missing or no JSON."""
    given: dict[str, Any] = {"hyperparameters": hyperparameters}
    if (grader is not None) != (method == "reinforcement"):
        raise typer.BadParameter(
            "Reinforcement needs a grader, the other methods take none.", param_hint="--grader"
        )
    if grader is not None:
        given["grader"] = _json(grader, "--grader")
    return {method: given}


def evaluation_input(graders: Path | None, held_out: str | None) -> dict[str, Any]:
    """The `evaluation` of submitJob, if one is asked for; its data is filled in by `submit`."""
    if (graders is None) != (held_out is None):
        raise typer.BadParameter("Give --graders and --held-out together.", param_hint="--graders")
    return {} if graders is None else {"evaluation": {"graders": _json(graders, "--graders")}}


def _json(file: Path, option: str) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as wrong:
        raise typer.BadParameter(f"{file}: {wrong}.", param_hint=option) from wrong


def check_data(given: str, option: str) -> None:
    """A usage error now is better than a refusal after an upload."""
    if given.partition("_")[0] not in (*_ID_FIELDS, "ds") and not Path(given).is_file():
        raise typer.BadParameter(
            f"{given!r} is no file here, and no id of a dataset, version or file.",
            param_hint=option,
        )


async def data_input(client: Client, what: str, given: str) -> dict[str, str]:
    """The input field for training or validation data; a file here is uploaded first."""
    kind = given.partition("_")[0]
    if Path(given).is_file():
        return {f"{what}File": (await upload_with_bar(client, Path(given)))["id"]}
    if kind == "ds":
        dataset = (await client.execute(documents.DATASET, {"id": given}))["dataset"]
        if dataset is None or dataset["latestVersion"] is None:
            raise ApiError(f"There is no dataset {given}.", "DATASET_NOT_FOUND")
        return {f"{what}Data": dataset["latestVersion"]["id"]}
    return {f"{what}{_ID_FIELDS[kind]}": given}


async def submit(
    client: Client,
    input: dict[str, Any],
    data: str,
    validation: str | None,
    held_out: str | None = None,
) -> dict[str, Any]:
    """The payload of submitJob. A dry run leaves no upload behind."""
    fields: dict[str, Any] = await data_input(client, "training", data)
    if validation is not None:
        fields |= await data_input(client, "validation", validation)
    uploaded = list(fields.values())
    if held_out is not None:
        (id,) = (await data_input(client, "heldOut", held_out)).values()
        uploaded.append(id)
        fields = fields | {"evaluation": {**input["evaluation"], "data": id}}
    try:
        return await client.mutate(documents.SUBMIT_JOB, input | fields)
    finally:
        if input.get("dryRun"):
            await _forget_uploads(client, uploaded, [data, validation or "", held_out or ""])


async def _forget_uploads(client: Client, uploaded: list[str], given: list[str]) -> None:
    for id in uploaded:
        if id.startswith("file_") and id not in given:
            await client.delete_file(id)


def show_submission(payload: dict[str, Any]) -> None:
    console, job, estimate = show.console(), payload["job"], payload["estimate"]
    for warning in payload["warnings"]:
        console.print(f"! {show.clean(warning, True)}", style="yellow", soft_wrap=True)
    if job is not None:
        console.print(f"Submitted {job['id']}  {show.clean(job['name'], True)}", style="bold")
    if estimate is not None:
        console.print(f"Estimate: {_words(estimate)}", soft_wrap=True)
        console.print(f"  {show.clean(estimate['basis'], True)}", style="dim", soft_wrap=True)
    if job is None:
        console.print("Dry run: nothing was created.")


def _words(estimate: dict[str, Any]) -> str:
    low, high = (show.duration(estimate[f"seconds{end}"]) for end in ("Low", "High"))
    cost = estimate["cost"]
    money = "no price known" if cost is None else f"{cost:.2f} {estimate['currency']}"
    return (
        f"{show.number(estimate['tokens'])} tokens, {estimate['epochs']} epoch(s), "
        f"{show.number(estimate['steps'])} steps, {low} to {high}, {money}"
    )
