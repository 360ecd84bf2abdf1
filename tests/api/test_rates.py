"""What a key may spend, and what an answer says that it has spent."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from graphql import parse

from app.api.graphql.caches import Known
from app.api.graphql.guard import Guard
from app.api.limits import EACH, Places, RateLimited, Rates
from app.cli import documents
from app.core.database import Database
from app.core.errors import Limited
from app.core.settings import Settings
from tests.api.live import CHANGES, EVENTS, Server, Story, ask, listen, serving
from tests.jobs.rows import Rows
from tests.support import Api, Tenant, new_tenant

VIEWER = "{ viewer { role } }"
PAGE = "query ($n: Int) { jobs(first: $n) { nodes { id checkpoints { nodes { id } } } } }"


@pytest.fixture
async def strict(settings: Settings, database_url: str) -> AsyncIterator[Server]:
    """A key may spend a hundred points a minute here."""
    sparing = settings.model_copy(update={"rate_per_minute": 100})
    async with serving(sparing, database_url) as server:
        yield server


@pytest.fixture
async def spender(strict: Server, tenant: Tenant) -> AsyncIterator[Api]:
    async with Api(strict.url, tenant.key) as client:
        yield client


async def cost(api: Api, query: str, **variables: Any) -> dict[str, int]:
    response = await api.http.post("/graphql", json={"query": query, "variables": variables})
    found: dict[str, int] = response.json()["extensions"]["cost"]
    return found


async def test_an_answer_says_what_it_took_and_what_is_left(spender: Api) -> None:
    first, second = await cost(spender, VIEWER), await cost(spender, VIEWER)
    assert first["requested"] == second["requested"] == EACH + 1
    assert first["limit"] == 100
    assert 85 <= first["remaining"] <= 89  # a request's point is back after 0.6 s
    assert second["remaining"] < first["remaining"]


@pytest.mark.parametrize(
    ("query", "objects"),
    [
        ("{ __typename }", 1),
        ("{ viewer { role organization { id } } }", 2),
        ("{ jobs { totalCount } }", 1),
        ("{ jobs { nodes { id } pageInfo { hasNextPage } } }", 1 + 20 + 1),
        ("{ jobs(first: 50) { nodes { id } } }", 1 + 50),
        ("{ jobs(first: 50) { ...P } } fragment P on JobConnection { nodes { id } }", 1 + 50),
        ("{ jobs(first: 50) { edges { node { id } } } }", 1 + 50 * 2),
        ("{ jobs(first: 2) { nodes { metrics { step } } } }", 1 + 2 * (1 + 500)),
        ("{ jobs(first: 2) { nodes { metrics(maxPoints: 9) { step } } } }", 1 + 2 * (1 + 9)),
        (
            "{ jobs(first: 2) { nodes { checkpoints { nodes { metrics { step } } } } } }",
            1 + 2 * (1 + 1 + 20 * 2),
        ),
        ('{ nodes(ids: ["a", "b", "c"]) { id } }', 3),
        ("{ jobs(last: 7) { nodes { id } } }", 1 + 7),
        ("{ datasets { nodes { versions { id } } } }", 1 + 20 * (1 + 200)),
        ("{ apiKeys { id } }", 20),
        (
            'query ($p: Int! = 100) { compareJobs(ids: ["a", "b"], maxPoints: $p) { jobs { id }'
            " curves { series { points { value } } } } }",
            1 + 2 * 5 * (1 + 10 * (1 + 1 + 20)),
        ),
        ("{ a: viewer { role } b: viewer { role } ... { c: viewer { role } } }", 3),
        ('mutation { cancelJob(input: {id: "x"}) { job { id } } }', 10 + 2),
    ],
)
async def test_what_an_operation_costs_follows_from_the_schema(
    api: Api, query: str, objects: int
) -> None:
    assert (await cost(api, query))["requested"] == EACH + objects


@pytest.mark.parametrize(
    ("declared", "variables", "size"),
    [
        ("$n: Int", {"n": 7}, 7),
        ("$n: Int", {"n": 7.0}, 7),
        ("$n: Int", {}, 20),
        ("$n: Int", {"n": None}, 20),
        ("$n: Int = 5", {}, 5),
        ("$n: Int = 5", {"n": 6}, 6),
    ],
)
async def test_a_page_size_in_a_variable_counts_as_it_is(
    api: Api, declared: str, variables: dict[str, Any], size: int
) -> None:
    query = f"query ({declared}) {{ jobs(first: $n) {{ nodes {{ id }} }} }}"
    for _ in range(2):
        assert (await cost(api, query, **variables))["requested"] == EACH + 1 + size


def _documents() -> list[Any]:
    texts = {
        name: text for name, text in vars(documents).items() if name.isupper() and name[0] != "_"
    }
    return [pytest.param(t, id=n) for n, t in texts.items() if isinstance(t, str)]


@pytest.mark.parametrize("query", _documents())
async def test_the_command_lines_documents_cost_little(
    live: Server, settings: Settings, query: str
) -> None:
    variables = {"first": 50, "ids": ["a"] * 5}
    known = Known(parse(query))
    cost = Guard(settings).cost(live.engine.schema._schema, known, variables, None)
    assert cost < settings.graphql_max_cost / 2


async def test_only_the_named_operation_is_paid_for(api: Api) -> None:
    query = f"query A {VIEWER} query B {{ jobs(first: 30) {{ nodes {{ id }} }} }}"
    for name, objects in (("A", 1), ("B", 31), ("A", 1)):
        response = await api.http.post("/graphql", json={"query": query, "operationName": name})
        assert response.json()["extensions"]["cost"]["requested"] == EACH + objects


async def test_a_known_document_is_not_measured_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cost(api, PAGE, n=3)

    def never(*_: Any) -> int:
        raise AssertionError("this was known")

    monkeypatch.setattr(Guard, "_judge", never)
    assert (await cost(api, PAGE, n=3))["requested"] == EACH + 1 + 3 * (1 + 1 + 20)


async def test_who_has_spent_all_is_told_when_to_come_back(spender: Api) -> None:
    answers = [await spender.http.post("/graphql", json={"query": VIEWER}) for _ in range(12)]
    assert {answer.status_code for answer in answers[:8]} == {200}
    refused = answers[-1]
    assert refused.status_code == 429
    [error] = refused.json()["errors"]
    extensions = error["extensions"]
    assert (extensions["code"], extensions["limit"]) == ("RATE_LIMITED", 100)
    assert refused.headers["retry-after"] == str(extensions["retryAfter"])
    assert 1 <= extensions["retryAfter"] <= 60
    assert "100 points" in error["message"]
    files = await spender.http.get("/v1/files")
    assert (files.status_code, files.json()["error"]["code"]) == (429, "rate_limited")
    assert int(files.headers["retry-after"]) >= 1


async def test_an_operation_that_is_too_dear_just_now_is_not_run(spender: Api) -> None:
    assert (await cost(spender, PAGE, n=2))["requested"] == EACH + 45
    for accept in ("application/json", "application/graphql-response+json"):
        response = await spender.http.post(
            "/graphql", json={"query": PAGE, "variables": {"n": 4}}, headers={"accept": accept}
        )
        assert response.status_code == 429
        assert "data" not in response.json()
        assert response.json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
        assert response.headers["retry-after"]


async def test_one_key_does_not_spend_anothers(
    strict: Server, spender: Api, database: Database, settings: Settings
) -> None:
    for _ in range(12):
        await spender.http.post("/graphql", json={"query": VIEWER})
    other = await new_tenant(database, settings)
    async with Api(strict.url, other.key) as neighbour:
        assert (await neighbour.execute(VIEWER))["viewer"]["role"] == "OWNER"


async def test_operations_of_a_socket_spend_too(spender: Api) -> None:
    async with spender.socket() as socket:
        await ask(socket, "first", VIEWER)
        answer = (await socket.receive())["payload"]
        assert answer["extensions"]["cost"]["requested"] == EACH + 1
        await socket.receive()  # complete
        for n in range(10):
            await ask(socket, str(n), VIEWER)
        told = [await socket.receive() for _ in range(10)]
        [error] = next(message for message in told if message["type"] == "error")["payload"]
        assert error["extensions"]["code"] == "RATE_LIMITED"
        assert error["extensions"]["retryAfter"] >= 1
        await socket.send(type="ping")  # the connection is none the worse
        while (await socket.receive())["type"] != "pong":
            pass


@pytest.mark.parametrize("accept", ["text/event-stream", "multipart/mixed;subscriptionSpec=1.0"])
async def test_a_stream_that_cannot_be_paid_for_does_not_begin(spender: Api, accept: str) -> None:
    for _ in range(12):
        await spender.http.post("/graphql", json={"query": VIEWER})
    response = await spender.http.post(
        "/graphql", json={"query": CHANGES}, headers={"accept": accept}
    )
    assert response.status_code == 429
    assert response.json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"


async def test_events_cost_nothing_and_their_viewers_little(
    spender: Api, api: Api, tenant: Tenant, database: Database, ringer: Database
) -> None:
    """However many there are, and also when they join a group that is running."""
    story = await Story.begin(await Rows.of(api, database, tenant), ringer)
    variables = {"j": story.id, "a": "0"}
    async with spender.socket() as socket:
        for id in "abc":
            await ask(socket, id, EVENTS, variables=variables)
        for _ in range(50):
            await story.say()
        heard = [await socket.receive() for _ in range(150)]
    assert {message["type"] for message in heard} == {"next"}
    assert all("extensions" not in message["payload"] for message in heard)


@pytest.mark.parametrize("path", ["direct", "asgi"])
async def test_a_socket_sends_only_so_much(
    settings: Settings, database_url: str, tenant: Tenant, path: str
) -> None:
    calm = settings.model_copy(update={"max_messages_per_second": 2})
    async with (
        serving(calm, database_url, path) as server,
        Api(server.url, tenant.key) as api,
        api.socket() as socket,
    ):
        for _ in range(15):
            await socket.send(type="ping")
        for _ in range(15):
            assert (await socket.receive())["type"] == "pong"
        for _ in range(15):
            await socket.send(type="ping")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await listen(socket)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
            4429,
            "Too many messages: 2 a second are taken",
        )


async def test_pings_of_the_protocol_beneath_count_too(
    settings: Settings, database_url: str, tenant: Tenant
) -> None:
    calm = settings.model_copy(update={"max_messages_per_second": 2})
    async with (
        serving(calm, database_url) as server,
        Api(server.url, tenant.key) as api,
        api.socket() as socket,
    ):
        for _ in range(40):
            await socket.raw.ping()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await listen(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4429


def test_a_bucket_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("app.api.limits.time.monotonic", lambda: now)
    rates = Rates(60)
    assert rates.spend("a", 60) == 0
    with pytest.raises(RateLimited) as refused:
        rates.spend("a", 3)
    assert refused.value.retry_after == 3
    now += 3
    assert rates.spend("a", 3) == 0
    now += 1_000_000
    assert rates.spend("a", 1) == 59
    now += 60
    assert rates.spend("a", 90) == 0  # more than a minute's points, of a full bucket
    now += 29
    with pytest.raises(RateLimited):
        rates.spend("a", 1)
    now += 2
    assert rates.spend("a", 1) == 0


def test_buckets_are_bounded() -> None:
    rates = Rates(60)
    for n in range(11_000):
        rates.spend(str(n), 1)
    assert len(rates) == 10_000


def test_places_are_given_back() -> None:
    places = Places(2, "chairs")
    places.take("a")
    places.take("a")
    places.take("b")
    with pytest.raises(Limited, match="2 chairs") as refused:
        places.take("a")
    assert refused.value.limit == 2
    places.leave("a")
    places.take("a")
    for key in "aab":
        places.leave(key)
    assert len(places) == 0
