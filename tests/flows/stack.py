"""The whole product as processes: its own Postgres, the API and workers, to be used and killed."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.support import Api

TINY = "tiny"


class Stack:
    """Processes that can be started, and killed without warning."""

    def __init__(
        self, folder: Path, database_url: str, provider_origins: Sequence[str] = ()
    ) -> None:
        self.folder, self.database_url = folder, database_url
        self._origins = json.dumps(list(provider_origins))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.api: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def key(self) -> str:
        return (self.folder / "owner-key").read_text().strip()

    def start(self, verb: str, **settings: str) -> subprocess.Popen[bytes]:
        env = {name: value for name, value in os.environ.items() if "LUTHIER" not in name} | {
            "LUTHIER_DATA_DIR": str(self.folder),
            "LUTHIER_DATABASE_URL": self.database_url,
            "LUTHIER_PORT": str(self.port),
            "LUTHIER_MODEL_ROOTS": f'["{self.folder / "own"}"]',
            "LUTHIER_LEASE_SECONDS": "3",
            "LUTHIER_THREADS": "1",
            "LUTHIER_LOG_LEVEL": "info",
            "LUTHIER_PROVIDER_ORIGINS": self._origins,
            "LUTHIER_PROVIDER_POLL_SECONDS": "0.3",
            "LUTHIER_WANDB_MODE": "offline",
            **settings,
        }
        with (self.folder / f"{verb}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", verb], stdout=log, stderr=log, env=env
            )

    def start_api(self) -> None:
        self.api = self.start("serve")
        deadline = time.monotonic() + 30
        with httpx.Client(trust_env=False, verify=False) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"{self.url}/readyz").status_code == 200:
                        return
                time.sleep(0.1)
        raise TimeoutError((self.folder / "serve.log").read_text()[-2000:])

    def start_worker(self, **settings: str) -> subprocess.Popen[bytes]:
        worker = self.start("work", **settings)
        self.workers.append(worker)
        return worker

    def kill_api(self) -> None:
        assert self.api is not None
        self.api.kill()
        self.api.wait()

    def kill_worker(self) -> None:
        """As a crash of the machine would: no chance to say goodbye."""
        worker = self.workers.pop()
        worker.kill()
        worker.wait()

    def stop_worker(self) -> None:
        """As a deployment of a new version would."""
        worker = self.workers.pop()
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)

    def stop(self) -> None:
        for process in [*self.workers, self.api]:
            if process is not None and process.poll() is None:
                process.terminate()
        for process in [*self.workers, self.api]:
            if process is not None:
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()


_STATUS = "query ($j: ID!) { job(id: $j) { status error { code message } } }"
_ALL = """query ($j: ID!) { job(id: $j) { status requestedAction trainedTokens
  error { code message } progress { step totalSteps percent } model { id name kind }
  attempts { number outcome fromStep } checkpoints { nodes { step metrics { validationLoss } } }
  resultFiles { id filename } metrics(maxPoints: 5000) { step attempt trainingLoss validationLoss
  gradientNorm learningRate } } }"""


async def until(owner: Api, job: str, *statuses: str, seconds: float = 90) -> dict[str, object]:
    """Wait for the job to have one of these statuses; returns what is known of it."""
    deadline = time.monotonic() + seconds
    found: dict[str, object] = {}
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            found = (await owner.execute(_STATUS, j=job))["job"]
            if found["status"] in statuses:
                return dict((await owner.execute(_ALL, j=job))["job"])
        await asyncio.sleep(0.2)
    raise TimeoutError(f"{job} is {found.get('status')}, not {statuses}: {found.get('error')}")


async def step_reached(owner: Api, job: str, step: int) -> None:
    """Wait until the job has come past a step."""
    for _ in range(1200):
        answer = await owner.execute(
            "query ($j: ID!) { job(id: $j) { status progress { step } } }", j=job
        )
        progress = answer["job"]["progress"]
        if progress and progress["step"] >= step:
            return
        assert answer["job"]["status"] not in ("FAILED", "CANCELLED"), answer
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{job} never reached step {step}")
