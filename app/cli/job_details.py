"""One job in full."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli import show


def print_job(job: dict[str, Any]) -> None:
    console = show.console()
    console.print(Text(show.clean(job["name"], True), "bold"))
    console.print(show.fields(_facts(job)))
    for title, part in (
        ("Hyperparameters", _hyperparameters(job)),
        ("Newest values", _values(job["latestMetrics"] or {})),
        ("Checkpoints", _checkpoints(job["checkpoints"]["nodes"])),
        ("Attempts", _attempts(job["attempts"]) if len(job["attempts"]) > 1 else None),
    ):
        _section(console, title, part)


def _section(console: Console, title: str, part: Table | None) -> None:
    if part is not None and part.row_count:
        console.print()
        console.print(Text(title, "bold"))
        console.print(part)


def _facts(job: dict[str, Any]) -> list[tuple[str, object]]:
    error, model, judged = job["error"], job["model"], job["evaluation"]
    return [
        ("Id", job["id"]),
        ("Status", _status(job)),
        (
            "Error",
            Text(show.clean(f"{error['message']} ({error['code']})"), "red") if error else "",
        ),
        ("Provider", _elsewhere(job)),
        ("Last seen", _evidence(job["lastEvidence"])),
        ("Waits for", job["queueReason"]),
        ("Progress", _progress(job["progress"])),
        ("Description", job["description"]),
        ("Base model", f"{job['baseModel']}, {job['method']}, {job['provider'].lower()}"),
        ("Training data", _data(job["trainingData"])),
        ("Validation data", _data(job["validationData"])),
        ("Held-out data", _data(judged["data"]) if judged else None),
        ("Graders", ", ".join(one["name"] for one in judged["graders"]) if judged else None),
        ("Seed", job["seed"]),
        ("Metadata", ", ".join(f"{key}={value}" for key, value in job["metadata"].items())),
        ("Hardware", job["hardware"]),
        ("Created", show.when(job["createdAt"])),
        ("Started", show.when(job["startedAt"])),
        ("Finished", show.when(job["finishedAt"])),
        ("Cost", f"{job['cost']:.2f} USD" if job["cost"] is not None else None),
        ("Files", ", ".join(f"{file['filename']} {file['id']}" for file in job["resultFiles"])),
        (
            "Model",
            model and f"{model['name']}\n{', '.join([model['id'], *_made_of(model)])}",
        ),
    ]


def _made_of(model: dict[str, Any]) -> list[str]:
    """What a model's weights are; a provider does not always tell."""
    step, size = model["step"], model["sizeBytes"]
    return [f"of step {step}"] * (step is not None) + [show.size(size)] * (size is not None)


def _elsewhere(job: dict[str, Any]) -> str | None:
    """Its name there, and the provider's own word for how it is."""
    if job["provider"] == "LOCAL":
        return None
    known = [job["provider"].lower(), job["providerJobId"] or "not there yet"]
    return ", ".join([*known, *[f"“{job['providerStatus']}”"] * bool(job["providerStatus"])])


def _evidence(seen: dict[str, Any] | None) -> str | None:
    return f"{show.ago(seen['at'])}, by {seen['source']}" if seen else None


def _status(job: dict[str, Any]) -> Text:
    word = show.status(job["status"])
    if job["requestedAction"]:
        word.append(f", {job['requestedAction'].lower()} requested", "dim")
    if job["isStale"]:
        word.append(", silent for long", "yellow")
    return word


def _progress(progress: dict[str, Any] | None) -> str | None:
    if progress is None:
        return None
    total = f" of {progress['totalSteps']}" if progress["totalSteps"] is not None else ""
    percent = f" ({progress['percent']:.0f} %)" if progress["percent"] is not None else ""
    said = (
        f"step {progress['step']}{total}{percent}, "
        f"epoch {progress['epoch']:.2f} of {progress['totalEpochs']}, "
        f"{show.number(progress['trainedTokens'])} tokens"
    )
    end = show.when(progress["estimatedFinishAt"])
    return f"{said}, done about {end}" if end else said


def _data(version: dict[str, Any] | None) -> str | None:
    if version is None:
        return None
    dataset = (version["dataset"] or {}).get("name", "")
    return f"{dataset} v{version['number']}, {version['caseCount']} cases\n{version['id']}"


def _hyperparameters(job: dict[str, Any]) -> Table:
    asked, resolved = job["hyperparameters"], job["resolvedHyperparameters"] or {}
    made = show.table("NAME", ">ASKED", ">USED")
    for name in dict.fromkeys([*asked, *resolved]):
        show.add_row(made, name, asked.get(name, ""), resolved.get(name, ""))
    return made


def _values(values: dict[str, Any]) -> Table:
    names = {
        "step": "Step",
        "trainingLoss": "Training loss",
        "validationLoss": "Validation loss",
        "trainingAccuracy": "Training accuracy",
        "validationAccuracy": "Validation accuracy",
        "score": "Score",
        "learningRate": "Learning rate",
        "tokensPerSecond": "Tokens per second",
    }
    known = {name: values.get(name) for name in names}
    return show.fields(
        (names[name], show.number(value)) for name, value in known.items() if value is not None
    )


def _checkpoints(found: list[dict[str, Any]]) -> Table:
    made = show.table("ID", ">STEP", ">LOSS", ">VALIDATION", ">SCORE", ">SIZE", ">SAVED")
    for one in found:
        values = one["metrics"]
        show.add_row(
            made, one["id"], one["step"], show.loss(values["trainingLoss"]),
            show.loss(values["validationLoss"]), show.number(one["score"]),
            # A provider does not say how large its weights are.
            show.size(int(one["sizeBytes"]) or None), show.ago(one["createdAt"]),
        )  # fmt: skip
    return made


def _attempts(found: list[dict[str, Any]]) -> Table:
    made = show.table("NUMBER", ">FROM STEP", "OUTCOME", "STARTED", "FINISHED")
    for one in found:
        show.add_row(
            made, one["number"], one["fromStep"] if one["fromStep"] is not None else "-",
            one["outcome"] or "-", show.when(one["startedAt"]) or "-",
            show.when(one["finishedAt"]) or "-",
        )  # fmt: skip
    return made
