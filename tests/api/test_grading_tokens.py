"""What the graders of an attempt call models with: what it opens, and when it dies."""

from dataclasses import replace
from typing import Any

import pytest

from app.attempts import queue, tokens
from app.attempts.queue import Claim
from app.core.database import Database
from app.core.logging import redact
from app.core.secrets import master_key
from app.core.settings import Settings
from app.jobs.states import JobStatus
from tests.jobs import work
from tests.populated import Populated
from tests.support import Api, as_owner

CHAT = "/v1/chat/completions"
UPLOAD: dict[str, Any] = {"files": {"file": b"x\n"}, "data": {"purpose": "fine-tune"}}


@pytest.fixture
async def claim(
    ours: Populated,
    worker_database: Database,
    database_url: str,
) -> Claim:
    """Of a new job's attempt."""
    return await work.take(worker_database, database_url, await ours.api.job_id())


@pytest.fixture
def key(settings: Settings) -> bytes:
    return master_key(settings)


async def status(server: str, token: str, model: str) -> int:
    """503 is as far as one comes: the model's server is one that nobody runs."""
    async with Api(server, token) as client:
        body = {"model": model, "messages": []}
        return (await client.http.post(CHAT, json=body)).status_code


async def test_it_calls_the_models_of_its_project_and_no_others(
    server: str,
    ours: Populated,
    theirs: Populated,
    claim: Claim,
    key: bytes,
) -> None:
    token, model = tokens.mint(key, claim, ours.ids["home"]), ours.ids["model_name"]
    assert await status(server, token, model) == 503
    assert await status(server, token, theirs.ids["model_name"]) == 404
    another = tokens.mint(key, claim, "proj_another")
    assert await status(server, another, model) == 404
    async with Api(server, None) as client:
        bearer = {"authorization": f"Bearer {token}"}
        answer = await client.http.post(CHAT, json={"model": model}, headers=bearer)
        assert answer.status_code == 503
        assert token not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("POST", "/graphql", {"json": {"query": "{ viewer { role } }"}}),
        ("GET", "/graphql", {"params": {"query": "{ viewer { role } }"}}),
        ("GET", "/v1/files", {}),
        ("POST", "/v1/files", UPLOAD),
        ("GET", "/v1/files/$file/content", {}),
        ("DELETE", "/v1/files/$file", {}),
        ("GET", "/v1/models", {}),
        ("GET", "/v1/models/$model/content", {}),
    ],
)
async def test_it_opens_no_other_door(
    server: str,
    ours: Populated,
    claim: Claim,
    key: bytes,
    method: str,
    path: str,
    more: dict[str, Any],
) -> None:
    token = tokens.mint(key, claim, ours.ids["home"])
    for name in ("file", "model"):
        path = path.replace(f"${name}", ours.ids[name])
    async with Api(server, token) as client:
        answer = await client.http.request(method, path, **more)
    assert answer.status_code == 401
    assert token not in answer.text


async def test_one_that_was_changed_is_refused(
    server: str,
    ours: Populated,
    theirs: Populated,
    claim: Claim,
    key: bytes,
) -> None:
    token = tokens.mint(key, claim, ours.ids["home"])
    parts = token.split(".")
    for n, other in enumerate(("lg_org_another", "proj_another", "attempt_another", "9", "0" * 64)):
        changed = ".".join([*parts[:n], other, *parts[n + 1 :]])
        assert await status(server, changed, ours.ids["model_name"]) == 401
    for nonsense in ("lg_", "lg_a.b.c.d", "lg_....", f"{token}0", token[:-1]):
        assert await status(server, nonsense, "any") == 401, nonsense
    async with Api(server, None) as client:
        headers = {b"authorization": "Bearer lg_é.x".encode()}
        assert (await client.http.post(CHAT, headers=headers)).status_code == 401
    # Signed, but of an attempt that is another organization's.
    stolen = replace(claim, org_id=theirs.org_id)
    token = tokens.mint(key, stolen, theirs.ids["home"])
    assert await status(server, token, theirs.ids["model_name"]) == 401
    assert await status(server, tokens.mint(b"other", claim, ours.ids["home"]), "any") == 401


async def test_it_dies_with_the_attempt(
    server: str,
    ours: Populated,
    claim: Claim,
    key: bytes,
    worker_database: Database,
) -> None:
    await work.start(worker_database, claim)
    token, model = tokens.mint(key, claim, ours.ids["home"]), ours.ids["model_name"]
    assert await status(server, token, model) == 503
    await work.end(worker_database, claim, JobStatus.CANCELLED)
    assert await status(server, token, model) == 401


async def test_it_dies_with_the_lease_and_the_next_worker_has_its_own(
    server: str,
    ours: Populated,
    claim: Claim,
    key: bytes,
    worker_database: Database,
    database_url: str,
) -> None:
    model, home = ours.ids["model_name"], ours.ids["home"]
    token = tokens.mint(key, claim, home)
    async with worker_database.transaction(claim.org_id) as session:
        assert await queue.renew(session, claim, work.GONE)
    assert await status(server, token, model) == 401
    taken = await work.take(worker_database, database_url, claim.subject_id)
    assert taken.lost_number == claim.number
    assert await status(server, token, model) == 401
    assert await status(server, tokens.mint(key, taken, home), model) == 503
    # Claimed again as the same attempt: only the epoch tells the two apart.
    again = "UPDATE attempts SET epoch = epoch + 1 WHERE id = :id"
    await as_owner(database_url, again, id=taken.id)
    assert await status(server, tokens.mint(key, taken, home), model) == 401


def test_no_log_shows_it(claim: Claim, key: bytes) -> None:
    token = tokens.mint(key, claim, "proj_x")
    assert redact(f"called with {token}, which failed") == "called with [secret], which failed"
