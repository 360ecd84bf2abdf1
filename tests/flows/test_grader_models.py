"""Graders that ask a model, through our own chat completions: in runGrader and in jobs, with a
token that nobody else ever sees."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import psutil
import pytest

from app.attempts import tokens
from app.attempts.queue import Claim
from app.core import ids
from app.core.secrets import master_key, serving_token
from app.core.settings import Settings
from app.training.config import MODEL_ENDPOINT
from tests.flows.stack import TINY, Stack, until
from tests.flows.test_run_grader import graded, run
from tests.graders.model_server import ModelServer, model_server, refusal
from tests.support import Api, chat_lines, item_lines

pytestmark = [pytest.mark.train, pytest.mark.timeout(240)]

JUDGE = "ft:tiny:judge"
_MODEL = """INSERT INTO models (org_id, id, project_id, name, provider, base_model, job_id, kind,
  path, manifest_sha256, size_bytes, created_at)
  VALUES ($1, $2, $3, $4, 'local', 'none', 'none', 'full', 'none', '', 1, now())"""
_DEPLOYMENT = """INSERT INTO deployments (org_id, id, project_id, model_id, status, endpoint,
  created_at) VALUES ($1, $2, $3, $4, 'ready', $5, now())"""


class Judge:
    """A model that is deployed, as far as the database knows; its server is the test's own."""

    def __init__(self, stack: Stack, server: ModelServer, org_id: str, project_id: str) -> None:
        self.server, self.org_id, self.project_id = server, org_id, project_id
        self.database_url = stack.database_url
        self.key = master_key(Settings(data_dir=stack.folder, _env_file=None))
        self._model, self._deployment = ids.new(ids.MODEL), ids.new(ids.DEPLOYMENT)

    async def deploy(self) -> None:
        endpoint = self.server.url.removesuffix("/v1")
        self.server.token = serving_token(self.key, endpoint)
        place = self.org_id, self._deployment, self.project_id, self._model, endpoint
        await self.sql(_MODEL, self.org_id, self._model, self.project_id, JUDGE)
        await self.sql(_DEPLOYMENT, *place)

    async def undeploy(self) -> None:
        await self.sql("UPDATE deployments SET status = 'stopped' WHERE id = $1", self._deployment)

    async def forget(self) -> None:
        await self.sql("DELETE FROM deployments WHERE id = $1", self._deployment)
        await self.sql("DELETE FROM models WHERE id = $1", self._model)

    async def sql(self, query: str, *values: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database_url)
        try:
            found: list[asyncpg.Record] = await connection.fetch(query, *values)
            return found
        finally:
            await connection.close()

    async def token_of(self, subject_id: str) -> str:
        """What the graders of its unfinished attempt have: it is made of the attempt alone."""
        [row] = await self.sql(
            "SELECT * FROM attempts WHERE subject_id = $1 AND finished_at IS NULL", subject_id
        )
        claim = Claim(row["org_id"], row["id"], subject_id, row["number"], row["epoch"], None)
        return tokens.mint(self.key, claim, self.project_id)

    async def tables_with(self, text: str) -> list[str]:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        tables = [row["tablename"] for row in await self.sql(query)]
        asked = {t: f"SELECT 1 FROM {t} r WHERE strpos(r::text, $1) > 0 LIMIT 1" for t in tables}
        return [table for table, query in asked.items() if await self.sql(query, text)]


@pytest.fixture
async def judge(stack: Stack, owner: Api) -> AsyncIterator[Judge]:
    owner.http.timeout = 60
    viewer = (await owner.execute("{ viewer { organization { id } project { id } } }"))["viewer"]
    async with model_server() as server:
        made = Judge(stack, server, viewer["organization"]["id"], viewer["project"]["id"])
        await made.deploy()
        yield made
        server.may_answer.set()
        await made.forget()


def score(*parts: dict[str, Any], model: str = JUDGE) -> dict[str, Any]:
    content = [{"text": "Rate {{ sample.output_text }}"}, *parts]
    messages = [{"role": "USER", "content": content}]
    return {"scoreModel": {"name": "score", "model": model, "input": messages, "range": [0, 10]}}


LABEL = {
    "labelModel": {
        "name": "mood",
        "model": JUDGE,
        "input": [{"role": "USER", "content": [{"text": "{{ sample.output_text }}"}]}],
        "labels": ["kind", "rude"],
        "passingLabels": ["kind"],
    }
}


async def test_one_sample(owner: Api, judge: Judge) -> None:
    judge.server.say('{"steps": [], "result": 7}')
    picture = {"image": {"url": "data:image/png;base64,{{ item.answer }}"}}
    found = await graded(owner, score(picture))
    assert (found["reward"], found["failed"]) == (7, False), found
    assert found["tokenUsage"] == [{"model": JUDGE, "tokens": 42}]
    [asked] = judge.server.requests
    assert asked["model"] == JUDGE
    assert asked["messages"][0]["content"] == [
        {"type": "text", "text": "Rate 4"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,4"}},
    ]

    judge.server.say('{"steps": [], "result": "kind"}')
    both = {"name": "both", "graders": [score(), LABEL], "calculateOutput": "score + mood"}
    found = await graded(owner, {"multi": both})
    assert found["errors"]["modelGraderParseError"]  # no score is to be had of this answer
    assert found["tokenUsage"] == [{"model": JUDGE, "tokens": 84}]
    assert (await graded(owner, LABEL))["reward"] == 1

    judge.server.say((400, refusal(400, "it is out of sorts")))
    errors = (await graded(owner, score()))["errors"]
    assert errors["modelGraderServerError"]
    assert "it is out of sorts" in errors["modelGraderServerErrorDetails"]


async def test_a_model_that_cannot_be_called_is_refused_at_once(owner: Api, judge: Judge) -> None:
    data = await owner.dataset_version(item_lines(4, "held"))
    await judge.undeploy()
    for model, code in ((JUDGE, "MODEL_NOT_DEPLOYED"), ("ft:nobody", "MODEL_NOT_FOUND")):
        grader = score(model=model)
        [error] = (await run(owner, grader))["userErrors"]
        assert (error["code"], error["path"]) == (code, ["grader"])
        evaluation = {"graders": [{"name": "judge", "grader": grader}], "data": data}
        payload = await owner.submit(baseModel=TINY, evaluation=evaluation)
        [error] = payload["userErrors"]
        assert (error["code"], error["path"]) == (code, ["evaluation", "graders", "0", "grader"])


async def test_a_job_is_rewarded_and_judged_by_a_model(
    owner: Api, judge: Judge, stack: Stack
) -> None:
    judge.server.say('{"result": 5}')
    judge.server.may_answer.clear()
    held_out = await owner.dataset_version(item_lines(4, "held"))
    settings = {"nEpochs": 1, "batchSize": 4, "maxCompletionTokens": 4, "computeMultiplier": 0.5}
    job = await owner.job_id(
        baseModel=TINY,
        trainingData=await owner.dataset_version(item_lines(4)),
        method={"reinforcement": {"grader": score(), "hyperparameters": settings}},
        evaluation={
            "graders": [{"name": "judge", "grader": score()}, {"name": "mood", "grader": LABEL}],
            "data": held_out,
            "maxCompletionTokens": 4,
        },
    )
    while not judge.server.requests:  # noqa: ASYNC110 - a request comes when it comes
        await asyncio.sleep(0.1)
    token = await judge.token_of(job)
    await look_for_it(stack, token, job)
    assert await allowed(stack, token) == 404  # no such model, for one who may ask
    for method, path in (("POST", "/graphql"), ("GET", "/v1/files"), ("GET", "/v1/models")):
        async with Api(stack.url, token) as client:
            answer = await client.http.request(method, path, json={"query": "{ viewer { role } }"})
            assert answer.status_code == 401, path

    judge.server.may_answer.set()
    found = await until(owner, job, "SUCCEEDED", "FAILED")
    assert found["status"] == "SUCCEEDED", found["error"]
    assert await allowed(stack, token) == 401
    asked = "query ($j: ID!) { job(id: $j) { metrics { step reward score graderScores"
    asked += " { name score } } events(types: [SCORE]) { nodes { data } } } }"
    shown = (await owner.execute(asked, j=job))["job"]
    last = shown["metrics"][-1]
    # The number 5 is no label, so that every answer gets the worst mark from that grader.
    assert (last["reward"], last["score"]) == (5, 2.5)
    assert {part["name"]: part["score"] for part in last["graderScores"]} == {"judge": 5, "mood": 0}
    assert token not in json.dumps(shown)
    assert await judge.tables_with(token) == []
    assert await judge.tables_with(token.split(".")[-1]) == []
    await is_nowhere(stack, token)


@pytest.mark.soak
async def test_a_judge_that_is_taken_down_costs_the_score_and_not_the_job(
    owner: Api, judge: Judge
) -> None:
    job = await owner.job_id(
        baseModel=TINY,
        trainingData=await owner.dataset_version(chat_lines(4)),
        method={"supervised": {"hyperparameters": {"nEpochs": 1}}},
        evaluation={
            "graders": [{"name": "judge", "grader": score()}],
            "data": await owner.dataset_version(item_lines(2, "held")),
            "maxCompletionTokens": 4,
        },
    )
    await judge.undeploy()
    found = await until(owner, job, "SUCCEEDED", "FAILED")
    assert found["status"] == "SUCCEEDED", found["error"]
    asked = "query ($j: ID!) { job(id: $j) { events(types: [SCORE]) { nodes { message } } } }"
    events = (await owner.execute(asked, j=job))["job"]["events"]["nodes"]
    assert "is not deployed. Call deployModel first." in events[-1]["message"]


async def allowed(stack: Stack, token: str) -> int:
    async with Api(stack.url, token) as client:
        body = {"model": "ft:nobody", "messages": []}
        return (await client.http.post("/v1/chat/completions", json=body)).status_code


async def look_for_it(stack: Stack, token: str, job: str) -> None:
    """While the graders wait for the model: only the training process was handed the token."""
    [worker] = stack.workers
    assert stack.api is not None
    found = [psutil.Process(process.pid) for process in (worker, stack.api)]
    family = [*found, *(child for one in found for child in one.children(recursive=True))]
    training = [process for process in family if "app.training" in process.cmdline()]
    assert [token in process.environ()[MODEL_ENDPOINT] for process in training] == [True]
    assert any("app.graders" in process.cmdline() for process in family)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert token not in " ".join(process.cmdline())
            assert process in training or token not in str(process.environ())
    assert list((stack.folder / "runs" / job).rglob("config.json"))
    await is_nowhere(stack, token)


async def is_nowhere(stack: Stack, token: str) -> None:
    """In no file of the data folder: logs, runs, results, the database's own."""
    program = ["grep", "-rlF", token, str(stack.folder)]
    found = await asyncio.to_thread(subprocess.run, program, capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (1, b""), found
