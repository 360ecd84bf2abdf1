"""The official SDK of Together drives the simulator: what it accepts has the real wire format."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import together

from app.simulators.runs import Plan
from app.simulators.together import TogetherSimulator
from tests.support import chat_lines, pair_lines

KEY, PROJECT = "tgp_simulated-key-1234567890", "proj_simulated"
MODEL = "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference"
QUICK = Plan(validating=0.05, queued=0.05, stopping=0.2, steps=12, step_seconds=0.02)


@contextmanager
def serving(plan: Plan = QUICK) -> Iterator[tuple[TogetherSimulator, str]]:
    """In a thread, because the SDK's usual client is not asynchronous."""
    simulator, urls, ended = TogetherSimulator(plan, seed=1), Queue[str](), Event()

    async def serve() -> None:
        async with simulator.served() as url:
            urls.put(url)
            await asyncio.to_thread(ended.wait)

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield simulator, urls.get(timeout=10)
    finally:
        ended.set()
        thread.join(10)


@pytest.fixture
def world() -> Iterator[tuple[TogetherSimulator, together.Together]]:
    with serving() as (simulator, url), client(url) as sdk:
        yield simulator, sdk


def client(url: str, key: str = KEY) -> together.Together:
    http = together.DefaultHttpxClient(trust_env=False)
    return together.Together(
        base_url=url, api_key=key, project_id=PROJECT, max_retries=0, http_client=http
    )


def until(look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    for _ in range(200):
        if wanted(found := look()):
            return found
        time.sleep(0.03)
    raise TimeoutError(str(found))


def upload(sdk: together.Together, folder: Path, content: str, name: str = "cases.jsonl") -> str:
    path = folder / name
    path.write_text(content)
    id = sdk.files.upload(path, purpose="fine-tune").id
    until(lambda: sdk.files.retrieve(id), lambda file: file.processing_status == "COMPLETED")
    return id


def done(sdk: together.Together, id: str) -> Any:
    over = ("completed", "error", "cancelled")
    return until(lambda: sdk.fine_tuning.retrieve(id), lambda job: job.status in over)


def test_files(world: tuple[TogetherSimulator, together.Together], tmp_path: Path) -> None:
    simulator, sdk = world
    id = upload(sdk, tmp_path, chat_lines(12))
    file = sdk.files.retrieve(id)
    assert (file.filename, file.purpose, file.file_type) == ("cases.jsonl", "fine-tune", "jsonl")
    assert file.validation_report
    assert file.validation_report.dataset_format == "CONVERSATION"
    assert file.validation_report.nlines == 12
    assert sdk.files.content(id).read().decode() == chat_lines(12)
    assert simulator.store_requests == [("PUT", 200)]
    # The same bytes again: the SDK is told of the file there is.
    assert upload(sdk, tmp_path, chat_lines(12), "again.jsonl") == id
    assert [one.id for one in sdk.files.list().data] == [id]
    assert sdk.files.delete(id).deleted
    with pytest.raises(together.NotFoundError):
        sdk.files.retrieve(id)


def test_a_file_of_no_known_format(
    world: tuple[TogetherSimulator, together.Together], tmp_path: Path
) -> None:
    _, sdk = world
    path = tmp_path / "strange.jsonl"
    path.write_text('{"question": "?"}\n')
    id = sdk.files.upload(path).id
    over = ("COMPLETED", "INVALID_FORMAT")
    file = until(lambda: sdk.files.retrieve(id), lambda one: one.processing_status in over)
    assert file.processing_status == "INVALID_FORMAT"
    assert "line 1" in file.validation_report.error
    with pytest.raises(together.BadRequestError):
        sdk.fine_tuning.create(training_file=id, model=MODEL)


def test_the_store_wants_its_token_and_nothing_else(
    world: tuple[TogetherSimulator, together.Together],
) -> None:
    _, sdk = world
    told = {"purpose": "fine-tune", "file_name": "a.jsonl", "file_type": "jsonl", "checksum": ""}
    fields = {name: (None, value.encode()) for name, value in told.items()}
    with httpx.Client(trust_env=False) as http:
        key = {"authorization": f"Bearer {KEY}"}
        answer = http.post(str(sdk.base_url.join("/v1/files")), files=fields, headers=key)
        where = answer.headers["location"]
        assert answer.status_code == 302
        assert not where.startswith(str(sdk.base_url))
        assert http.put(where, content=b"x", headers=key).status_code == 400
        assert http.put(where.partition("?")[0], content=b"x").status_code == 403
        assert http.put(where, content=b"x").status_code == 200


def test_a_supervised_job(
    world: tuple[TogetherSimulator, together.Together], tmp_path: Path
) -> None:
    _, sdk = world
    training = upload(sdk, tmp_path, chat_lines(12))
    validation = upload(sdk, tmp_path, chat_lines(8, "item"))
    made = sdk.fine_tuning.create(
        training_file=training,
        validation_file=validation,
        model=MODEL,
        n_epochs=2,
        n_evals=4,
        n_checkpoints=3,
        lora=True,
        suffix="trial",
        random_seed=7,
    )
    assert made.status in ("pending", "queued", "running")
    assert made.suffix == "trial"
    job = done(sdk, made.id)
    assert job.status == "completed"
    assert job.x_model_output_name.startswith(
        "simulated/Meta-Llama-3.1-8B-Instruct-Reference-trial"
    )
    assert job.api_model_object_id.startswith("ml_")
    assert job.training_type.lora_r == 8
    assert job.total_price > 0
    assert [one.id for one in sdk.fine_tuning.list().data] == [made.id]
    kinds = [event.type for event in sdk.fine_tuning.list_events(made.id).data]
    assert {"job_pending", "training_start", "checkpoint_save", "job_complete"} <= set(kinds)
    assert kinds.count("epoch_complete") == 2
    saved = sdk.fine_tuning.list_checkpoints(made.id).data
    assert sorted({one.step for one in saved}) == [4, 8, 12]
    assert {one.checkpoint for one in saved} == {"model", "adapter"}
    assert sdk.fine_tuning.content(ft_id=made.id, checkpoint="merged").read()
    assert sdk.fine_tuning.delete(made.id).message
    with pytest.raises(together.NotFoundError):
        sdk.fine_tuning.retrieve(made.id)


def test_metrics_and_their_filters(
    world: tuple[TogetherSimulator, together.Together], tmp_path: Path
) -> None:
    _, sdk = world
    training = upload(sdk, tmp_path, chat_lines(12))
    validation = upload(sdk, tmp_path, chat_lines(8, "item"))
    made = sdk.fine_tuning.create(
        training_file=training, validation_file=validation, model=MODEL, n_evals=4
    )
    done(sdk, made.id)

    def rows(**asked: Any) -> tuple[list[float], list[float]]:
        found = sdk.fine_tuning.list_metrics(made.id, **asked).metrics or []
        steps = [(row["train/global_step"], "eval/loss" in row) for row in found]
        return [s for s, evaluated in steps if not evaluated], [s for s, e in steps if e]

    assert rows() == (list(range(1, 13)), [3, 6, 9, 12])
    assert rows(global_step_from=5, global_step_to=7) == ([5, 6, 7], [6])
    trained, evaluated = rows(resolution=4)
    assert len(trained) == 4
    assert evaluated == [3, 6, 9, 12]
    assert rows(logged_at_to="2020-01-01T00:00:00Z") == ([], [])


def test_preferences(world: tuple[TogetherSimulator, together.Together], tmp_path: Path) -> None:
    _, sdk = world
    pairs = upload(sdk, tmp_path, pair_lines(12))
    made = sdk.fine_tuning.create(
        training_file=pairs, model=MODEL, training_method="dpo", dpo_beta=0.2, lora=True
    )
    job = done(sdk, made.id)
    assert job.status == "completed"
    assert (job.training_method.method, job.training_method.dpo_beta) == ("dpo", 0.2)
    with pytest.raises(together.BadRequestError):
        sdk.fine_tuning.create(training_file=pairs, model=MODEL)


def test_cancelling(world: tuple[TogetherSimulator, together.Together], tmp_path: Path) -> None:
    _, sdk = world
    made = sdk.fine_tuning.create(training_file=upload(sdk, tmp_path, chat_lines(12)), model=MODEL)
    assert sdk.fine_tuning.cancel(made.id).status == "cancel_requested"
    assert done(sdk, made.id).status == "cancelled"
    with pytest.raises(together.BadRequestError):
        sdk.fine_tuning.cancel(made.id)


def test_a_price_beforehand(
    world: tuple[TogetherSimulator, together.Together], tmp_path: Path
) -> None:
    simulator, sdk = world
    asked: Any = {"training_file": upload(sdk, tmp_path, chat_lines(12)), "model": MODEL}
    one = sdk.fine_tuning.estimate_price(**asked, n_epochs=1)
    three = sdk.fine_tuning.estimate_price(**asked, n_epochs=3)
    assert one.estimation_available
    assert three.estimation_available
    assert three.estimated_train_token_count == 3 * (one.estimated_train_token_count or 0)
    simulator.plan = Plan(validating=600)
    path = tmp_path / "slow.jsonl"
    path.write_text(chat_lines(5))
    slow = sdk.files.upload(path)
    unknown = sdk.fine_tuning.estimate_price(training_file=slow.id, model=MODEL)
    assert not unknown.estimation_available
    assert unknown.unavailable_reason == "train_file_not_validated"


def test_an_endpoint_answers_once_it_has_traffic(
    world: tuple[TogetherSimulator, together.Together], tmp_path: Path
) -> None:
    _, sdk = world
    made = sdk.fine_tuning.create(training_file=upload(sdk, tmp_path, chat_lines(12)), model=MODEL)
    model = f"projects/{PROJECT}/models/{done(sdk, made.id).api_model_object_id}"
    endpoint = sdk.endpoints.create(name="ours")
    assert endpoint.name == "simulated/ours"
    with pytest.raises(together.ConflictError):
        sdk.endpoints.create(name="ours")
    there = sdk.endpoints.deployments.create(
        endpoint.id,
        name="first",
        model=model,
        autoscaling={"min_replicas": 1, "max_replicas": 1},
        inactive_timeout=30,
    )
    assert there.status.state == "DEPLOYMENT_STATE_PROVISIONING"

    def state() -> str:
        found = sdk.endpoints.deployments.retrieve(there.id, endpoint_id=endpoint.id)
        return found.status.state

    def ask(name: str) -> Any:
        return sdk.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "Good day"}]
        )

    until(state, lambda found: found == "DEPLOYMENT_STATE_READY")
    with pytest.raises(together.NotFoundError):
        ask(endpoint.name)
    assert "Good day" in ask(there.name).choices[0].message.content
    split: Any = [{"deployment_id": there.id, "weight": 1}]
    with pytest.raises(together.ConflictError):
        sdk.endpoints.update(endpoint.id, etag="old", traffic_split=split)
    sdk.endpoints.update(endpoint.id, etag=endpoint.etag, traffic_split=split)
    assert "Good day" in ask(endpoint.name).choices[0].message.content
    streamed = sdk.chat.completions.create(
        model=endpoint.name, messages=[{"role": "user", "content": "Good day"}], stream=True
    )
    words = [chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices]
    assert "Good day" in "".join(words)
    assert [one.id for one in sdk.endpoints.list()] == [endpoint.id]
    with pytest.raises(together.BadRequestError):
        sdk.endpoints.deployments.delete(there.id, endpoint_id=endpoint.id)
    sdk.endpoints.update(endpoint.id, traffic_split=[])
    sdk.endpoints.deployments.update(
        there.id, endpoint_id=endpoint.id, autoscaling={"min_replicas": 0, "max_replicas": 0}
    )
    until(state, lambda found: found == "DEPLOYMENT_STATE_STOPPED")
    sdk.endpoints.deployments.delete(there.id, endpoint_id=endpoint.id)
    sdk.endpoints.delete(endpoint.id)
    with pytest.raises(together.NotFoundError):
        sdk.endpoints.retrieve(endpoint.id)


def test_errors_have_their_classes(
    world: tuple[TogetherSimulator, together.Together], tmp_path: Path
) -> None:
    simulator, sdk = world
    with pytest.raises(together.AuthenticationError), client(str(sdk.base_url), "wrong") as other:
        other.fine_tuning.list()
    with pytest.raises(together.NotFoundError):
        sdk.fine_tuning.model_limits(model_name="nobody/nothing")
    simulator.cheats.throttle = 1
    with pytest.raises(together.RateLimitError):
        sdk.fine_tuning.list()
    simulator.cheats.errors = 1
    with pytest.raises(together.InternalServerError):
        sdk.fine_tuning.list()
    simulator.cheats.down = True
    with pytest.raises(together.APIConnectionError):
        sdk.fine_tuning.list()


def test_older_endpoints(
    world: tuple[TogetherSimulator, together.Together], tmp_path: Path
) -> None:
    """By hand: SDK 3 has no more of them."""
    _, sdk = world
    made = sdk.fine_tuning.create(training_file=upload(sdk, tmp_path, chat_lines(12)), model=MODEL)
    model = done(sdk, made.id).x_model_output_name
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=sdk.base_url, headers=headers, trust_env=False) as http:
        hardware = http.get("/v1/hardware").json()["data"][0]["id"]
        scaling = {"min_replicas": 1, "max_replicas": 1}
        asked = {"model": model, "hardware": hardware, "autoscaling": scaling}
        there = http.post("/v1/endpoints", json=asked).json()
        path = f"/v1/endpoints/{there['id']}"
        assert there["state"] == "PENDING"
        until(lambda: http.get(path).json()["state"], lambda state: state == "STARTED")
        said = sdk.chat.completions.create(
            model=there["name"], messages=[{"role": "user", "content": "Good day"}]
        )
        assert said.choices[0].message
        assert http.patch(path, json={"state": "STOPPED"}).json()["state"] == "STOPPING"
        assert http.delete(path).status_code == 204
        assert http.get(path).status_code == 404
