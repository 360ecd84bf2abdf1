"""What a simulated Together tells of a job while it runs: events, and the metrics of its steps."""

from typing import Any

from app.simulators.answers import at_time
from app.simulators.runs import Phase, Point, Run

_PHASES = {
    Phase.VALIDATING: ("job_pending", "Job created and pending."),
    Phase.QUEUED: ("job_pending", "Job is waiting for hardware."),
    Phase.RUNNING: ("job_start", "Job started."),
    Phase.STOPPING: ("cancel_requested", "Cancellation was requested."),
    Phase.CANCELLED: ("job_stopped", "Job was stopped."),
}


def events_of(
    run: Run, name: str, saved: list[int], epochs: int, done: bool
) -> list[dict[str, Any]]:
    """The oldest first. `done`: its model is put away, which takes a while after training."""
    told: list[tuple[float, str, str, dict[str, Any]]] = []
    for phase, at in run.history:
        if phase in _PHASES:
            told.append((at, *_PHASES[phase], {}))
        if phase is Phase.RUNNING:
            read = {"token_count": run.tokens}
            told.append((at, "training_data_download_complete", "Training data is there.", read))
            told.append((at, "training_start", "Training started.", {}))
        if phase is Phase.FAILED:
            why = run.failure[1] if run.failure else "The job failed."
            told.append((at, "job_error", why, {"level": "error"}))
        if phase is Phase.SUCCEEDED:
            told.append((at, "training_complete", "Training completed.", {}))
            told.append((at, "model_compressing", "Compressing the model.", {}))
    if done:
        at = run.entered_at + run.plan.step_seconds
        path = {"model_path": f"s3://simulated/{name}"}
        told.append((at, "model_upload_complete", f"Model {name} is there.", path))
        told.append((at, "job_complete", "Job completed.", {}))
    told += [_saved(point, run, name) for point in run.points if point.step in saved]
    told += [
        (point.at, "epoch_complete", f"Epoch {point.step * epochs // run.plan.steps} completed.",
         {"step": point.step, "total_steps": run.plan.steps})
        for point in run.points
        if _ends_epoch(point, run, epochs)
    ]  # fmt: skip
    told.sort(key=lambda row: row[0])
    return [
        {
            "object": "fine-tune-event",
            "created_at": at_time(at),
            "level": "info",
            "type": kind,
            "message": message,
            **more,
        }
        for at, kind, message, more in told
    ]


def _saved(point: Point, run: Run, name: str) -> tuple[float, str, str, dict[str, Any]]:
    return (
        point.at,
        "checkpoint_save",
        f"Checkpoint saved at step {point.step}.",
        {
            "step": point.step,
            "total_steps": run.plan.steps,
            "checkpoint_path": f"s3://simulated/{name}-step-{point.step}",
        },
    )


def _ends_epoch(point: Point, run: Run, epochs: int) -> bool:
    before, now = (step * epochs // run.plan.steps for step in (point.step - 1, point.step))
    return now > before


def metrics_of(run: Run, epochs: int, asked: dict[str, Any]) -> list[dict[str, float]]:
    """Flat rows in order of time: one for a step, one more where it was evaluated. `resolution`
    thins out the former only."""
    first, last = int(asked.get("global_step_from", 0)), int(asked.get("global_step_to", 2**31))
    begin, end = asked.get("logged_at_from", 0.0), asked.get("logged_at_to", float("inf"))
    points = [p for p in run.points if first <= p.step <= last and begin <= p.at <= end]
    most = int(asked.get("resolution") or len(points)) or 1
    shown = {points[number * len(points) // most].step for number in range(min(most, len(points)))}
    if len(points) <= most:
        shown = {point.step for point in points}
    rows: list[dict[str, float]] = []
    for point in points:
        head = {
            "timestamp": int(point.at * 1e9),
            "train/global_step": point.step,
            "train/epoch": round(point.step * epochs / run.plan.steps, 4),
        }
        if point.step in shown:
            share = point.step / run.plan.steps
            rows.append(
                {
                    **head,
                    "train/loss": point.training_loss,
                    "train/learning_rate": 1e-5 * (1 - share),
                    "train/grad_norm": round(1.5 - share, 4),
                }
            )
        if point.validation_loss is not None:
            rows.append({**head, "eval/loss": point.validation_loss})
    return rows
