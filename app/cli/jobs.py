"""`luthier jobs …`: submit, watch and steer fine-tuning jobs."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from app.cli import documents, job_examples, job_logs, job_submit, job_watch, show
from app.cli.connect import AsJson, run
from app.cli.job_compare import print_comparison
from app.cli.job_details import print_job
from app.cli.job_logs import Level
from app.cli.pages import collect
from app.client import ApiError, Client
from app.jobs.measured import Flag
from app.jobs.states import JobStatus

jobs_app = typer.Typer(help="Fine-tuning jobs.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, ftjob_….")]


@jobs_app.command("list")
def list_jobs(
    status: Annotated[
        list[JobStatus] | None, typer.Option(help="Only these; may be repeated.")
    ] = None,
    provider: Annotated[list[str] | None, typer.Option(help="Only there, such as local.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Only tuned from this one.")] = None,
    search: Annotated[str | None, typer.Option(help="Part of the name or description.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    wanted = {
        "status": [one.name for one in status] if status else None,
        "provider": [one.upper() for one in provider] if provider else None,
        "baseModel": base_model,
        "search": search,
    }
    chosen = {key: value for key, value in wanted.items() if value is not None}
    jobs = run(lambda client: collect(client, documents.JOBS, "jobs", limit, chosen), as_json)
    if as_json:
        show.as_json(jobs)
    elif jobs:
        show.console().print(_table(jobs))
    else:
        show.console().print("No jobs. Submit one with `luthier jobs submit`.")


def _table(jobs: list[dict[str, Any]]) -> Table:
    elsewhere = any(job["provider"] != "LOCAL" for job in jobs)
    where = ["PROVIDER"] if elsewhere else []
    made = show.table("ID", "~NAME", *where, "STATUS", ">DONE", ">LOSS", ">CREATED")
    for job in jobs:
        place = [job["provider"].lower()] if elsewhere else []
        values, progress = job["latestMetrics"] or {}, job["progress"]
        known = progress is not None and progress["percent"] is not None
        done = f"{progress['percent']:.0f} %" if known else "-"
        loss = values.get("validationLoss") or values.get("trainingLoss")
        show.add_row(
            made, job["id"], job["name"], *place, show.status(job["status"]), done,
            "-" if loss is None else f"{loss:.3f}", show.ago(job["createdAt"]),
        )  # fmt: skip
    return made


@jobs_app.command("get")
def get_job(id: JobId, as_json: AsJson = False) -> None:
    """Show a job: settings, progress, newest values, checkpoints, model."""

    async def ask(client: Client) -> dict[str, Any]:
        job = (await client.execute(documents.JOB, {"id": id}))["job"]
        if job is None:
            raise ApiError(f"There is no job {id}.", "JOB_NOT_FOUND")
        return dict(job)

    job = run(ask, as_json)
    if as_json:
        show.as_json(job)
    else:
        print_job(job)


@jobs_app.command("submit")
def submit_job(
    base_model: Annotated[str, typer.Option(help="What to tune.")],
    data: Annotated[
        str, typer.Option(help="Training data: a JSONL file here, or a ds_…, dsv_… or file_… id.")
    ],
    validation: Annotated[str | None, typer.Option(help="Validation data, likewise.")] = None,
    method: Annotated[
        Literal["supervised", "dpo", "reinforcement"],
        typer.Option(help="How to tune; the data must fit it."),
    ] = "supervised",
    grader: Annotated[
        Path | None, typer.Option(help="For reinforcement: a JSON file with a GraderInput.")
    ] = None,
    graders: Annotated[
        Path | None,
        typer.Option(
            help="Judge every checkpoint, and keep the best: a JSON file with a list of "
            'NamedGraderInput: {"name", "grader", "weight"}. Needs --held-out.'
        ),
    ] = None,
    held_out: Annotated[
        str | None, typer.Option(help="Questions to judge by: a JSONL file here, or an id.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Part of the model's name.")] = None,
    epochs: Annotated[str | None, typer.Option(help='Passes over the data, or "auto".')] = None,
    batch_size: Annotated[str | None, typer.Option(help='Cases a step, or "auto".')] = None,
    learning_rate: Annotated[str | None, typer.Option(help='A number, or "auto".')] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random choice.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any hyperparameter; may be repeated."),
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A pair of your own; repeatable.")
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(help="Where to tune it, such as openai; see `luthier providers list`."),
    ] = None,
    hardware: Annotated[str | None, typer.Option(help="A worker label.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and estimate; create nothing.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Then watch it run.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key again gives the same job.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a fine-tuning job."""
    job_submit.check_data(data, "--data")
    if validation is not None:
        job_submit.check_data(validation, "--validation")
    if held_out is not None:
        job_submit.check_data(held_out, "--held-out")
    named = {"n_epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    settings = job_submit.hyperparameters(named, set_ or [])
    own = job_submit.pairs(metadata or [], "--metadata")
    optional = {
        "name": name,
        "suffix": suffix,
        "provider": provider and provider.upper(),
        "hardware": hardware,
        "idempotencyKey": idempotency_key,
        "seed": None if seed is None else str(seed),
        "metadata": [{"key": key, "value": value} for key, value in own.items()] or None,
    }
    input = {
        "baseModel": base_model,
        "method": job_submit.method_input(method, settings, grader),
        **job_submit.evaluation_input(graders, held_out),
        "dryRun": dry_run,
        **{key: value for key, value in optional.items() if value is not None},
    }
    payload = run(
        lambda client: job_submit.submit(client, input, data, validation, held_out), as_json
    )
    follows = watch and payload["job"] is not None
    if as_json:
        (show.json_line if follows else show.as_json)(payload)
    else:
        job_submit.show_submission(payload)
    if follows:
        _watch(payload["job"]["id"], "0", stay=False, as_json=as_json)


@jobs_app.command("watch")
def watch_job(
    id: JobId,
    stay: Annotated[
        bool, typer.Option("--stay", help="Wait through pauses instead of ending at one.")
    ] = False,
    after: Annotated[
        str, typer.Option(help="With --json: only the events after this cursor.")
    ] = "0",
    as_json: AsJson = False,
) -> None:
    """Watch a job live until it is over.

    Exit status: 0 succeeded, 1 failed (or no answer), 3 cancelled, 4 paused.
    With --json: one event a line.
    """
    _watch(id, after, stay=stay, as_json=as_json)


def _watch(id: str, after: str, *, stay: bool, as_json: bool) -> None:
    async def tell(event: dict[str, Any]) -> None:
        show.json_line(event)

    async def work(client: Client) -> dict[str, Any]:
        if as_json:
            return await job_watch.follow(client, id, tell, after=after, stay=stay)
        return await job_watch.View(client, id).run(stay=stay)

    job = run(work, as_json)
    if not as_json:
        _conclude(job)
    raise typer.Exit(job_watch.EXIT_STATUS.get(job["status"], 1))


def _conclude(job: dict[str, Any]) -> None:
    console = show.console()
    match job["status"]:
        case "SUCCEEDED" if job["model"]:
            name = show.clean(job["model"]["name"], True)
            console.print(f"Model {name}", style="bold green", soft_wrap=True)
            console.print(f"Deploy it: luthier models deploy {name}", soft_wrap=True)
        case "FAILED":
            why = (job["error"] or {}).get("message", "no reason given")
            console.print(f"Failed: {show.clean(why, True)}", style="bold red", soft_wrap=True)
        case "PAUSED":
            console.print(f"Paused. Go on with: luthier jobs resume {job['id']}", soft_wrap=True)
        case other:
            console.print(f"The job is {other.lower()}.")


@jobs_app.command("logs")
def logs_of_job(
    id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job is over.")
    ] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last so many.")] = None,
    level: Annotated[Level, typer.Option(help="At least this one.")] = Level.INFO,
    metrics: Annotated[bool, typer.Option("--metrics", help="Single steps too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what happened to a job."""
    put = show.json_line if as_json else _print_event
    run(lambda client: job_logs.read(client, id, put, level, tail, metrics, follow), as_json)


def _print_event(event: dict[str, Any]) -> None:
    show.console().print(show.event_line(event), soft_wrap=True)


@jobs_app.command("examples")
def examples_of_job(
    id: JobId,
    split: Annotated[
        Literal["training", "validation"] | None, typer.Option(help="Only of this data.")
    ] = None,
    flag: Annotated[Flag | None, typer.Option(help="Only those flagged so.")] = None,
    order: Annotated[
        Literal["loss-desc", "loss-asc", "line-asc"], typer.Option(help="In which order.")
    ] = "loss-desc",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show which cases the finished model knows least, with their lines in the file."""
    wanted = {
        "id": id,
        "split": split and split.upper(),
        "flag": flag and flag.name,
        "order": order.upper().replace("-", "_"),
    }
    found = run(lambda client: job_examples.read(client, wanted, limit), as_json)
    if as_json:
        show.as_json(found)
    else:
        job_examples.print_examples(found)


@jobs_app.command("pause")
def pause_job(id: JobId, as_json: AsJson = False) -> None:
    """Set a job aside; a running one saves a checkpoint first."""
    _act("pause", {"id": id}, as_json)


@jobs_app.command("resume")
def resume_job(id: JobId, as_json: AsJson = False) -> None:
    """Go on with a paused job, from its checkpoint."""
    _act("resume", {"id": id}, as_json)


@jobs_app.command("cancel")
def cancel_job(
    id: JobId,
    discard: Annotated[
        bool, typer.Option("--discard", help="Its checkpoints too; else they stay.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """End a job that is not over."""
    _act("cancel", {"id": id, "keepCheckpoints": not discard}, as_json)


@jobs_app.command("restart")
def restart_job(
    id: JobId,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Forget its checkpoints.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a failed or cancelled job again."""
    _act("restart", {"id": id, "fromScratch": from_scratch}, as_json)


@jobs_app.command("rerun")
def rerun_job(
    id: JobId,
    name: Annotated[str | None, typer.Option(help="The new job's name.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key again gives the same new job.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Then watch it run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a finished job again, to the digit: same data, numbers and seed."""
    input = {"id": id, "name": name, "idempotencyKey": idempotency_key}
    job = run(lambda client: client.mutate(documents.RERUN_JOB, input), as_json)["job"]
    if as_json:
        (show.json_line if watch else show.as_json)(job)
    else:
        show.console().print(f"{job['id']} repeats {id}.")
    if watch:
        _watch(job["id"], "0", stay=False, as_json=as_json)


@jobs_app.command("compare")
def compare_jobs(
    ids: Annotated[list[str], typer.Argument(metavar="ID ID…", help="Two to five jobs.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is the same in all of them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what sets jobs apart: settings, results, curves."""
    found = run(lambda client: client.execute(documents.COMPARE_JOBS, {"ids": ids}), as_json)
    if as_json:
        show.as_json(found["compareJobs"])
    else:
        print_comparison(found["compareJobs"], everything)


@jobs_app.command("delete")
def delete_job(id: JobId, as_json: AsJson = False) -> None:
    """Delete a finished job. Its audit trail stays."""
    payload = run(lambda client: client.mutate(documents.DELETE_JOB, {"id": id}), as_json)
    if as_json:
        show.as_json({"deletedId": payload["deletedId"]})
    else:
        show.console().print(f"Deleted {payload['deletedId']}.")


def _act(verb: str, input: dict[str, Any], as_json: bool) -> None:
    payload = run(lambda client: client.mutate(documents.job_action(verb), input), as_json)
    job = payload["job"]
    if as_json:
        show.as_json(job)
        return
    asked = f", {job['requestedAction'].lower()} requested" if job["requestedAction"] else ""
    show.console().print(f"{job['id']} is {job['status'].lower()}{asked}.")
