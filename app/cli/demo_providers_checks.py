"""Whether the ledger has all that happened at the providers, and nothing twice."""

from collections.abc import Callable, Iterable
from typing import Any

from app.cli.demo_providers_board import Row
from app.providers.registry import capabilities
from app.simulators.simulator import Simulator

_CLOSE = 1e-3  # a loss that was printed and read again


def of_job(
    row: Row, job: dict[str, Any], succeeded: int, answer: str, simulator: Simulator
) -> Iterable[str]:
    """What is not as it should be. `succeeded` is how often the log says that the job did."""
    if job["status"] != "SUCCEEDED":
        why = (job["error"] or {}).get("message", "no reason given")
        yield f"the job {job['status'].lower()}: {why}"
        return
    if len(simulator.runs) != 1:
        yield f"there are {len(simulator.runs)} jobs instead of one"
    if job["providerJobId"] not in simulator.runs:
        yield f"the ledger's id {job['providerJobId']} is not known there"
    if succeeded != 1:
        yield f"the log says {succeeded} times that the job succeeded"
    if job["model"] is None:
        yield "it has no model"
    if not answer.strip():
        yield "its model gave no answer"
    if capabilities(row.provider).metrics:
        yield from _steps(row, job, simulator)


def _steps(row: Row, job: dict[str, Any], simulator: Simulator) -> Iterable[str]:
    run = next(iter(simulator.runs.values()))
    there = {point.step: point.training_loss for point in run.points}
    kept = {point["step"]: point["trainingLoss"] for point in job["metrics"]}
    if len(kept) != len(job["metrics"]):
        yield "the ledger has a step twice"
    if row.repeated:
        yield f"{row.repeated} steps came twice through the subscription"
    for name, found in (("the ledger", kept), ("the subscription", row.losses)):
        if missing := sorted(there.keys() - found.keys()):
            yield f"{name} lacks {len(missing)} of {len(there)} steps: {missing[:5]}"
        other = [step for step in there if not _close(found.get(step), there[step])]
        if other and not missing:
            yield f"{name} has another loss at step {other[0]}"


def _close(found: float | None, wanted: float) -> bool:
    return found is not None and abs(found - wanted) < _CLOSE


def of_webhooks(sent: list[tuple[str, int]], refused: int) -> Iterable[str]:
    """Three were signed and one was forged."""

    def count(good: Callable[[int], bool]) -> int:
        return sum(good(status) for _, status in sent)

    if (taken := count(lambda status: status == 202)) != 3:
        yield f"{taken} of 3 signed webhooks were taken"
    if (denied := count(lambda status: status == 401)) != 1 or refused != 1:
        yield f"of 1 forged webhook {denied} were refused, and {refused} counted"
