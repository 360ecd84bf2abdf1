"""What an `Accept` header asks for, by RFC 9110, and which of our forms of answer that is.

Clients list types they can read, not only those they want: urql names `text/event-stream` with
every query. So an event stream answers a query only when it is preferred over every JSON type; a
subscription, which JSON cannot carry, takes any streaming type that is acceptable.
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

JSON = "application/json"
RESPONSE_JSON = "application/graphql-response+json"

_LONGEST = 2_000


class Stream(Enum):
    EVENTS = "text/event-stream"
    PARTS = "multipart/mixed"


@dataclass(frozen=True)
class Accepted:
    """`answer`: the JSON type of a single answer, if any is acceptable. `stream`: what carries a
    subscription, if anything. `streams_all`: whether it carries queries and mutations too."""

    answer: str | None
    stream: Stream | None
    streams_all: bool


@dataclass(frozen=True)
class _Range:
    kind: str
    quality: float
    place: int
    parameters: dict[str, str]


@lru_cache(maxsize=256)
def negotiate(accept: str) -> Accepted | None:
    """None when nothing we can send is acceptable."""
    if len(accept) > _LONGEST:
        return None
    ranges = [_parse(part, n) for n, part in enumerate(accept.split(",")) if part.strip()]
    if not ranges:
        return Accepted(JSON, None, False)
    jsons = [(*_match(ranges, kind), kind) for kind in (JSON, RESPONSE_JSON)]
    quality, _, _, answer = max(jsons, key=lambda found: found[:3])
    streams = sorted(
        (-found.quality, found.place, stream)
        for found in ranges
        if (stream := _stream_of(found)) and found.quality > 0
    )
    stream = streams[0][2] if streams else None
    events = max((-q for q, _, kind in streams if kind == Stream.EVENTS.value), default=0.0)
    if quality <= 0 and not streams:
        return None
    return Accepted(
        answer if quality > 0 else None,
        Stream(stream) if stream else None,
        events > max(quality, 0.0),
    )


def _match(ranges: list[_Range], kind: str) -> tuple[float, bool, int]:
    """Quality, whether the type was named, and how early: the bigger, the better."""
    for pattern in (kind, "application/*", "*/*"):
        for found in ranges:
            if found.kind == pattern:
                # A wildcard says nothing of its own about order: every client reads plain JSON.
                return found.quality, pattern == kind, -found.place if pattern == kind else 0
    return 0.0, False, 0


def _stream_of(found: _Range) -> str | None:
    if found.kind in ("text/event-stream", "text/*"):
        return Stream.EVENTS.value
    if found.kind == "multipart/mixed" and found.parameters.get("subscriptionspec", "")[:2] == "1.":
        return Stream.PARTS.value
    return None


def _parse(part: str, place: int) -> _Range:
    kind, *rest = part.split(";")
    parameters = {}
    for parameter in rest:
        name, _, value = parameter.partition("=")
        parameters[name.strip().lower()] = value.strip().strip("\"'")
    try:
        quality = min(1.0, max(0.0, float(parameters.get("q", "1"))))
    except ValueError:
        quality = 0.0
    return _Range(kind.strip().lower(), quality, place, parameters)
