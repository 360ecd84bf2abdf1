"""Memory, looked at before a run begins: refused with a reason, or made to fit."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.training.report import Failed, Message, Metrics, Report, Started
from tests.support import run_module
from tests.training.training_helpers import (
    Start,
    Training,
    sha256,
    values_from,
    write_rows,
)

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]
PLAIN = {"adapter": "full", "n_epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
_NEED = re.compile(r"about ([\d.]+) GiB of memory, of ([\d.]+) GiB free")
GIB = 2**30


@pytest.fixture(scope="module")
def long_cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Eight cases of some 250 tokens of the tiny model."""
    file = tmp_path_factory.mktemp("long") / "train.jsonl"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Please sort ticket {n}: " + "where is it? " * 12},
                {"role": "assistant", "content": "the parcel has not arrived " * 4},
            ]
        }
        for n in range(8)
    ]
    write_rows(file, rows)
    return {"training_file": file, "training_sha256": sha256(file)}


def told(report: Report) -> bool:
    return isinstance(report, Failed) or (
        isinstance(report, Message) and _NEED.search(report.message) is not None
    )


def memory(training: Training, line: str) -> int:
    """Bytes, as the system counts them: VmRSS now, VmHWM at most."""
    status = Path(f"/proc/{training.process.pid}/status").read_text()
    found = re.search(rf"{line}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def estimated_and_taken(training: Training) -> tuple[float, float, int]:
    """Bytes by the estimate and by the system, and what the process held before."""
    said = training.wait_for(told)
    assert isinstance(said, Message), said
    held = memory(training, "VmRSS")
    found = _NEED.search(said.message)
    assert found
    training.wait_for(lambda r: isinstance(r, Metrics) and r.step == r.progress.total_steps)
    return float(found[1]) * GIB, memory(training, "VmHWM") - held, held


@pytest.mark.soak
def test_the_estimate_is_near_and_less_memory_changes_no_result(
    start: Start, long_cases: dict[str, Any]
) -> None:
    plenty = start("plenty", hyperparameters=PLAIN, **long_cases)
    estimate, taken, held = estimated_and_taken(plenty)
    assert taken / 2 < estimate < taken * 2
    ample = plenty.end()
    assert ample.started.resolved.per_device_batch_size > 1

    limit = held + int(estimate * 0.8)
    tight = start("tight", hyperparameters=PLAIN, memory_limit=limit, **long_cases).end()
    resolved = tight.started.resolved
    assert resolved.per_device_batch_size * resolved.gradient_accumulation_steps == 4
    assert resolved.per_device_batch_size < ample.started.resolved.per_device_batch_size
    assert any("For lack of memory" in message for message in tight.messages)
    expected = values_from(ample.metrics, 1)
    for step, values in values_from(tight.metrics, 1).items():
        assert values["training_loss"] == pytest.approx(expected[step]["training_loss"], rel=1e-4)


def test_a_run_that_cannot_fit_is_refused_before_it_loads(start: Start) -> None:
    refused = start(hyperparameters=PLAIN, memory_limit=10_000_000).end()
    failed = refused.failed
    assert (failed.code, failed.param) == ("not_enough_memory", "adapter")
    assert "0.00 GiB are free" in failed.message
    assert "Use adapter 'lora'" in failed.message
    assert not [r for r in refused.reports if isinstance(r, Started)]


@pytest.mark.soak
def test_the_estimate_is_near_on_the_embedded_model(
    start: Start, long_cases: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "embedded"
    assert run_module("app.training.convert", "--to", folder).returncode == 0
    for name, dtype, adapter in (
        ("small", "bfloat16", "lora"),
        ("wide", "float32", "lora"),
        ("full", "float32", "full"),
    ):
        run = start(
            name,
            base_model=folder,
            dtype=dtype,
            hyperparameters={**PLAIN, "adapter": adapter},
            **long_cases,
        )
        estimate, taken, _ = estimated_and_taken(run)
        print(f"{name}: {estimate / GIB:.2f} GiB estimated, {taken / GIB:.2f} taken")  # noqa: T201
        assert taken / 1.5 < estimate < taken * 1.5
        run.terminate()
