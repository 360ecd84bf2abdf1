"""Who watches what, over which transport, from where, and how they behave."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

EVENTS = """subscription Watch($jobId: ID!, $after: String, $types: [JobEventType!]) {
  jobEvents(jobId: $jobId, after: $after, types: $types) { cursor type at attempt step data } }"""
METRICS = """subscription Measure($jobId: ID!, $after: String) {
  jobMetrics(jobId: $jobId, after: $after) {
    cursor points { attempt step trainingLoss other timestamp } } }"""
CHANGES = """subscription Ledger($filter: JobFilter, $after: String) {
  jobChanges(filter: $filter, after: $after) { cursor type at jobId statusThen matches } }"""
DOCUMENTS = {"jobEvents": EVENTS, "jobMetrics": METRICS, "jobChanges": CHANGES}


class Transport(StrEnum):
    SOCKET = "socket"  # graphql-transport-ws, on our own protocol class
    ASGI_SOCKET = "asgi socket"  # the same, on the path that every server has
    EVENTS = "events"  # server-sent events, resumed by Last-Event-ID
    PARTS = "parts"  # multipart
    CLIENT = "client"  # app.client, which comes back by itself


class Habit(StrEnum):
    STEADY = "steady"
    STALLS = "stalls"  # stops reading for a while
    RESETS = "resets"  # its connection is reset, without a goodbye
    LEAVES = "leaves"  # closes in order, and comes back


@dataclass(frozen=True)
class Seat:
    """A viewer. `late` is the share of the round after which it comes."""

    name: str
    transport: Transport
    field: str
    variables: dict[str, Any]
    after: str
    late: float
    habit: Habit
    seed: int

    @staticmethod
    def of(found: dict[str, Any]) -> "Seat":
        kinds = {"transport": Transport(found["transport"]), "habit": Habit(found["habit"])}
        return Seat(**(found | kinds))


@dataclass(frozen=True)
class _Place:
    """What is watched at a kind of seat. `after` None: from where the stream is at the start."""

    root: str
    after: str | None = "0"
    late: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


_PLACES = [
    _Place("jobEvents"),
    _Place("jobEvents", after=None),
    _Place("jobEvents", late=True),
    _Place("jobEvents", more={"types": ["MESSAGE", "STATUS"]}),
    _Place("jobMetrics"),
    _Place("jobMetrics", late=True),
    _Place("jobChanges"),
    _Place("jobChanges", late=True, more={"filter": {"status": ["RUNNING"]}}),
]


def arrange(dice: random.Random, heads: dict[str, str], ledger: str, times: int) -> list[Seat]:
    """`times` viewers for each place and transport; `heads` are the jobs to watch, and where their
    streams end now."""
    seats: list[Seat] = []
    for number in range(times):
        for transport in Transport:
            habits = list(Habit) * 2
            dice.shuffle(habits)
            for place, habit in zip(_PLACES, habits, strict=True):
                job = dice.choice(sorted(heads))
                ledgers = place.root == "jobChanges"
                now = ledger if ledgers else heads[job]
                seats.append(
                    Seat(
                        name=f"{len(seats):03d}",
                        transport=transport,
                        field=place.root,
                        variables={**place.more} if ledgers else {"jobId": job, **place.more},
                        after=now if place.after is None else place.after,
                        late=dice.uniform(0.2, 0.8) if place.late or number else 0.0,
                        habit=habit,
                        seed=dice.randrange(2**32),
                    )
                )
    return seats
