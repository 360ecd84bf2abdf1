"""What a training step costs through the worker, beside TRL alone with the same settings.

    python -m tests.bench training [--pairs N]

Both train the embedded model on the same cases, in turn, on one thread. Ours is the CPU time of the
training process and the worker together, TRL's is that of its process; both from the first step to
the last, without loading.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import psutil

from app.core.postgres import EmbeddedPostgres
from app.training import embedded
from app.training.environment import environment
from tests.flows.stack import Stack, until
from tests.support import Api, chat_lines

MOST = 1.05
_CASES, _BATCH, _RATE, _RANK, _SEED = 80, 4, 5e-4, 16, 11


class Sampler(threading.Thread):
    """The CPU time of a process and its training children, against the clock."""

    def __init__(self, worker: int) -> None:
        super().__init__(daemon=True)
        self._worker = psutil.Process(worker)
        self._samples: list[tuple[float, float]] = []
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            try:
                every = [self._worker, *self._worker.children(recursive=True)]
                spent = sum(t.user + t.system for t in (p.cpu_times() for p in every))
            except psutil.Error:
                continue
            self._samples.append((time.time(), spent))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def at(self, moment: float) -> float:
        """Seconds spent until then, between two samples by proportion."""
        for (before, low), (after, high) in zip(self._samples, self._samples[1:], strict=False):
            if before <= moment <= after:
                return low + (high - low) * (moment - before) / (after - before)
        raise ValueError("no sample at that time")


async def ours(stack: Stack, api: Api, cases: str) -> tuple[float, str]:
    """CPU milliseconds per step, and the number format it computed in."""
    with Sampler(stack.workers[0].pid) as sampler:
        job = await api.job_id(
            baseModel=embedded.NAME,
            trainingFile=await api.upload(cases),
            seed=_SEED,
            method={
                "supervised": {
                    "hyperparameters": {
                        "nEpochs": 1,
                        "batchSize": _BATCH,
                        "learningRate": _RATE,
                        "warmupSteps": 0,
                        "loraRank": _RANK,
                        "checkpointInterval": _CASES,
                    }
                }
            },
        )
        await until(api, job, "SUCCEEDED", seconds=600)
        found = await api.execute(
            "query ($j: ID!) { job(id: $j) { metrics { step timestamp } } }", j=job
        )
    points = [p for p in found["job"]["metrics"] if p["step"] > 0]
    first, last = points[0], points[-1]
    spent = sampler.at(_seconds(last)) - sampler.at(_seconds(first))
    (model,) = (stack.folder / "runs" / job).glob("*/model")
    dtype = json.loads((model / "manifest.json").read_text())["environment"]["dtype"]
    return 1000 * spent / (last["step"] - first["step"]), dtype


def alone(stack: Stack, cases: str, dtype: str, folder: Path) -> float:
    """CPU milliseconds per step."""
    (folder / "cases.jsonl").write_text(cases)
    base = stack.folder / "models" / "base" / embedded.NAME
    settings = {
        "data": str(folder / "cases.jsonl"),
        "base": str(base),
        "to": str(folder / "alone"),
        "dtype": dtype,
        "epochs": 1,
        "batch_size": _BATCH,
        "learning_rate": _RATE,
        "seed": _SEED,
        "rank": _RANK,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.plain_trl", str(folder / "settings.json")],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(1),
    )
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return 1000 * float(said["cpu_seconds"]) / int(said["steps"])


def _seconds(point: dict[str, Any]) -> float:
    return datetime.fromisoformat(point["timestamp"]).timestamp()


async def measure(pairs: int) -> list[tuple[float, float]]:
    cases = chat_lines(_CASES)
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = EmbeddedPostgres(folder)
        database.start()
        stack = Stack(folder, database.url)
        try:
            stack.start_api()
            stack.start_worker()
            async with Api(stack.url, stack.key) as api:
                for pair in range(pairs):
                    here, dtype = await ours(stack, api, cases)
                    there = await asyncio.to_thread(alone, stack, cases, dtype, folder)
                    found.append((here, there))
                    print(f"pair {pair + 1}: {here:.0f} ms, alone {there:.0f} ms", flush=True)  # noqa: T201
        finally:
            stack.stop()
            database.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench training", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    pairs = asyncio.run(measure(given.pairs))
    here, there = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    if given.json:
        print(json.dumps({"ours_ms": here, "alone_ms": there, "ratio": ratio}))  # noqa: T201
    else:
        print(  # noqa: T201
            f"CPU per training step: {here:.0f} ms through the worker, {there:.0f} ms with TRL"
            f" alone; median ratio of {len(pairs)} pairs {ratio:.3f} (at most {MOST})"
        )
    if ratio > MOST:
        sys.exit(1)


if __name__ == "__main__":
    main()
