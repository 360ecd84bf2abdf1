"""Fireworks' own SDK, unchanged, drives the simulator: what it understands is the wire format."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fireworks import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    Fireworks,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)
from fireworks.training.sdk import FireworksClient

from app.providers.fireworks.files import points_of
from app.simulators.fireworks import FireworksSimulator
from app.simulators.runs import Plan
from tests.support import chat_lines, pair_lines

KEY = "fw_simulatedkey1234567890"
BASE = "accounts/fireworks/models/llama-v3p1-8b-instruct"
PLAN = Plan(validating=0.05, queued=0.05, steps=6, step_seconds=0.02)


class Served:
    def __init__(self, simulator: FireworksSimulator, url: str) -> None:
        self.simulator, self.url = simulator, url

    async def drive(self, scenario: Callable[[Fireworks], None], key: str = KEY) -> None:
        """In a thread: the SDK waits, and the simulator runs in this one."""

        def run() -> None:
            with Fireworks(api_key=key, account_id="acme", base_url=self.url) as client:
                scenario(client)

        await asyncio.to_thread(run)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    simulator = FireworksSimulator(PLAN, seed=1)
    simulator.settling = simulator.starting = 0.05
    async with simulator.served() as url:
        yield Served(simulator, url)


def until(look: Callable[[], Any], *wanted: str) -> Any:
    for _ in range(200):
        found = look()
        if found.state in wanted:
            return found
        time.sleep(0.02)
    raise TimeoutError(found)


def dataset(client: Fireworks, id: str, lines: str) -> str:
    client.datasets.create(
        dataset_id=id,
        dataset={"user_uploaded": {}, "example_count": "20", "format": "CHAT"},
    )
    client.datasets.upload(id, file=("data.jsonl", lines.encode()))
    name = until(lambda: client.datasets.get(id), "READY").name
    return str(name)


def fetch(url: str) -> bytes:
    with httpx.Client(trust_env=False) as client:
        return client.get(url).raise_for_status().content


def job(client: Fireworks, id: str, data: str, **more: Any) -> Any:
    return client.supervised_fine_tuning_jobs.create(
        supervised_fine_tuning_job_id=id, dataset=data, base_model=BASE, **more
    )


async def test_datasets(served: Served) -> None:
    def scenario(client: Fireworks) -> None:
        made = client.datasets.create(
            dataset_id="d1", dataset={"user_uploaded": {}, "example_count": "3", "format": "CHAT"}
        )
        assert (made.name, made.state) == ("accounts/acme/datasets/d1", "UPLOADING")
        sent = client.datasets.upload("d1", file=("t.jsonl", chat_lines(3).encode()))
        assert (sent.id, sent.filename, sent.object) == ("d1", "t.jsonl", "file")
        ready = until(lambda: client.datasets.get("d1"), "READY")
        assert ready.format == "CHAT"
        assert int(ready.estimated_token_count) > 0

        content = chat_lines(4).encode()
        client.datasets.create(dataset_id="d2", dataset={"user_uploaded": {}})
        endpoint = client.datasets.get_upload_endpoint(
            "d2", filename_to_size={"t.jsonl": str(len(content))}
        )
        url = (endpoint.filename_to_signed_urls or {})["t.jsonl"]
        bare = url.split("?")[0]
        assert httpx.put(bare, content=content, trust_env=False).status_code == 403
        with_key = {"authorization": f"Bearer {KEY}"}
        assert httpx.put(url, content=content, headers=with_key, trust_env=False).is_error
        assert httpx.put(url, content=content + b"x", trust_env=False).is_error
        assert httpx.put(url, content=content, trust_env=False).is_success
        client.datasets.validate_upload("d2", body={})
        until(lambda: client.datasets.get("d2"), "READY")
        found = client.datasets.get_download_endpoint("d2").filename_to_signed_urls or {}
        assert [fetch(url) for url in found.values()] == [content]
        names = [one.name for one in client.datasets.list(page_size=1)]
        assert names == ["accounts/acme/datasets/d1", "accounts/acme/datasets/d2"]
        client.datasets.delete("d2")
        with pytest.raises(NotFoundError):
            client.datasets.get("d2")

    await served.drive(scenario)


async def test_a_supervised_job(served: Served) -> None:
    def scenario(client: Fireworks) -> None:
        data = dataset(client, "d1", chat_lines(20))
        made = job(
            client,
            "j1",
            data,
            display_name="trial",
            output_model="m1",
            epochs=2,
            learning_rate=1e-4,
            lora_rank=16,
            early_stop=False,
        )
        assert made.name == "accounts/acme/supervisedFineTuningJobs/j1"
        assert made.state == "JOB_STATE_VALIDATING"
        assert (made.epochs, made.lora_rank, made.display_name) == (2, 16, "trial")
        jobs = client.supervised_fine_tuning_jobs
        done = until(lambda: jobs.get("j1"), "JOB_STATE_COMPLETED")
        assert done.completed_time > done.create_time
        assert done.job_progress.percent == 100
        assert done.estimated_cost.currency_code == "USD"
        assert done.status.code == "OK"
        metrics = fetch(done.metrics_file_signed_url)
        assert [point.step for point in points_of(metrics)] == [1, 2, 3, 4, 5, 6]
        model = client.models.get("m1")
        assert (model.name, model.kind, model.state) == (
            done.output_model,
            "HF_PEFT_ADDON",
            "READY",
        )
        assert model.peft_details
        assert (model.peft_details.base_model, model.peft_details.r) == (BASE, 16)
        assert [one.name for one in client.models.list()] == [done.output_model]
        public = [one.name for one in client.models.list(account_id="fireworks", page_size=2)]
        assert BASE in public
        jobs.delete("j1")
        with pytest.raises(NotFoundError):
            jobs.get("j1")

    await served.drive(scenario)


async def test_lists_cancelling_and_resuming(served: Served) -> None:
    served.simulator.plan = Plan(validating=0, queued=0, steps=100, step_seconds=0.02)

    def scenario(client: Fireworks) -> None:
        data = dataset(client, "d1", chat_lines(20))
        for number in range(5):
            job(client, f"j{number}", data)
        jobs = client.supervised_fine_tuning_jobs
        newest = jobs.list(order_by="create_time desc", page_size=2)
        assert [str(one.name)[-2:] for one in newest] == ["j4", "j3", "j2", "j1", "j0"]
        jobs.cancel("j0", body={})
        assert jobs.get("j0").state == "JOB_STATE_CANCELLED"
        with pytest.raises(BadRequestError):
            jobs.cancel("j0", body={})
        stopped = jobs.list(filter='state="JOB_STATE_CANCELLED"')
        assert [str(one.name)[-2:] for one in stopped] == ["j0"]
        with pytest.raises(BadRequestError):
            jobs.resume("j1", body={})
        until(lambda: jobs.get("j1"), "JOB_STATE_RUNNING")
        run = served.simulator.runs["supervisedFineTuningJobs/j1"]
        while not run.pause(served.simulator.now()):
            time.sleep(0.02)
        assert jobs.get("j1").state == "JOB_STATE_PAUSED"
        assert jobs.resume("j1", body={}).name == run_name("j1")
        until(lambda: jobs.get("j1"), "JOB_STATE_RUNNING")

    await served.drive(scenario)


def run_name(id: str) -> str:
    return f"accounts/acme/supervisedFineTuningJobs/{id}"


async def test_preference_jobs(served: Served) -> None:
    def scenario(client: Fireworks) -> None:
        data = dataset(client, "d1", pair_lines(20))
        training: Any = {"base_model": BASE, "epochs": 1, "output_model": "p1"}
        made = client.dpo_jobs.create(
            dpo_job_id="p1",
            dataset=data,
            training_config=training,
            loss_config={"method": "DPO", "dpo": {"beta": 0.1}},
        )
        assert made.loss_config
        assert made.loss_config.method == "DPO"
        until(lambda: client.dpo_jobs.get("p1"), "JOB_STATE_COMPLETED")
        url = client.dpo_jobs.get_metrics_file_endpoint("p1").signed_url
        values = points_of(fetch(str(url)))[-1].values
        assert values["chosen_reward"] == 1
        # As the service has it: who names no loss gets another.
        training = {"base_model": BASE}
        unnamed = client.dpo_jobs.create(dpo_job_id="p2", dataset=data, training_config=training)
        assert unnamed.loss_config
        assert unnamed.loss_config.method == "GRPO"
        client.dpo_jobs.cancel("p2", body={})
        assert client.dpo_jobs.get("p2").state == "JOB_STATE_CANCELLED"
        names = [str(one.name) for one in client.dpo_jobs.list(page_size=1)]
        assert names == ["accounts/acme/dpoJobs/p1", "accounts/acme/dpoJobs/p2"]

    await served.drive(scenario)


async def test_checkpoints(served: Served) -> None:
    """They are in the second client of the SDK, which signs in by another header."""

    def scenario(client: Fireworks) -> None:
        data = dataset(client, "d1", chat_lines(20))
        job(client, "j1", data, sampler_checkpoint_save_interval_steps=4)
        until(lambda: client.supervised_fine_tuning_jobs.get("j1"), "JOB_STATE_COMPLETED")
        training = FireworksClient(api_key=KEY, base_url=served.url)
        assert training.account_id == "acme"
        rows = training.list_training_job_checkpoints(run_name("j1"), page_size=1)
        names = [row["name"].rsplit("/", 1)[-1] for row in rows if row["promotable"]]
        assert names == ["step-4", "step-6"]
        served.simulator.settling = 0  # the client looks every ten seconds
        model = training.promote_training_job_checkpoint(
            f"{run_name('j1')}/checkpoints/step-4", "early", BASE
        )
        assert (model["name"], model["state"]) == ("accounts/acme/models/early", "READY")
        assert client.models.get("early").peft_details
        training._sync_client.close()

    await served.drive(scenario)


async def test_deployments_and_chat(served: Served) -> None:
    def scenario(client: Fireworks) -> None:
        job(client, "j1", dataset(client, "d1", chat_lines(20)), output_model="m1")
        until(lambda: client.supervised_fine_tuning_jobs.get("j1"), "JOB_STATE_COMPLETED")
        tuned = "accounts/acme/models/m1"

        def say(model: str) -> str:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "Good day"}]
            )
            return str(answer.choices[0].message.content)

        made = client.deployments.create(
            deployment_id="x1",
            base_model=tuned,
            deployment_shape="default",
            min_replica_count=0,
            max_replica_count=1,
        )
        assert made.state == "CREATING"
        with pytest.raises(NotFoundError):
            say(f"{tuned}#{made.name}")
        until(lambda: client.deployments.get("x1"), "READY")
        assert "Good day" in say(f"{tuned}#{made.name}")
        assert "Good day" in say(str(made.name))
        with pytest.raises(NotFoundError):
            say(tuned)
        with pytest.raises(ConflictError):
            client.with_options(max_retries=0).deployments.create(
                deployment_id="x1", base_model=tuned, deployment_shape="default"
            )
        client.deployments.scale("x1", replica_count=0)
        assert client.deployments.get("x1").desired_replica_count == 0
        with pytest.raises(BadRequestError):
            client.deployments.delete("x1")
        client.deployments.delete("x1", ignore_checks=True)
        with pytest.raises(NotFoundError):
            client.deployments.get("x1")

        client.deployments.create(
            deployment_id="x2", base_model=BASE, deployment_shape="default", enable_addons=True
        )
        until(lambda: client.deployments.get("x2"), "READY")
        loaded = client.lora.load(
            model=tuned, deployment="accounts/acme/deployments/x2", default=True
        )
        id = str(loaded.name).rsplit("/", 1)[-1]
        until(lambda: client.lora.get(id), "DEPLOYED")
        assert "Good day" in say(tuned)
        chunks = client.chat.completions.create(
            model=tuned, messages=[{"role": "user", "content": "Good day"}], stream=True
        )
        deltas = [chunk.choices[0].delta.content or "" for chunk in chunks]
        assert "Good day" in "".join(deltas)
        client.lora.unload(id)
        with pytest.raises(NotFoundError):
            say(tuned)

    await served.drive(scenario)


async def test_errors(served: Served) -> None:
    simulator = served.simulator

    def scenario(client: Fireworks) -> None:
        data = dataset(client, "d1", chat_lines(20))
        jobs = client.supervised_fine_tuning_jobs
        with pytest.raises(NotFoundError) as missing:
            jobs.get("nobody")
        assert missing.value.body == {
            "code": 5,
            "message": "There is no such job, or it is not yours.",
            "details": [],
        }
        for wrong in ("Capital", "under_score", "x" * 64, "-x"):
            with pytest.raises(BadRequestError):
                job(client, wrong, data)
        with pytest.raises(BadRequestError):
            jobs.create(dataset="nothing", base_model=BASE)
        with pytest.raises(BadRequestError):
            jobs.create(dataset=data, base_model="accounts/fireworks/models/unheard-of")
        once = client.with_options(max_retries=0)
        job(client, "j1", data)
        with pytest.raises(ConflictError):
            job(once, "j1", data)
        client.datasets.create(dataset_id="d2", dataset={"user_uploaded": {}})
        client.datasets.upload("d2", file=("t.jsonl", b'{"prompt": "no messages"}\n' * 5))
        until(lambda: client.datasets.get("d2"), "READY")
        job(client, "j2", "accounts/acme/datasets/d2")
        failed = until(lambda: jobs.get("j2"), "JOB_STATE_FAILED")
        assert failed.status.code == "INVALID_ARGUMENT"
        assert "Line 1" in failed.status.message
        simulator.cheats.throttle = 1
        with pytest.raises(RateLimitError):
            once.supervised_fine_tuning_jobs.get("j1")
        simulator.cheats.errors = 1
        with pytest.raises(InternalServerError):
            once.supervised_fine_tuning_jobs.get("j1")
        simulator.cheats.errors = 1
        assert jobs.get("j1").name == run_name("j1")  # it asks again

    await served.drive(scenario)

    def stranger(client: Fireworks) -> None:
        with pytest.raises(AuthenticationError):
            client.supervised_fine_tuning_jobs.list()

    await served.drive(stranger, key="wrong")
