"""The judge of the rounds sees what is missing, repeated, in disorder, or of another stream."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.events.log import LoggedEvent
from tests.chaos import verdict
from tests.chaos.seats import Habit, Seat, Transport

_AT = datetime(2026, 3, 1, tzinfo=UTC)
_SEAT = Seat("000", Transport.SOCKET, "jobEvents", {"jobId": "job"}, "s2", 0.0, Habit.STEADY, 1)
_STREAM = [
    LoggedEvent("job", seq, 1, "message", None, _AT, {"mark": seq, "message": "…"})
    for seq in range(1, 8)
]


def told(seq: int) -> dict[str, Any]:
    node = {"type": "MESSAGE", "at": _AT.isoformat(), "attempt": 1, "step": None}
    return node | {"cursor": f"s{seq}", "data": {"mark": seq, "message": "…"}}


def judged(folder: Path, nodes: list[dict[str, Any]], *, done: bool = True) -> list[str]:
    lines = [{"linked": "x", "t": 0.0}, *({"got": node, "t": 1.0} for node in nodes)]
    if done:
        lines.append({"done": True, "t": 2.0})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / f"{_SEAT.name}.jsonl").write_text(text + '{"got": {"cur')
    return verdict.judge(verdict.history(_SEAT, folder), _STREAM)


def test_all_of_it_once_and_in_order_is_right(tmp_path: Path) -> None:
    assert judged(tmp_path, [told(n) for n in range(3, 8)]) == []


@pytest.mark.parametrize(
    "places",
    [
        [3, 4, 6, 7],
        [4, 5, 6, 7],
        [3, 4, 5, 6],
        [3, 4, 4, 5, 6, 7],
        [3, 5, 4, 6, 7],
        [2, 3, 4, 5, 6],
    ],
    ids=["a gap", "a late start", "an early end", "a repeat", "disorder", "an early start"],
)
def test_anything_else_is_told(tmp_path: Path, places: list[int]) -> None:
    assert judged(tmp_path, [told(n) for n in places])


def test_another_content_is_told(tmp_path: Path) -> None:
    nodes = [told(n) for n in range(3, 8)]
    nodes[2]["data"]["mark"] = 99
    [fault] = judged(tmp_path, nodes)
    assert "differs at 2" in fault


def test_a_viewer_that_never_ended_is_told(tmp_path: Path) -> None:
    [fault] = judged(tmp_path, [told(n) for n in range(3, 8)], done=False)
    assert "did not come to the end" in fault


def test_a_log_that_lost_or_repeats_what_a_writer_knows_is_told(tmp_path: Path) -> None:
    (tmp_path / "marks-0.jsonl").write_text("[1, 2]\n[3, 8]\n")
    assert verdict.judge_log({"job": _STREAM}, tmp_path) == ["1 committed events are lost"]
    twice = [*_STREAM, LoggedEvent("job", 8, 1, "message", None, _AT, {"mark": 3})]
    (tmp_path / "marks-0.jsonl").write_text("[1, 2]\n")
    assert verdict.judge_log({"job": twice}, tmp_path) == ["1 events were written twice"]
