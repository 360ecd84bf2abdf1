"""What the demonstration of providers would complain of, if it happened."""

from typing import Any

import pytest

from app.cli import demo_providers_checks as checks
from app.cli.demo_providers_board import Row
from app.cli.demo_providers_trouble import Victims
from app.simulators.registry import SIMULATED
from app.simulators.runs import Plan, Run
from app.simulators.simulator import Simulator


def played() -> tuple[Row, dict[str, Any], Simulator]:
    """A job of which everything is known here that happened there."""
    simulator = SIMULATED["openai"].simulator()
    run = Run("ftjob-1", 0, Plan(steps=3))
    run.advance(100)
    simulator.runs[run.id] = run
    losses = {point.step: point.training_loss for point in run.points}
    job = {
        "status": "SUCCEEDED", "providerJobId": run.id, "model": {"name": "ft:1"}, "error": None,
        "metrics": [{"step": step, "trainingLoss": loss} for step, loss in losses.items()],
    }  # fmt: skip
    return Row("openai", losses=losses), job, simulator


def complaints(
    row: Row, job: dict[str, Any], simulator: Simulator, *, succeeded: int = 1, answer: str = "Hi"
) -> str:
    return "; ".join(checks.of_job(row, job, succeeded, answer, simulator))


def test_nothing_is_wrong_with_what_is_right() -> None:
    assert complaints(*played()) == ""
    assert list(checks.of_webhooks([("a", 202)] * 3 + [("a", 401)], 1)) == []


def test_whatever_is_missing_or_twice_is_named() -> None:
    row, job, simulator = played()
    assert "2 times" in complaints(row, job, simulator, succeeded=2)
    assert "no answer" in complaints(row, job, simulator, answer=" ")
    assert "no model" in complaints(row, job | {"model": None}, simulator)
    assert "the job failed: bad" in complaints(
        row, job | {"status": "FAILED", "error": {"message": "bad"}}, simulator
    )
    fewer, twice = job["metrics"][:2], [*job["metrics"], job["metrics"][0]]
    assert "the ledger lacks 1 of 3 steps: [3]" in complaints(
        row, job | {"metrics": fewer}, simulator
    )
    assert "a step twice" in complaints(row, job | {"metrics": twice}, simulator)
    row.measure([{"step": 1, "trainingLoss": 9.0}])
    assert "1 steps came twice" in complaints(row, job, simulator)
    assert "another loss at step 1" in complaints(row, job, simulator)
    simulator.runs["ftjob-2"] = simulator.runs["ftjob-1"]
    assert "2 jobs instead of one" in complaints(row, job, simulator)


@pytest.mark.parametrize(
    ("statuses", "refused"), [([202, 202, 401], 1), ([202] * 4, 0), ([202, 202, 202, 401], 0)]
)
def test_webhooks_are_counted(statuses: list[int], refused: int) -> None:
    assert list(checks.of_webhooks([("a", status) for status in statuses], refused))


def test_each_trouble_finds_a_victim() -> None:
    assert Victims.among(["vertex"]) == Victims(None, "vertex", "vertex", "vertex")
    found = Victims.among(list(SIMULATED))
    assert found.webhooks == "openai"
    assert len({found.webhooks, found.lost, found.down, found.storm}) == 4
