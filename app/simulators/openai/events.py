"""What the simulated OpenAI tells of a job: its events, and the file with its metrics."""

import base64
import csv
import io
from typing import Any

from app.simulators.runs import Phase, Point, Run


def events_of(run: Run, training_file: str) -> list[dict[str, Any]]:
    """The oldest first; each always with the same id."""
    told: list[tuple[float, str, str, str, dict[str, Any] | None]] = [
        (p.at, "info", _step_words(p, run), "metrics", _step_data(p, run)) for p in run.points
    ]
    for phase, at in run.history:
        words = {
            Phase.VALIDATING: f"Validating training file: {training_file}",
            Phase.QUEUED: "Files validated, moving job to queued state",
            Phase.RUNNING: "Fine-tuning job started",
            Phase.PAUSED: "Fine-tuning job paused",
            Phase.SUCCEEDED: "The job has successfully completed",
            Phase.CANCELLED: "The job has been cancelled",
            Phase.FAILED: "The job failed due to an invalid training file. "
            + (run.failure[1] if run.failure else ""),
        }.get(phase)
        if words:
            told.append((at, "error" if phase is Phase.FAILED else "info", words, "message", None))
    told.sort(key=lambda row: row[0])  # the last step comes before the success it brings
    return [
        {
            "id": f"ftevent-{run.id[6:14]}{number:05d}",
            "object": "fine_tuning.job.event",
            "created_at": int(at),
            "level": level,
            "message": message,
            "type": kind,
            "data": data or {},
        }
        for number, (at, level, message, kind, data) in enumerate(told)
    ]


def result_csv(points: list[Point]) -> bytes:
    """In base64, as the guides' notebooks expect it."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(
        ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    )
    for p in points:
        validation = [p.validation_loss, p.validation_accuracy]
        shown = ["" if value is None else value for value in validation]
        rows.writerow([p.step, p.training_loss, p.training_accuracy, *shown])
    return base64.b64encode(out.getvalue().encode())


def _step_words(point: Point, run: Run) -> str:
    words = f"Step {point.step}/{run.plan.steps}: training loss={point.training_loss:.2f}"
    if point.validation_loss is not None:
        words += f", validation loss={point.validation_loss:.2f}"
    return words


def _step_data(point: Point, run: Run) -> dict[str, Any]:
    data: dict[str, Any] = {
        "step": point.step,
        "total_steps": run.plan.steps,
        "train_loss": point.training_loss,
        "train_mean_token_accuracy": point.training_accuracy,
    }
    if point.validation_loss is not None:
        data["valid_loss"] = point.validation_loss
        data["valid_mean_token_accuracy"] = point.validation_accuracy
    return data
