"""The parts that need neither a model nor a process."""

import subprocess
import sys

import pytest

from app.serving.launch import command, default_threads, environment
from app.serving.sampling import TextStream

WORLD = "the café 木 was shut"


def decode(ids: list[int]) -> str:
    return bytes(ids).decode(errors="replace")


def run(text: bytes, *stop: str) -> tuple[list[str], TextStream]:
    stream = TextStream(decode, stop)
    pieces = []
    for byte in text:
        pieces.append(stream.push(byte))
        if stream.stopped:
            return pieces, stream
    return [*pieces, stream.finish()], stream


def test_characters_come_whole() -> None:
    pieces, _ = run(WORLD.encode())
    assert "".join(pieces) == WORLD
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_torn_last_character_is_shown_as_such() -> None:
    pieces, _ = run("木".encode()[:2])
    assert "".join(pieces) == "\ufffd"


@pytest.mark.parametrize("stop", ["t", "the", "caf", "é", "é 木", "木 was", "shut", "ut"])
def test_nothing_of_a_stop_string_is_ever_shown(stop: str) -> None:
    pieces, stream = run(WORLD.encode(), "nowhere", stop)
    assert stream.stopped
    assert "".join(pieces) == WORLD[: WORLD.index(stop)]


def test_a_stop_string_that_only_begins_is_given_back() -> None:
    pieces, stream = run(WORLD.encode(), "shutter", "was open", "the cat")
    assert not stream.stopped
    assert "".join(pieces) == WORLD


def test_the_earliest_stop_wins() -> None:
    stream = TextStream(lambda ids: "abcdef" * len(ids), ("ef", "cd"))
    assert stream.push(0) == "ab"


def test_the_environment_is_strings_and_offline() -> None:
    assert environment(3)["OMP_NUM_THREADS"] == "3"
    assert environment(1)["HF_HUB_OFFLINE"] == "1"
    assert default_threads() >= 1
    words = command("/m", "n", 5, adapters={"ft:a=b": "/x"}, max_model_len=9, parent_pid=7)
    assert "ft:a=b=/x" in words


def test_torch_stays_out_of_the_callers_process() -> None:
    code = (
        "import sys, app.serving, app.serving.protocol, app.serving.launch\n"
        "print([m for m in ('torch', 'transformers', 'starlette') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
