"""What customers may write, and what "auto" becomes; none of it loads torch."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from app.training.hyperparameters import (
    ReinforcementHyperparameters,
    SupervisedHyperparameters,
)
from app.training.resolve import ResolvedHyperparameters, processes_for, resolve


def auto(cases: int, longest: int = 60, **given: Any) -> ResolvedHyperparameters:
    return resolve(SupervisedHyperparameters(**given), cases, longest)


def test_auto_makes_enough_steps_of_a_small_set_and_few_passes_of_a_large_one() -> None:
    assert [auto(n).n_epochs for n in (1, 10, 100, 240, 500, 2000)] == [25, 20, 3, 1, 2, 3]
    assert [auto(n).batch_size for n in (1, 3, 240, 2000)] == [1, 3, 4, 16]
    demo = auto(240)
    assert (demo.total_steps, demo.lora_rank, demo.learning_rate) == (60, 16, 5e-4)
    assert (demo.checkpoint_interval, demo.eval_interval, demo.warmup_steps) == (12, 12, 0)
    assert auto(2000).warmup_steps == 7
    assert auto(240, adapter="full").learning_rate == 5e-5
    assert auto(240, learning_rate_multiplier=2.0).learning_rate == 1e-3


def test_numbers_are_taken_as_they_are() -> None:
    given: dict[str, Any] = {
        "n_epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.01,
        "warmup_steps": 5,
        "lora_rank": 4,
        "max_length": 99,
        "checkpoint_interval": 3,
        "eval_interval": 2,
    }
    assert given.items() <= auto(17, **given).model_dump().items()
    assert auto(17, **given).total_steps == 6


@pytest.mark.parametrize(
    ("batch", "longest", "passes"),
    [(16, 60, (16, 1)), (16, 100, (8, 2)), (6, 300, (3, 2)), (7, 300, (1, 7)), (4, 5000, (1, 4))],
)
def test_a_batch_is_cut_into_passes_that_fit(
    batch: int, longest: int, passes: tuple[int, int]
) -> None:
    resolved = auto(100, longest, batch_size=batch, max_length=8192)
    per_device = resolved.per_device_batch_size
    assert (per_device, resolved.gradient_accumulation_steps) == passes
    assert resolved.activation_checkpointing is (longest > 1024)


def test_a_short_context_limits_the_automatic_length() -> None:
    assert resolve(SupervisedHyperparameters(), 10, context_length=512).max_length == 512
    assert resolve(SupervisedHyperparameters(), 10, context_length=8192).max_length == 1024


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"learning_rate": 0.1, "learning_rate_multiplier": 2.0}, "learning_rate_multiplier"),
        ({"adapter": "full", "lora_rank": 8}, "lora_rank"),
        ({"n_epochs": 0}, "n_epochs"),
        ({"n_epochs": True}, "n_epochs"),
        ({"n_epochs": "3"}, "n_epochs"),
        ({"batch_size": 257}, "batch_size"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"max_length": 8}, "max_length"),
        ({"adapter": "dora"}, "adapter"),
        ({"lr": 0.1}, "lr"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        SupervisedHyperparameters(**given)


def test_the_api_can_import_the_contract_without_torch() -> None:
    modules = "config, report, environment, manifest, embedded, run, errors"
    check = f"import sys; from app.training import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_several_processes_share_each_batch_evenly() -> None:
    asked = SupervisedHyperparameters(batch_size=6)
    assert [processes_for(asked, 100, most) for most in (1, 2, 3, 4, 8)] == [1, 2, 3, 3, 6]
    too_large = ReinforcementHyperparameters(batch_size=6)
    assert processes_for(too_large, 2, 8) == 1  # the run itself will say what is wrong
    shared = resolve(asked, 100, longest_case_tokens=100, processes=3)
    assert (shared.per_device_batch_size, shared.gradient_accumulation_steps) == (2, 1)
    assert shared.total_steps == resolve(asked, 100).total_steps
    with pytest.raises(ValueError, match="4 processes cannot share evenly"):
        resolve(asked, 100, processes=4)


def test_a_batch_is_cut_smaller_step_by_step() -> None:
    resolved = resolve(SupervisedHyperparameters(batch_size=12), 100, longest_case_tokens=50)
    seen = []
    smaller: ResolvedHyperparameters | None = resolved
    while smaller:
        seen.append((smaller.per_device_batch_size, smaller.activation_checkpointing))
        assert smaller.per_device_batch_size * smaller.gradient_accumulation_steps == 12
        assert smaller.cut_as(resolved) == resolved
        smaller = smaller.with_smaller_passes()
    assert seen == [(n, False) for n in (12, 6, 4, 3, 2, 1)] + [(1, True)]
