"""Adapters that come and go, clients that leave, and the end of the process."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.serving.launch import API_KEY, command, environment
from tests.serving.talk import PATH, answer, ask, question, refused
from tests.serving.weights import build_adapter
from tests.serving.world import BASE, KEY, ROOT, Server, free_port, readable, serve, wait_healthy

pytestmark = pytest.mark.train

LONG: dict[str, Any] = {"max_tokens": 470, "ignore_eos": True}


async def load(client: httpx.AsyncClient, name: str, path: object) -> httpx.Response:
    body = {"lora_name": name, "lora_path": str(path)}
    return await client.post("/v1/load_lora_adapter", json=body)


async def unload(client: httpx.AsyncClient, name: str) -> httpx.Response:
    return await client.post("/v1/unload_lora_adapter", json={"lora_name": name})


async def test_the_list_of_models(client: httpx.AsyncClient, adapters: dict[str, str]) -> None:
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    cards = {card["id"]: card for card in listed["data"]}
    assert cards[BASE]["parent"] is None
    assert cards[BASE]["max_model_len"] == 512
    for name, path in adapters.items():
        assert (cards[name]["parent"], cards[name]["root"]) == (BASE, path)


async def test_load_and_unload_while_others_generate(
    client: httpx.AsyncClient, model: Path, tmp_path: Path
) -> None:
    wanted = await answer(client, "ft:tiny:two", **LONG)
    third = build_adapter(model, tmp_path / "third", 3)
    running = [asyncio.create_task(answer(client, "ft:tiny:two", **LONG)) for _ in range(3)]
    for _ in range(4):
        assert (await load(client, "third", third)).status_code == 200
        again = await load(client, "third", third)
        assert again.status_code == 400
        assert again.json()["error"]["code"] == "already_loaded"
        said = await answer(client, "third")
        assert said != await answer(client, BASE)
        assert (await unload(client, "third")).status_code == 200
        assert (await client.post(PATH, json=question("third"))).status_code == 404
    assert (await unload(client, "third")).status_code == 404
    assert [await task for task in running] == [wanted] * 3


async def test_unloading_lets_running_answers_finish(
    client: httpx.AsyncClient, model: Path, tmp_path: Path
) -> None:
    one = build_adapter(model, tmp_path / "one", 4)
    other = build_adapter(model, tmp_path / "other", 5)
    await load(client, "swap", one)
    before = await answer(client, "swap", **LONG)
    body = question("swap", stream=True, **LONG)
    async with client.stream("POST", PATH, json=body) as reply:
        lines = reply.aiter_lines()
        await anext(lines)
        assert (await unload(client, "swap")).status_code == 200
        assert (await load(client, "swap", other)).status_code == 200, "the name is free at once"
        swapped = await answer(client, "swap", **LONG)
        rest = [line async for line in lines if line.startswith("data: {")]
    pieces = [json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in rest]
    assert "".join(pieces) == before
    assert swapped != before
    await unload(client, "swap")


async def test_the_last_adapter_may_go_and_another_come_and_sigterm_ends_it(
    model: Path, adapters: dict[str, str]
) -> None:
    with serve(model, "--dtype", "float32") as server:
        async with server.client() as client:
            base = await answer(client, BASE)
            said = []
            for _ in range(2):
                await load(client, "only", adapters["ft:tiny:two"])
                said.append(await answer(client, "only"))
                await unload(client, "only")
                assert await answer(client, BASE) == base
            assert said[0] == said[1] != base
            body = question(BASE, stream=True, n=8, **LONG)
            async with client.stream("POST", PATH, json=body) as reply:
                await anext(reply.aiter_lines())
                took = await asyncio.to_thread(server.stop)
        assert took < 2, "SIGTERM must not wait for answers"
        assert server.process.returncode == 0


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("missing", 404, "no adapter"),
        ("no config", 400, "adapter_config.json"),
        ("pickle", 400, "safetensors"),
        ("torn", 400, ""),
        ("other model", 400, ""),
        ("not lora", 400, "LORA"),
        ("dora", 400, "use_dora"),
        ("bias", 400, "bias"),
        ("bad json", 400, ""),
    ],
)
async def test_a_bad_adapter_is_refused(
    client: httpx.AsyncClient, adapters: dict[str, str], tmp_path: Path, fault: str,
    status: int, words: str,
) -> None:  # fmt: skip
    folder = tmp_path / "adapter"
    shutil.copytree(adapters["ft:tiny:two"], folder)
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    settings = json.loads(config.read_text())
    changes: dict[str, dict[str, Any]] = {
        "not lora": {"peft_type": "PREFIX_TUNING"}, "dora": {"use_dora": True},
        "bias": {"bias": "all"}, "other model": {"r": 7},
    }  # fmt: skip
    config.write_text(json.dumps(settings | changes.get(fault, {})))
    if fault == "missing":
        shutil.rmtree(folder)
    elif fault == "no config":
        config.unlink()
    elif fault == "pickle":
        weights.rename(folder / "adapter_model.bin")
    elif fault == "torn":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif fault == "bad json":
        config.write_text("{")
    base = await answer(client, BASE)
    reply = await load(client, "bad", folder)
    assert reply.status_code == status, reply.text
    assert words in reply.json()["error"]["message"]
    assert (await client.post(PATH, json=question("bad"))).status_code == 404
    assert await answer(client, BASE) == base
    assert await answer(client, "ft:tiny:two") != base


async def test_the_name_of_the_base_is_taken(
    client: httpx.AsyncClient, adapters: dict[str, str]
) -> None:
    assert (await load(client, BASE, adapters["ft:tiny:two"])).status_code == 400
    assert (await unload(client, BASE)).status_code == 404


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_client_that_leaves_frees_its_row(narrow: Server, streaming: bool) -> None:
    """With one row, every answer that went on unheard would hold up the last request."""
    async with narrow.client() as client:
        body = question(BASE, stream=streaming, **LONG)
        began = time.monotonic()
        await ask(client, BASE, **LONG)
        whole = time.monotonic() - began
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.post(PATH, json=body), whole / 20)
        began = time.monotonic()
        await ask(client, BASE, max_tokens=1)
        assert time.monotonic() - began < 5 * whole


async def test_a_full_queue_says_when_to_return(narrow: Server) -> None:
    async with narrow.client() as client:
        long = question(BASE, **LONG)
        replies = await asyncio.gather(*(client.post(PATH, json=long) for _ in range(6)))
        codes = sorted(reply.status_code for reply in replies)
        assert codes[:2] == [200, 200]
        assert codes[-1] == 429
        busy = next(reply for reply in replies if reply.status_code == 429)
        assert int(busy.headers["retry-after"]) >= 1
        assert busy.json()["error"]["type"] == "rate_limit_error"
        assert (await refused(client, 400, n=2))["param"] == "n"


FAULTY = """
import time, app.serving.batch as b, app.serving.engine as e
from app.serving.__main__ import main
open, step, turn, calls = e.Engine._open, b.Batch.step, e.Engine._turn, []
def slow_open(self):
    time.sleep(1.5)
    open(self)
def crash(self):
    calls.append(1)
    if len(calls) == 5: raise RuntimeError("out of memory")
    step(self)
def die(self):
    if len(calls) > 20: raise SystemExit("gone")
    turn(self)
e.Engine._open, b.Batch.step, e.Engine._turn = slow_open, crash, die
main()
"""


async def test_loading_a_crash_and_the_death_of_the_model_thread(model: Path) -> None:
    server = _start_faulty(model)
    process = server.process
    brief: dict[str, Any] = {"ignore_eos": True, "max_tokens": 8}
    try:
        async with server.client() as client:
            await _until_listening(client)
            assert (await client.get("/health")).status_code == 503
            loading = await client.post(PATH, json=question(BASE))
            assert loading.status_code == 503
            assert loading.headers["retry-after"]
            await asyncio.to_thread(wait_healthy, server)
            crashed = await client.post(PATH, json=question(BASE, **brief))
            assert crashed.status_code == 500
            assert crashed.json()["error"]["code"] == "generation_failed"
            assert await answer(client, BASE, **brief)
            assert (await client.get("/health")).status_code == 200
            with pytest.raises(httpx.TransportError):
                await client.post(PATH, json=question(BASE, **LONG))
        assert process.wait(timeout=5) == 1
    finally:
        process.kill()
        process.wait()


def _start_faulty(model: Path) -> Server:
    port = free_port()
    words = command(str(model), BASE, port, threads=1)[3:]
    env = {**os.environ, **environment(1), API_KEY: KEY}
    return Server(subprocess.Popen([sys.executable, "-c", FAULTY, *words], cwd=ROOT, env=env), port)


async def _until_listening(client: httpx.AsyncClient) -> None:
    for _ in range(300):
        try:
            await client.get("/health")
        except httpx.TransportError:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("it never listened")


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is told on Linux only")
def test_it_does_not_outlive_its_parent(model: Path) -> None:
    words = command(str(model), BASE, free_port())
    code = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen({words!r}, stderr=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\n"
        "for line in child.stderr:\n"
        "    if b'serving' in line: print('up', flush=True)\n"
    )
    read, write = os.pipe()  # held open by the child, so that its end is seen as end of file
    env = {**os.environ, **environment(1), API_KEY: KEY}
    parent = subprocess.Popen(
        [sys.executable, "-c", code.replace("PIPE)", f"PIPE, pass_fds=({write},))")],
        cwd=ROOT, env=env, stdout=subprocess.PIPE, pass_fds=(write,),
    )  # fmt: skip
    os.close(write)
    assert parent.stdout
    parent.stdout.readline()
    assert parent.stdout.readline() == b"up\n"
    assert not readable(read, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert readable(read, 5)
    assert os.read(read, 1) == b""
    os.close(read)
