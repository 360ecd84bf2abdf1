"""Requests that are made to hurt, each with the refusal that it must meet: tests send them, and a
benchmark measures them."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import websockets

Body = bytes | Callable[[], bytes]

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Attack:
    """`code`: of the refusal; None for one that is harmless and answered with data. Several names
    may be right when the client's own sending decides which limit is met first."""

    name: str
    code: str | None
    body: Body = b""
    status: int = 200
    method: str = "POST"
    path: str = "/graphql"
    headers: dict[str, str] = field(default_factory=lambda: JSON)


@dataclass(frozen=True)
class Outcome:
    seconds: float
    size: int
    status: int
    codes: set[str]
    text: str


def document(query: str, **variables: Any) -> bytes:
    return json.dumps({"query": query, "variables": variables}).encode()


def bomb(count: int, alias: str = "") -> str:
    """Fragments, each of which spreads the next one twice."""
    parts = ["{ ...F0 }"]
    for n in range(count):
        below = f"...F{n + 1}" if n < count - 1 else "__typename"
        twice = f"{alias}{below} ... on Query {{ {below} }}" if n % 2 else f"{below} {below}"
        parts.append(f"fragment F{n} on Query {{ {twice} }}")
    return " ".join(parts)


def deep(levels: int) -> str:
    """A job's model's job's model …"""
    inner = "id"
    for n in range(levels):
        inner = f"{'job' if n % 2 else 'model'} {{ {inner} }}"
    return f'{{ {"model" if levels % 2 == 0 else "job"}(id: "x") {{ {inner} }} }}'


TOO_LARGE = "QUERY_TOO_LARGE"
INVALID = "GRAPHQL_VALIDATION_FAILED"
BIG = 10 * 1024 * 1024

HTTP = [
    Attack("fragments spread twice, 22 levels", TOO_LARGE, document(bomb(22))),
    Attack("fragments spread twice, 50 levels", TOO_LARGE, document(bomb(50))),
    Attack("the same with aliases, 16 levels", TOO_LARGE, document(bomb(16, "a: __typename "))),
    Attack(
        "lists in lists in lists of 100",
        TOO_LARGE,
        document(
            "{ datasets(first: 100) { nodes { versions { dataset { versions { dataset"
            " { versions { id } } } } } } } }"
        ),
    ),
    Attack(
        "a page size of a billion",
        TOO_LARGE,
        document("query ($n: Int) { jobs(first: $n) { nodes { id } } }", n=10**9),
    ),
    Attack("300,000 fields", "BODY_TOO_LARGE", lambda: document("{ " + "a " * 300_000 + "}"), 413),
    Attack("100,000 fields in 200 kB", TOO_LARGE, document("{ " + "a " * 100_000 + "}")),
    Attack(
        "480 equal sub-selections",
        TOO_LARGE,
        document("{ " + "jobs { totalCount } " * 480 + "}"),
    ),
    Attack(
        "380 equal fields in fragments",
        None,
        document("{ viewer { " + " ".join("... { " + "role " * 95 + "}" for _ in range(4)) + "} }"),
    ),
    Attack(
        "190 equal sub-selections in fragments",
        None,
        document("{ " + " ".join("... { " + "viewer { role } " * 95 + "}" for _ in range(2)) + "}"),
    ),
    Attack(
        "500 unknown directives",
        TOO_LARGE,
        document("{ viewer { role " + "@x " * 500 + "} }"),
    ),
    Attack(
        "500 unknown directives on the operation",
        TOO_LARGE,
        document("query A " + "@x " * 500 + "{ viewer { role } }"),
    ),
    Attack(
        "90 unknown fields", INVALID, document("{ " + " ".join(f"job{n}" for n in range(90)) + "}")
    ),
    Attack(
        "500 unknown arguments",
        INVALID,
        document("{ jobs(" + " ".join(f"a{n}: 1" for n in range(500)) + ") { totalCount } }"),
    ),
    Attack(
        "600 undeclared variables",
        INVALID,
        document("{ nodes(ids: [" + " ".join(f"$v{n}" for n in range(600)) + "]) { id } }"),
    ),
    Attack(
        "circular fragments",
        INVALID,
        document("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }"),
    ),
    Attack("an unknown fragment", INVALID, document("{ ...Missing }")),
    Attack("depth 60", TOO_LARGE, document(deep(60))),
    Attack("[[[[ 900 deep", TOO_LARGE, document("{ a(b: " + "[" * 900 + "]" * 900 + ") }")),
    Attack("{{{{ 900 deep", TOO_LARGE, document("{ a " * 900 + "} " * 900)),
    Attack(
        "a comment of 10 MB",
        "BODY_TOO_LARGE",
        lambda: document("#" + "x" * BIG + "\n{ viewer { role } }"),
        413,
    ),
    Attack("a comment of 200 kB", None, document("#" + "x" * 200_000 + "\n{ viewer { role } }")),
    Attack("a string of 200 kB", None, document('{ job(id: "' + "x" * 200_000 + '") { id } }')),
    Attack(
        "JSON 50,000 deep",
        "BAD_REQUEST",
        b'{"query": "{a}", "variables": {"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
        400,
    ),
    Attack(
        "a list variable 900 deep",
        "INVALID_INPUT",
        b'{"query": "query ($i: [ID!]!) { nodes(ids: $i) { id } }", "variables": {"i": '
        + b"[" * 900
        + b"]" * 900
        + b"}}",
    ),
    Attack(
        "30,000 ids in a variable",
        TOO_LARGE,
        document("query ($i: [ID!]!) { nodes(ids: $i) { id } }", i=["x"] * 30_000),
    ),
    Attack(
        "100 aliases",
        TOO_LARGE,
        document("{ " + " ".join(f"a{n}: viewer {{ role }}" for n in range(100)) + "}"),
    ),
    Attack(
        "a batch of 50",
        "BAD_REQUEST",
        json.dumps([{"query": "{ viewer { role } }"}] * 50).encode(),
        400,
    ),
    Attack(
        "a mutation by GET",
        "METHOD_NOT_ALLOWED",
        status=405,
        method="GET",
        path='/graphql?query=mutation{cancelJob(input:{id:"x"}){job{id}}}',
    ),
    *(
        Attack(
            f"POST of {kind}",
            "UNSUPPORTED_MEDIA_TYPE",
            b'{"query": "{ viewer { role } }"}',
            415,
            headers={"content-type": kind},
        )
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
    ),
    Attack(
        "introspection of introspection",
        TOO_LARGE,
        document(
            "{ __schema { types { " + "fields { type { " * 12 + "name " + "} } " * 12 + "} } }"
        ),
    ),
    Attack(
        "200 operations",
        TOO_LARGE,
        document(" ".join(f"query Q{n} {{ viewer {{ role }} }}" for n in range(200))),
    ),
]


async def send(http: httpx.AsyncClient, attack: Attack) -> Outcome:
    """What the server says of one attack."""
    body = attack.body if isinstance(attack.body, bytes) else attack.body()
    began = time.perf_counter()
    response = await http.request(attack.method, attack.path, content=body, headers=attack.headers)
    took = time.perf_counter() - began
    errors = response.json().get("errors", [])
    codes = {error["extensions"]["code"] for error in errors}
    return Outcome(took, len(response.content), response.status_code, codes, response.text)


@dataclass(frozen=True)
class Frame:
    """What is sent over a WebSocket after the acknowledgement (before it, unless `greeted`), and
    the close code that must follow; 0 for an answer that leaves the connection open."""

    name: str
    close: int
    messages: tuple[str | bytes, ...]
    greeted: bool = True
    protocol: str = "graphql-transport-ws"


def _subscribe(query: str, id: str = "1") -> str:
    return json.dumps({"id": id, "type": "subscribe", "payload": {"query": query}})


INIT = json.dumps({"type": "connection_init", "payload": {"apiKey": "no key"}})
FRAMES = [
    *(Frame(f"a message {text}", 4400, (text,)) for text in ("[]", '"x"', "null", "1", "{")),
    Frame("JSON 50,000 deep in a message", 4400, ("[" * 50_000,)),
    Frame("an object as id", 4400, ('{"type":"subscribe","id":{},"payload":{"query":"{a}"}}',)),
    Frame("a null payload", 4400, ('{"type":"subscribe","id":"1","payload":null}',)),
    Frame("binary", 4400, (b"{}",)),
    Frame("a message of 15 MB", 1009, ("x" * 15 * 1024 * 1024,)),
    Frame("20,000 pings", 4429, ('{"type":"ping"}',) * 20_000),
    Frame("subscribe before init", 4401, (_subscribe("{ viewer { role } }"),), greeted=False),
    Frame("a wrong key", 4403, (INIT,), greeted=False),
    Frame("a second init", 4429, (INIT,)),
    Frame("the old protocol", 4406, (INIT,), greeted=False, protocol="graphql-ws"),
    Frame("fragments spread twice in a message", 0, (_subscribe(bomb(40)),)),
]


async def strike(url: str, key: str, frame: Frame) -> tuple[float, int, str]:
    """Seconds until the last word, the close code (0: still open), and what was said."""
    address = url.replace("http", "ws", 1) + "/graphql"
    protocols: Any = [frame.protocol]
    async with websockets.connect(
        address, subprotocols=protocols, max_queue=None, proxy=None
    ) as raw:
        if frame.greeted:
            await raw.send(json.dumps({"type": "connection_init", "payload": {"apiKey": key}}))
            await raw.recv()
        began = time.perf_counter()
        sending = asyncio.create_task(_say(raw, frame.messages))
        heard: list[str] = []
        try:
            while True:
                heard.append(str(await asyncio.wait_for(raw.recv(), 20)))
                if not frame.close:
                    return time.perf_counter() - began, 0, heard[-1]
        except websockets.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            return time.perf_counter() - began, code, heard[-1] if heard else ""
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _say(raw: websockets.ClientConnection, messages: tuple[str | bytes, ...]) -> None:
    if len(messages) > 1:  # at once: a client's own work for each would hide the server's
        raw.transport.write(b"".join(_framed(str(message).encode()) for message in messages))
        return
    for message in messages:
        await raw.send(message)


def _framed(text: bytes) -> bytes:
    """A short message as a frame, masked with zeros."""
    return bytes((0x81, 0x80 | len(text))) + b"\0\0\0\0" + text
