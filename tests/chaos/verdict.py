"""Holds what each viewer got against the log: all of it, once, in order."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from app.api.graphql.job_types import JobEventType
from app.events.log import LoggedEvent
from app.events.types import EventType
from app.jobs.states import JobStatus
from tests.chaos import book
from tests.chaos.seats import Seat
from tests.chaos.writer import ZOMBIE, mark_of

_MARKED = {EventType.METRICS, EventType.MESSAGE}  # when a worker wrote them
Entry = tuple[Any, ...]  # its cursor, then what was told of it


@dataclass
class History:
    """What one viewer lived through."""

    seat: Seat
    entries: list[Entry] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    received: int = 0
    links: int = 0
    cuts: int = 0
    whims: int = 0
    done: bool = False
    lags: list[float] = field(default_factory=list)


def history(seat: Seat, folder: Path) -> History:
    found = History(seat)
    position, linked_at = seat.after, 0.0
    for line in book.lines(folder / f"{seat.name}.jsonl"):
        match line:
            case {"got": node}:
                found.received += 1
                found.entries += _entries(found, node, position)
                position = node["cursor"]
                found.lags.append(line["t"] - max(linked_at, _moment(node)))
            case {"linked": _}:
                found.links += 1
                linked_at = line["t"]
            case {"cut": _}:
                found.cuts += 1
            case {"whim": _}:
                found.whims += 1
                linked_at = float("inf")  # what it is late with now is its own doing
            case {"refused": reason}:
                found.faults.append(f"was refused: {reason}")
            case {"done": _}:
                found.done = True
    return found


def _moment(node: dict[str, Any]) -> float:
    at = node["points"][-1]["timestamp"] if "points" in node else node["at"]
    return datetime.fromisoformat(at).timestamp()


def _entries(found: History, node: dict[str, Any], position: str) -> list[Entry]:
    match found.seat.field:
        case "jobEvents":
            kind = JobEventType[node["type"]].value
            return [(node["cursor"], kind, node["attempt"], node["step"], node["data"])]
        case "jobMetrics":
            points = node["points"]
            if not 1 <= len(points) <= 100:
                found.faults.append(f"a batch of {len(points)} points")
            return [
                (
                    node["cursor"] if point is points[-1] else None,
                    *(point["attempt"], point["step"], point["trainingLoss"]),
                    point["other"]["mark"],
                )
                for point in points
            ]
        case _:
            if node["type"] == "PROGRESS":
                # It stands where the ledger is read to, past what the filter leaves out.
                back = _place(node["cursor"]) < _place(position)
                if back or ("filter" not in found.seat.variables and node["cursor"] != position):
                    found.faults.append(f"progress at {node['cursor']}, after {position}")
                return []
            kind, then = node["type"], node["statusThen"]
            return [(node["cursor"], kind, node["jobId"], then, node["matches"])]


def _place(cursor: str) -> int:
    return int(cursor.removeprefix("s"))


def owed(seat: Seat, stream: list[LoggedEvent]) -> list[Entry]:
    """What the log holds for this viewer."""
    start = _place(seat.after)
    rest = [event for event in stream if event.seq > start]
    match seat.field:
        case "jobEvents":
            kinds = {str(JobEventType[name].value) for name in seat.variables.get("types", [])}
            return [
                (f"s{e.seq}", e.type, e.attempt, e.step, e.data)
                for e in rest
                if not kinds or e.type in kinds
            ]
        case "jobMetrics":
            return [
                (f"s{e.seq}", e.attempt, e.step, e.data["values"]["training_loss"], mark_of(e.data))
                for e in rest
                if e.type == EventType.METRICS
            ]
        case _:
            names = seat.variables.get("filter", {}).get("status", [s.name for s in JobStatus])
            wanted = {JobStatus[name].value for name in names}
            return [
                (f"s{e.seq}", "STATUS", e.data["jobId"], then.upper(), then in wanted)
                for e in rest
                if e.type == EventType.JOB_STATUS
                if {e.data["before"], then := e.data["after"]} & wanted
            ]


def judge(found: History, stream: list[LoggedEvent]) -> list[str]:
    """Everything that is wrong with what a viewer got; nothing when it equals the log."""
    faults = list(found.faults)
    if not found.done:
        faults.append("did not come to the end")
    due = owed(found.seat, stream)
    for place, (got, wanted) in enumerate(zip(found.entries, due, strict=False)):
        if got[1:] != wanted[1:] or got[0] not in (wanted[0], None):
            faults.append(f"differs at {place}: got {_short(got)}, the log has {_short(wanted)}")
            break
    if len(found.entries) != len(due):
        faults.append(f"got {len(found.entries)} entries, the log has {len(due)}")
    seat = found.seat
    who = f"viewer {seat.name} of {seat.field} by {seat.transport}, which {seat.habit}"
    return [f"{who}: {fault}" for fault in faults]


def _short(entry: Entry) -> str:
    return repr(entry)[:160]


def judge_log(streams: dict[str, list[LoggedEvent]], folder: Path) -> list[str]:
    """Dense, nothing twice, nothing lost that a writer knew to be committed, nothing fenced."""
    faults = []
    marks: list[int] = []
    for stream_id, events in streams.items():
        if [event.seq for event in events] != list(range(1, len(events) + 1)):
            faults.append(f"{stream_id} is not dense")
        told = [e.data for e in events if e.attempt and e.type in _MARKED]
        marks += [mark_of(data) for data in told]
        if any(data.get("message") == ZOMBIE for data in told):
            faults.append(f"{stream_id} holds what a fenced writer wrote")
    if len(marks) != len(set(marks)):
        faults.append(f"{len(marks) - len(set(marks))} events were written twice")
    known = {
        mark
        for path in folder.glob("marks-*.jsonl")
        for line in path.read_text().splitlines()
        for mark in json.loads(line)
    }
    if lost := known - set(marks):
        faults.append(f"{len(lost)} committed events are lost")
    return faults
