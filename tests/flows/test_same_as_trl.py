"""The worker adds nothing to the numbers: TRL alone gives the same weights."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.training.environment import environment
from tests.flows.stack import TINY, Stack, until
from tests.support import Api, chat_lines

pytestmark = [pytest.mark.train, pytest.mark.soak, pytest.mark.timeout(180)]
SEED, RANK, EPOCHS, BATCH, RATE = 11, 8, 3, 4, 0.004


async def test_a_job_gives_the_adapter_that_trl_alone_gives(
    owner: Api, stack: Stack, tmp_path: Path
) -> None:
    cases = chat_lines(24)
    job = await owner.job_id(
        baseModel=TINY,
        trainingFile=await owner.upload(cases),
        seed=SEED,
        method={
            "supervised": {
                "hyperparameters": {
                    "nEpochs": EPOCHS,
                    "batchSize": BATCH,
                    "learningRate": RATE,
                    "warmupSteps": 0,
                    "loraRank": RANK,
                }
            }
        },
    )
    await until(owner, job, "SUCCEEDED")
    (ours,) = (stack.folder / "runs" / job).glob("*/model")
    manifest = json.loads((ours / "manifest.json").read_text())

    (tmp_path / "cases.jsonl").write_text(cases)
    settings = {
        "data": str(tmp_path / "cases.jsonl"),
        "base": str(stack.folder / "own" / TINY),
        "to": str(tmp_path / "alone"),
        "dtype": manifest["environment"]["dtype"],
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "learning_rate": RATE,
        "seed": SEED,
        "rank": RANK,
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.training.plain_trl", str(tmp_path / "settings.json")],
        check=True,
        capture_output=True,
        env=environment(1),
        timeout=120,
    )

    from safetensors.torch import load_file  # noqa: PLC0415 - needs torch

    through_us = load_file(ours / "adapter_model.safetensors")
    alone = load_file(tmp_path / "alone" / "adapter_model.safetensors")
    assert through_us.keys() == alone.keys()
    assert all(through_us[name].equal(alone[name]) for name in alone)
    assert any(alone[name].abs().max() > 0 for name in alone if "lora_B" in name)
